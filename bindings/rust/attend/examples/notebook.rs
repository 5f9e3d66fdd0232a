//! The self-attention of the notebook, printed as it prints it, and the time of a call.

#[path = "../tests/common.rs"]
mod common;

use attend::*;

fn main() -> Result<(), Error> {
    let m = common::notebook();
    let view = |name: &str| View::weight(&m[name].2, 1, m[name].0, m[name].1);
    let mut weights = Weights::new(view("omega_q")?, view("omega_k")?, view("omega_v")?);
    weights.b_q = Some(view("beta_q")?.into());
    weights.b_k = Some(view("beta_k")?.into());
    weights.b_v = Some(view("beta_v")?.into());
    let (x, mut out) = (view("x")?, vec![0.0; 12]);
    for (title, scale) in [
        ("x_prime, unscaled:", Some(1.0)),
        ("x_prime, scaled by 1/sqrt(D):", None),
    ] {
        let options = AttentionOptions {
            scale,
            ..Default::default()
        };
        self_attention(x, weights, ViewMut::new(&mut out, &[3, 4])?, options)?;
        println!("{title}");
        for item in out.chunks(4) {
            println!(
                "{}",
                item.iter().map(|v| format!("{v:13.8}")).collect::<String>()
            );
        }
    }
    let start = std::time::Instant::now();
    for _ in 0..100_000 {
        self_attention(
            x,
            weights,
            ViewMut::new(&mut out, &[3, 4])?,
            AttentionOptions::default(),
        )?;
    }
    println!("{:.0} ns a call", start.elapsed().as_secs_f64() * 1e4);
    Ok(())
}
