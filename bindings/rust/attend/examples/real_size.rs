//! Attention of 8 heads of 1024 items and 64 features, beside the same with the crate matrixmultiply (ndarray's products).

#[path = "../tests/common.rs"]
mod common;

use attend::*;
use std::time::{Duration, Instant};

const HEADS: usize = 8;
const N: usize = 1024;
const D: usize = 64;

fn composed(q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
    let mut scores = vec![0f32; N * N];
    for h in 0..HEADS {
        let at = h * N * D;
        let (n, d) = (N as isize, D as isize);
        // Safety: every operand holds what its shape and strides say.
        unsafe {
            let scale = 1.0 / (D as f32).sqrt();
            matrixmultiply::sgemm(
                N,
                D,
                N,
                scale,
                q[at..].as_ptr(),
                d,
                1,
                k[at..].as_ptr(),
                1,
                d,
                0.0,
                scores.as_mut_ptr(),
                n,
                1,
            );
        }
        for row in scores.chunks_mut(N) {
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for x in row.iter_mut() {
                *x = (*x - most).exp();
                sum += *x;
            }
            row.iter_mut().for_each(|x| *x /= sum);
        }
        unsafe {
            matrixmultiply::sgemm(
                N,
                N,
                D,
                1.0,
                scores.as_ptr(),
                n,
                1,
                v[at..].as_ptr(),
                d,
                1,
                0.0,
                out[at..].as_mut_ptr(),
                d,
                1,
            );
        }
    }
}

fn best(mut f: impl FnMut()) -> Duration {
    let one = |_| {
        let start = Instant::now();
        f();
        start.elapsed()
    };
    (0..3).map(one).min().unwrap()
}

fn main() {
    let mut random = common::Random(1);
    let mut draw = || {
        random
            .normals(HEADS * N * D)
            .iter()
            .map(|&x| x as f32)
            .collect::<Vec<_>>()
    };
    let (q, k, v) = (draw(), draw(), draw());
    let (mut ours, mut theirs) = (q.clone(), q.clone());
    let of = |x| View::new(x, &[HEADS, N, D]).unwrap();
    let mut run = |threads| {
        let options = AttentionOptions {
            threads,
            ..Default::default()
        };
        attention(
            of(&q),
            of(&k),
            of(&v),
            ViewMut::new(&mut ours, &[HEADS, N, D]).unwrap(),
            options,
        )
        .unwrap();
    };
    let (one, all) = (best(|| run(1)), best(|| run(0)));
    let other = best(|| composed(&q, &k, &v, &mut theirs));
    assert!(
        ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-4),
        "the results differ"
    );
    println!(
        "attend {}: {one:.2?} on one thread, {all:.2?} on {}; matrixmultiply: {other:.2?}",
        isa(),
        threads()
    );
}
