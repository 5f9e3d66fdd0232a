//! attention_backward: the slopes of what attention computes, of all gradients that there are.
mod common;

use attend::*;
use common::{Problem, Random};

const SHAPE: fn(&Problem, bool) -> [usize; 4] = |p, of_keys| {
    let (heads, items) = if of_keys {
        (p.kv, p.keys)
    } else {
        (p.heads, p.queries)
    };
    [p.batch, heads, items, p.d]
};

struct Case {
    p: Problem,
    bias: Vec<f64>,
    sinks: Vec<f64>,
    d_out: Vec<f64>,
    d_lse: Vec<f64>,
}

impl Case {
    fn options(&self) -> AttentionOptions<'_> {
        AttentionOptions {
            causal: Some(Causal::TopLeft),
            query_offset: 9,
            softcap: Some(2.0),
            bias: Some(
                View::new(&self.bias, &[self.p.queries, self.p.keys])
                    .unwrap()
                    .into(),
            ),
            sinks: Some(View::new(&self.sinks, &[self.p.heads]).unwrap().into()),
            ..Default::default()
        }
    }
    fn forward(&self) -> (Vec<f64>, Vec<f64>) {
        let p = &self.p;
        let (mut out, mut lse) = (vec![0.0; p.q.len()], vec![0.0; self.d_lse.len()]);
        let options = AttentionOptions {
            lse: Some(
                ViewMut::new(&mut lse, &[p.batch, p.heads, p.queries, 1])
                    .unwrap()
                    .into(),
            ),
            ..self.options()
        };
        let k = View::new(&p.k, &SHAPE(p, true)).unwrap();
        let v = View::new(&p.v, &SHAPE(p, true)).unwrap();
        let q = View::new(&p.q, &SHAPE(p, false)).unwrap();
        attention(
            q,
            k,
            v,
            ViewMut::new(&mut out, &SHAPE(p, false)).unwrap(),
            options,
        )
        .unwrap();
        (out, lse)
    }
    /// The number that the gradients are of.
    fn loss(&self) -> f64 {
        let (out, lse) = self.forward();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        dot(&out, &self.d_out) + dot(&lse, &self.d_lse)
    }
    /// d_q, d_k, d_v, d_bias and d_sinks on top of what they hold.
    fn backward(&self, gradients: &mut [Vec<f64>; 5], accumulate: bool, gives_lse: bool) {
        let p = &self.p;
        let (out, lse) = self.forward();
        let [d_q, d_k, d_v, d_bias, d_sinks] = gradients;
        let of_lse = [p.batch, p.heads, p.queries, 1];
        let options = AttentionBackwardOptions {
            d_q: Some(ViewMut::new(d_q, &SHAPE(p, false)).unwrap().into()),
            d_k: Some(ViewMut::new(d_k, &SHAPE(p, true)).unwrap().into()),
            d_v: Some(ViewMut::new(d_v, &SHAPE(p, true)).unwrap().into()),
            d_bias: Some(ViewMut::new(d_bias, &[p.queries, p.keys]).unwrap().into()),
            d_sinks: Some(ViewMut::new(d_sinks, &[p.heads]).unwrap().into()),
            accumulate,
            lse: gives_lse.then(|| View::new(&lse, &of_lse).unwrap().into()),
            d_lse: Some(View::new(&self.d_lse, &of_lse).unwrap().into()),
        };
        let q = View::new(&p.q, &SHAPE(p, false)).unwrap();
        let k = View::new(&p.k, &SHAPE(p, true)).unwrap();
        let v = View::new(&p.v, &SHAPE(p, true)).unwrap();
        let out = View::new(&out, &SHAPE(p, false)).unwrap();
        let d_out = View::new(&self.d_out, &SHAPE(p, false)).unwrap();
        attention_backward(q, k, v, out, d_out, options, self.options()).unwrap();
    }
    fn operand(&mut self, i: usize) -> &mut Vec<f64> {
        match i {
            0 => &mut self.p.q,
            1 => &mut self.p.k,
            2 => &mut self.p.v,
            3 => &mut self.bias,
            _ => &mut self.sinks,
        }
    }
}

fn case() -> Case {
    let mut random = Random(11);
    let p = Problem::new(&mut random);
    let (rows, pairs) = (p.batch * p.heads * p.queries, p.queries * p.keys);
    Case {
        bias: random.normals(pairs),
        sinks: random.normals(p.heads),
        d_out: random.normals(p.q.len()),
        d_lse: random.normals(rows),
        p,
    }
}

#[test]
fn slopes() {
    let mut case = case();
    let mut gradients: [Vec<f64>; 5] =
        std::array::from_fn(|i| vec![f64::NAN; case.operand(i).len()]);
    case.backward(&mut gradients, false, true);
    for (i, gradient) in gradients.iter().enumerate() {
        for at in (0..gradient.len()).step_by(gradient.len() / 16 + 1) {
            let (there, step) = (case.operand(i)[at], 1e-5);
            case.operand(i)[at] = there + step;
            let above = case.loss();
            case.operand(i)[at] = there - step;
            let slope = (above - case.loss()) / (2.0 * step);
            case.operand(i)[at] = there;
            let error = (slope - gradient[at]).abs();
            assert!(
                error < 1e-8 * (1.0 + slope.abs()),
                "gradient {i}, element {at}: off by {error}"
            );
        }
    }
    // Without lse the same bits; added to what is there.
    let mut again: [Vec<f64>; 5] = std::array::from_fn(|i| vec![f64::NAN; gradients[i].len()]);
    case.backward(&mut again, false, false);
    assert_eq!(again, gradients);
    case.backward(&mut again, true, true);
    for (twice, once) in again.iter().flatten().zip(gradients.iter().flatten()) {
        assert!((twice - 2.0 * once).abs() <= 1e-12 * (1.0 + once.abs()));
    }
}

#[test]
fn some_of_f32_and_what_is_refused() {
    let x: Vec<f32> = Random(12).normals(24).iter().map(|&x| x as f32).collect();
    let (mut out, mut d_k, mut few) = (vec![0f32; 24], vec![f32::NAN; 24], vec![0f32; 3]);
    let q = View::new(&x, &[2, 3, 4]).unwrap();
    let forward = || AttentionOptions {
        threads: 1,
        ..Default::default()
    };
    attention(
        q,
        q,
        q,
        ViewMut::new(&mut out, &[2, 3, 4]).unwrap(),
        forward(),
    )
    .unwrap();
    let out = View::new(&out, &[2, 3, 4]).unwrap();
    let some = AttentionBackwardOptions {
        d_k: Some(ViewMut::new(&mut d_k, &[2, 3, 4]).unwrap().into()),
        ..Default::default()
    };
    attention_backward(q, q, q, out, q, some, forward()).unwrap();
    // Equal changes of all scores of a query change nothing.
    let sums: Vec<f32> = (0..8)
        .map(|i| (0..3).map(|j| d_k[i / 4 * 12 + j * 4 + i % 4]).sum())
        .collect();
    assert!(d_k.iter().any(|x| x.abs() > 1e-3) && sums.iter().all(|x| x.abs() < 1e-5));

    let wrong = AttentionBackwardOptions {
        d_v: Some(ViewMut::new(&mut few, &[1, 3]).unwrap().into()),
        ..Default::default()
    };
    let error = attention_backward(q, q, q, out, q, wrong, forward()).unwrap_err();
    assert_eq!(
        (error.kind(), error.argument()),
        (Kind::InvalidShape, "d_v")
    );
    let no_bias = AttentionBackwardOptions {
        d_bias: Some(ViewMut::new(&mut few, &[1, 3]).unwrap().into()),
        ..Default::default()
    };
    let error = attention_backward(q, q, q, out, q, no_bias, forward()).unwrap_err();
    assert_eq!(error.argument(), "options.d_bias");
    let many = AttentionOptions {
        threads: -1,
        ..Default::default()
    };
    let error = attention_backward(q, q, q, out, q, Default::default(), many).unwrap_err();
    assert_eq!(error.argument(), "options.threads");
    let no_lengths = AttentionOptions {
        kv_lengths: Some(&[]),
        ..Default::default()
    };
    let error = attention_backward(q, q, q, out, q, Default::default(), no_lengths).unwrap_err();
    assert_eq!(error.argument(), "options.kv_lengths");
}
