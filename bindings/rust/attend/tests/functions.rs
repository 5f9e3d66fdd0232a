mod common;

use attend::*;
use common::{notebook, Problem, Random};

macro_rules! near {
    ($got:expr, $want:expr, $tolerance:expr, $what:expr) => {
        for (i, (got, want)) in $got.iter().zip($want.iter()).enumerate() {
            let (got, want) = (f64::from(*got), f64::from(*want));
            assert!(
                (got - want).abs() <= $tolerance * (1.0 + want.abs()),
                "{} {i}: {got} instead of {want}",
                $what
            );
        }
    };
}

macro_rules! attention_of {
    ($name:ident, $t:ty, $tolerance:expr) => {
        #[test]
        fn $name() {
            let mut random = Random(7);
            let p = Problem::new(&mut random);
            let cast = |x: &[f64]| x.iter().map(|&v| v as $t).collect::<Vec<$t>>();
            let (b, h, kv, nq, nk, d) = (p.batch, p.heads, p.kv, p.queries, p.keys, p.d);
            // Queries interleaved as [batch, N, heads, D]; keys and values by a negative stride.
            let mut interleaved = vec![0 as $t; p.q.len()];
            for (at, value) in p.q.iter().enumerate() {
                let (f, i, head, batch) = (at % d, at / d % nq, at / d / nq % h, at / d / nq / h);
                interleaved[((batch * nq + i) * h + head) * d + f] = *value as $t;
            }
            let rows = (h * d) as isize;
            let q = View::strided(
                &interleaved,
                0,
                &[d, nq, h, b],
                &[1, rows, d as isize, nq as isize * rows],
            )
            .unwrap();
            let (k, mut reversed) = (cast(&p.k), cast(&p.v));
            reversed.reverse();
            let k = View::new(&k, &[b, kv, nk, d]).unwrap();
            let (n, e) = (nk as isize, d as isize);
            let v = View::strided(
                &reversed,
                reversed.len() - 1,
                &[d, nk, kv, b],
                &[-1, -e, -e * n, -e * n * kv as isize],
            )
            .unwrap();
            let mut out = vec![<$t>::NAN; p.q.len()];
            let shape = [b, h, nq, d];
            let scale = 1.0 / (d as f64).sqrt();
            let mut run = |options: AttentionOptions| {
                out.iter_mut().for_each(|x| *x = <$t>::NAN);
                attention(q, k, v, ViewMut::new(&mut out, &shape).unwrap(), options).unwrap();
                out.clone()
            };
            let hidden = f64::NEG_INFINITY;
            let visible = |yes: bool| if yes { 0.0 } else { f64::NEG_INFINITY };

            near!(
                run(AttentionOptions::default()),
                p.formula(scale, |_, _, _, _| 0.0),
                $tolerance,
                "plain"
            );
            let mask: Vec<bool> = (0..nq * nk).map(|_| random.next() < 0.7).collect();
            let bias: Vec<$t> = cast(&random.normals(h * nq * nk));
            let got = run(AttentionOptions {
                mask: Some(View::new(&mask, &[1, 1, nq, nk]).unwrap()),
                bias: Some(View::new(&bias, &[h, nq, nk]).unwrap().into()),
                scale: Some(0.5),
                threads: 1,
                ..Default::default()
            });
            let want = p.formula(0.5, |j, i, head, _| {
                if mask[i * nk + j] {
                    f64::from(bias[(head * nq + i) * nk + j])
                } else {
                    hidden
                }
            });
            near!(got, want, $tolerance, "mask and bias");
            let got = run(AttentionOptions {
                causal: Some(Causal::BottomRight),
                ..Default::default()
            });
            near!(
                got,
                p.formula(scale, |j, i, _, _| visible(j <= i + nk - nq)),
                $tolerance,
                "causal"
            );
            let got = run(AttentionOptions {
                causal: Some(Causal::TopLeft),
                query_offset: 7,
                window: Some((4, 0)),
                ..Default::default()
            });
            near!(
                got,
                p.formula(scale, |j, i, _, _| visible(j <= i + 7 && j >= i + 3)),
                $tolerance,
                "window"
            );
            let lengths = [30i64, 37];
            let got = run(AttentionOptions {
                kv_lengths: Some(&lengths),
                ..Default::default()
            });
            near!(
                got,
                p.formula(scale, |j, _, _, batch| visible((j as i64) < lengths[batch])),
                $tolerance,
                "lengths"
            );
            let firsts = [3i64, 20];
            let got = run(AttentionOptions {
                kv_first: Some(&firsts),
                kv_lengths: Some(&lengths),
                ..Default::default()
            });
            near!(
                got,
                p.formula(scale, |j, _, _, batch| visible(
                    (firsts[batch]..lengths[batch]).contains(&(j as i64))
                )),
                $tolerance,
                "first keys"
            );
            let slopes = [0.5 as $t, 0.25, 0.125, 0.0625];
            let got = run(AttentionOptions {
                alibi_slopes: Some(View::new(&slopes, &[h]).unwrap().into()),
                query_offset: 32,
                softcap: Some(1e9),
                ..Default::default()
            });
            let want = p.formula(scale, |j, i, head, _| {
                -f64::from(slopes[head]) * (i as f64 + 32.0 - j as f64).abs()
            });
            near!(got, want, $tolerance, "alibi");

            // Outputs, and the union of two parts.
            let (mut lse, mut scores) = (vec![0 as $t; b * h * nq], vec![0 as $t; b * h * nq * nk]);
            run(AttentionOptions {
                lse: Some(ViewMut::new(&mut lse, &[b, h, nq, 1]).unwrap().into()),
                scores: Some(ViewMut::new(&mut scores, &[b, h, nq, nk]).unwrap().into()),
                scores_stage: Stage::Probabilities,
                ..Default::default()
            });
            for row in scores.chunks(nk) {
                assert!((row.iter().map(|&x| f64::from(x)).sum::<f64>() - 1.0).abs() < 1e-5);
            }
            let mut halves = Vec::new();
            for lengths in [[20i64, 20], [17, 17]] {
                let mut l = vec![0 as $t; b * h * nq];
                let skip = if lengths[0] == 20 { 0 } else { 20 };
                let cut = |view: &[$t]| view.to_vec();
                let (ks, vs) = (cut(&cast(&p.k)), cut(&cast(&p.v)));
                let part = |x: &'static [$t]| {
                    View::strided(
                        x,
                        skip * d,
                        &[d, lengths[0] as usize, kv, b],
                        &[1, e, e * n, e * n * kv as isize],
                    )
                    .unwrap()
                };
                let (ks, vs): (&'static [$t], &'static [$t]) = (ks.leak(), vs.leak());
                let mut o = vec![0 as $t; p.q.len()];
                let options = AttentionOptions {
                    lse: Some(ViewMut::new(&mut l, &[b, h, nq, 1]).unwrap().into()),
                    ..Default::default()
                };
                attention(
                    q,
                    part(ks),
                    part(vs),
                    ViewMut::new(&mut o, &shape).unwrap(),
                    options,
                )
                .unwrap();
                halves.push((o, l));
            }
            let (ob, lb) = halves.pop().unwrap();
            let (mut oa, mut la) = halves.pop().unwrap();
            merge(
                ViewMut::new(&mut oa, &shape).unwrap(),
                ViewMut::new(&mut la, &[b, h, nq, 1]).unwrap(),
                View::new(&ob, &shape).unwrap(),
                View::new(&lb, &[b, h, nq, 1]).unwrap(),
                0,
            )
            .unwrap();
            near!(oa, p.formula(scale, |_, _, _, _| 0.0), $tolerance, "merge");
            near!(la, lse, $tolerance, "merged lse");
        }
    };
}

attention_of!(attention_f32, f32, 1e-5);
attention_of!(attention_f64, f64, 1e-12);

#[test]
fn matmul_and_softmax() {
    let mut random = Random(3);
    let (a, b, bias) = (
        random.normals(7 * 19),
        random.normals(5 * 38),
        random.normals(7),
    );
    let mut c = vec![1.0; 35];
    let options = MatmulOptions {
        alpha: 0.5,
        beta: 2.0,
        bias: Some(View::new(&bias, &[7]).unwrap().into()),
        threads: 1,
        ..Default::default()
    };
    // Every other element of b.
    let strided = View::strided(&b, 0, &[19, 5], &[2, 38]).unwrap();
    matmul(
        View::weight(&a, 1, 7, 19).unwrap(),
        strided,
        ViewMut::new(&mut c, &[5, 7]).unwrap(),
        options,
    )
    .unwrap();
    for j in 0..5 {
        for i in 0..7 {
            let sum: f64 = (0..19).map(|k| a[i * 19 + k] * b[j * 38 + 2 * k]).sum();
            assert!((c[j * 7 + i] - (0.5 * sum + 2.0 + bias[i])).abs() < 1e-12);
        }
    }
    let mask: Vec<bool> = (0..35).map(|i| i % 7 != 3).collect();
    let (mut y, mut logs, mut lse) = (vec![0.0; 35], c.clone(), vec![0.0; 5]);
    let x = View::new(&c, &[5, 7]).unwrap();
    let options = SoftmaxOptions {
        scale: 2.0,
        mask: Some(View::new(&mask, &[5, 7]).unwrap()),
        lse: Some(ViewMut::new(&mut lse, &[5, 1]).unwrap().into()),
        ..Default::default()
    };
    softmax(x, ViewMut::new(&mut y, &[5, 7]).unwrap(), options).unwrap();
    let options = SoftmaxOptions {
        scale: 2.0,
        mask: Some(View::new(&mask, &[5, 7]).unwrap()),
        log: true,
        ..Default::default()
    };
    softmax_in_place(ViewMut::new(&mut logs, &[5, 7]).unwrap(), options).unwrap();
    for j in 0..5 {
        let sum: f64 = (0..7)
            .filter(|i| *i != 3)
            .map(|i| (2.0 * c[j * 7 + i]).exp())
            .sum();
        assert!((lse[j] - sum.ln()).abs() < 1e-12);
        for i in 0..7 {
            let want = if i == 3 {
                0.0
            } else {
                (2.0 * c[j * 7 + i]).exp() / sum
            };
            assert!((y[j * 7 + i] - want).abs() < 1e-14);
            assert!(i == 3 || (logs[j * 7 + i] - want.ln()).abs() < 1e-12);
        }
    }
}

#[test]
fn the_gradient_of_softmax() {
    let mut random = Random(5);
    let (x, d_y, d_lse) = (random.normals(35), random.normals(35), random.normals(5));
    let (mut y, mut d_x) = (vec![0.0; 35], vec![0.0; 35]);
    let shape = [5, 7];
    let options = SoftmaxOptions {
        scale: 2.0,
        ..Default::default()
    };
    softmax(
        View::new(&x, &shape).unwrap(),
        ViewMut::new(&mut y, &shape).unwrap(),
        options,
    )
    .unwrap();
    let options = |accumulate| SoftmaxBackwardOptions {
        scale: 2.0,
        accumulate,
        d_lse: Some(View::new(&d_lse, &[5, 1]).unwrap().into()),
        ..Default::default()
    };
    let of_y = || View::new(&y, &shape).unwrap();
    let of_d_y = || View::new(&d_y, &shape).unwrap();
    softmax_backward(
        of_y(),
        of_d_y(),
        ViewMut::new(&mut d_x, &shape).unwrap(),
        options(false),
    )
    .unwrap();
    for j in 0..5 {
        let sum: f64 = (0..7).map(|i| y[j * 7 + i] * d_y[j * 7 + i]).sum();
        for i in j * 7..j * 7 + 7 {
            assert!((d_x[i] - 2.0 * y[i] * (d_y[i] - sum + d_lse[j])).abs() < 1e-14);
        }
    }
    let mut in_place = d_y.clone();
    softmax_backward_in_place(
        of_y(),
        ViewMut::new(&mut in_place, &shape).unwrap(),
        options(false),
    )
    .unwrap();
    assert_eq!(in_place, d_x);
    let mut twice = d_x.clone();
    softmax_backward(
        of_y(),
        of_d_y(),
        ViewMut::new(&mut twice, &shape).unwrap(),
        options(true),
    )
    .unwrap();
    assert!(twice
        .iter()
        .zip(&d_x)
        .all(|(t, d)| (t - 2.0 * d).abs() < 1e-14));
    let short = View::new(&d_y[..28], &[4, 7]).unwrap();
    let wrong = softmax_backward(
        of_y(),
        short,
        ViewMut::new(&mut twice, &shape).unwrap(),
        options(false),
    );
    assert!(wrong.unwrap_err().to_string().contains("d_y"));
}

#[test]
fn the_notebook() {
    let m = notebook();
    let view = |name: &str| {
        let (rows, columns, data) = &m[name];
        View::weight(data, 1, *rows, *columns).unwrap()
    };
    let mut weights = Weights::new(view("omega_q"), view("omega_k"), view("omega_v"));
    (weights.b_q, weights.b_k, weights.b_v) = (
        Some(view("beta_q").into()),
        Some(view("beta_k").into()),
        Some(view("beta_v").into()),
    );
    let mut out = vec![0.0; 12];
    let unscaled = AttentionOptions {
        scale: Some(1.0),
        ..Default::default()
    };
    self_attention(
        view("x"),
        weights,
        ViewMut::new(&mut out, &[3, 4]).unwrap(),
        unscaled,
    )
    .unwrap();
    for i in 0..4 {
        for j in 0..3 {
            assert!((out[j * 4 + i] - m["x_prime"].2[i * 3 + j]).abs() < 5e-9);
        }
    }
    // The scaled version, which the notebook computes and throws away.
    self_attention(
        view("x"),
        weights,
        ViewMut::new(&mut out, &[3, 4]).unwrap(),
        Default::default(),
    )
    .unwrap();
    near!(
        out[..4],
        [0.97411966, -0.23738409, -0.72333202, -0.34413007],
        5e-9,
        "scaled"
    );
}
