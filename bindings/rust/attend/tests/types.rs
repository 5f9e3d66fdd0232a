//! Element types: the bits of the f32 call on widened operands, rounded once; keys and values of 8 bits; conversion.

mod common;

use attend::*;
use common::Random;
use half::{bf16, f16};

fn floats(random: &mut Random, count: usize) -> Vec<f32> {
    random.normals(count).iter().map(|&x| x as f32).collect()
}

/// Numbers of a narrow type, and the same in f32.
macro_rules! narrow {
    ($type:ty, $numbers:expr) => {{
        let narrow: Vec<$type> = $numbers.iter().map(|&x| <$type>::from_f32(x)).collect();
        let wide: Vec<f32> = narrow.iter().map(|x| x.to_f32()).collect();
        (narrow, wide)
    }};
}

macro_rules! same {
    ($type:ty, $got:expr, $wide:expr) => {
        for (got, wide) in $got.iter().zip($wide.iter()) {
            let want = <$type>::from_f32(*wide);
            assert_eq!(got.to_bits(), want.to_bits(), "{got} instead of {want}");
        }
    };
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn every_operand_has_its_type() {
    let mut random = Random(11);
    let (h, nq, nk, d) = (2, 5, 300, 12);
    let (q, wide_q) = narrow!(bf16, floats(&mut random, h * nq * d));
    let (k, wide_k) = narrow!(f16, floats(&mut random, h * nk * d));
    let v = floats(&mut random, h * nk * d);
    let (bias, wide_bias) = narrow!(f16, floats(&mut random, nq * nk));
    let (slopes, wide_slopes) = narrow!(bf16, [0.5f32, 0.25]);

    let (mut out, mut lse) = (vec![f16::ZERO; h * nq * d], vec![0f32; h * nq]);
    let options = AttentionOptions {
        bias: Some(View::new(&bias, &[nq, nk]).unwrap().into()),
        alibi_slopes: Some(View::new(&slopes, &[h]).unwrap().into()),
        lse: Some(ViewMut::new(&mut lse, &[h, nq, 1]).unwrap().into()),
        ..Default::default()
    };
    attention(
        View::new(&q, &[h, nq, d]).unwrap(),
        View::new(&k, &[h, nk, d]).unwrap(),
        View::new(&v, &[h, nk, d]).unwrap(),
        ViewMut::new(&mut out, &[h, nq, d]).unwrap(),
        options,
    )
    .unwrap();

    let (mut wide_out, mut wide_lse) = (vec![0f32; h * nq * d], vec![0f32; h * nq]);
    let options = AttentionOptions {
        bias: Some(View::new(&wide_bias, &[nq, nk]).unwrap().into()),
        alibi_slopes: Some(View::new(&wide_slopes, &[h]).unwrap().into()),
        lse: Some(ViewMut::new(&mut wide_lse, &[h, nq, 1]).unwrap().into()),
        ..Default::default()
    };
    attention(
        View::new(&wide_q, &[h, nq, d]).unwrap(),
        View::new(&wide_k, &[h, nk, d]).unwrap(),
        View::new(&v, &[h, nk, d]).unwrap(),
        ViewMut::new(&mut wide_out, &[h, nq, d]).unwrap(),
        options,
    )
    .unwrap();
    same!(f16, out, wide_out);
    assert_eq!(bits(&lse), bits(&wide_lse));
}

#[test]
fn native_dot() {
    let product = |a: &[f32], b: &[f32], native_dot| {
        let (a, _) = narrow!(bf16, a);
        let (b, _) = narrow!(bf16, b);
        let mut c = vec![1f32; 64 * 4];
        let options = MatmulOptions {
            native_dot,
            ..Default::default()
        };
        matmul(
            View::weight(&a, 1, 64, 96).unwrap(),
            View::new(&b, &[4, 96]).unwrap(),
            ViewMut::new(&mut c, &[4, 64]).unwrap(),
            options,
        )
        .unwrap();
        bits(&c)
    };
    let mut random = Random(13);
    let mut small = |count| -> Vec<f32> {
        let whole = |x: &f32| (3.0 * x).round();
        floats(&mut random, count).iter().map(whole).collect()
    };
    let (a, b) = (small(64 * 96), small(96 * 4));
    assert_eq!(product(&a, &b, true), product(&a, &b, false));
    // Of four columns on every CPU that has them, the dot products count what lies below the smallest normal number as 0.
    let (a, b) = (vec![2f32.powi(-70); 64 * 96], vec![2f32.powi(-70); 96 * 4]);
    let sum = 96.0 * 2f32.powi(-70) * 2f32.powi(-70);
    assert_eq!(product(&a, &b, false), bits(&vec![sum; 64 * 4]));
    let sum = if isa() == "avx512bf16" { 0.0 } else { sum };
    assert_eq!(product(&a, &b, true), bits(&vec![sum; 64 * 4]));
}

#[test]
fn other_functions() {
    let mut random = Random(12);
    let (a, wide_a) = narrow!(f16, floats(&mut random, 7 * 600));
    let (b, wide_b) = narrow!(bf16, floats(&mut random, 600 * 5));
    let (mut c, mut wide_c) = (vec![bf16::ONE; 35], vec![1f32; 35]);
    let options = || MatmulOptions {
        beta: 0.5,
        ..Default::default()
    };
    matmul(
        View::weight(&a, 1, 7, 600).unwrap(),
        View::new(&b, &[5, 600]).unwrap(),
        ViewMut::new(&mut c, &[5, 7]).unwrap(),
        options(),
    )
    .unwrap();
    matmul(
        View::weight(&wide_a, 1, 7, 600).unwrap(),
        View::new(&wide_b, &[5, 600]).unwrap(),
        ViewMut::new(&mut wide_c, &[5, 7]).unwrap(),
        options(),
    )
    .unwrap();
    same!(bf16, c, wide_c);

    // Softmax in x's type, in place, and in f32.
    let (mut x, wide_x) = narrow!(bf16, floats(&mut random, 5 * 40));
    let (mut y, mut want) = (vec![0f32; 200], vec![0f32; 200]);
    let shape = [5, 40];
    softmax(
        View::new(&wide_x, &shape).unwrap(),
        ViewMut::new(&mut want, &shape).unwrap(),
        Default::default(),
    )
    .unwrap();
    softmax(
        View::new(&x, &shape).unwrap(),
        ViewMut::new(&mut y, &shape).unwrap(),
        Default::default(),
    )
    .unwrap();
    assert_eq!(bits(&y), bits(&want));
    softmax_in_place(ViewMut::new(&mut x, &shape).unwrap(), Default::default()).unwrap();
    same!(bf16, x, want);

    // Projections, and the union of the result with itself.
    let (x, wide_x) = narrow!(bf16, floats(&mut random, 6 * 8));
    let (w, wide_w) = narrow!(f16, floats(&mut random, 8 * 8));
    let (mut out, mut wide_out) = (vec![bf16::ZERO; 48], vec![0f32; 48]);
    let w = View::weight(&w, 1, 8, 8).unwrap();
    let mut weights = Weights::new(w, w, View::weight(&wide_w, 1, 8, 8).unwrap());
    weights.w_o = Some(w.into());
    let wide_w = View::weight(&wide_w, 1, 8, 8).unwrap();
    let mut wide_weights = Weights::new(wide_w, wide_w, wide_w);
    wide_weights.w_o = Some(wide_w.into());
    self_attention(
        View::new(&x, &[6, 8]).unwrap(),
        weights,
        ViewMut::new(&mut out, &[6, 8]).unwrap(),
        Default::default(),
    )
    .unwrap();
    self_attention(
        View::new(&wide_x, &[6, 8]).unwrap(),
        wide_weights,
        ViewMut::new(&mut wide_out, &[6, 8]).unwrap(),
        Default::default(),
    )
    .unwrap();
    same!(bf16, out, wide_out);

    let (mut out_a, mut wide_out) = narrow!(f16, wide_out);
    let (lse, mut lse_a, mut wide_lse) = (vec![0.5f32; 6], vec![-1f32; 6], vec![-1f32; 6]);
    let out_b = View::new(&wide_x, &[6, 8]).unwrap();
    let lse_b = View::new(&lse, &[6, 1]).unwrap();
    merge(
        ViewMut::new(&mut out_a, &[6, 8]).unwrap(),
        ViewMut::new(&mut lse_a, &[6, 1]).unwrap(),
        View::new(&x, &[6, 8]).unwrap(),
        lse_b,
        0,
    )
    .unwrap();
    merge(
        ViewMut::new(&mut wide_out, &[6, 8]).unwrap(),
        ViewMut::new(&mut wide_lse, &[6, 1]).unwrap(),
        out_b,
        lse_b,
        0,
    )
    .unwrap();
    same!(f16, out_a, wide_out);
}

/// Scales of powers of two, with which it makes no difference when they are multiplied; below one, so that no weight is
/// subnormal, whose products are rounded.
#[test]
fn keys_and_values_of_eight_bits() {
    let mut random = Random(13);
    let (n, d) = (40, 8);
    let q = floats(&mut random, 3 * d);
    let mut bytes = |from: f64, to: f64| -> Vec<f64> {
        (0..n * d)
            .map(|_| (from + random.next() * (to - from)).floor())
            .collect()
    };
    let (k, v) = (bytes(-127.0, 128.0), bytes(-127.0, 128.0));
    let per_key: Vec<f32> = (0..n).map(|j| 2f32.powi(-5 - (j % 5) as i32)).collect();
    let per_feature: Vec<f32> = (0..d).map(|f| 2f32.powi(-5 - (f % 3) as i32)).collect();
    let of = |scaled: &[f32], at: usize| scaled[if scaled.len() == n { at / d } else { at % d }];
    let shape_of = |scaled: &[f32]| if scaled.len() == n { [n, 1] } else { [1, d] };
    let run = |k: View, v: View, options: AttentionOptions| {
        let mut out = vec![0f32; 3 * d];
        let o = ViewMut::new(&mut out, &[3, d]).unwrap();
        attention(View::new(&q, &[3, d]).unwrap(), k, v, o, options).map(|()| bits(&out))
    };
    let i8_of = |x: &[f64]| x.iter().map(|&x| x as i8).collect::<Vec<_>>();
    let (k8, v8) = (i8_of(&k), i8_of(&v));
    let (k8, v8) = (
        View::new(&k8, &[n, d]).unwrap(),
        View::new(&v8, &[n, d]).unwrap(),
    );
    for k_scale in [&per_key, &per_feature] {
        for v_scale in [&per_key, &per_feature] {
            let times = |x: &[f64], scale: &[f32]| -> Vec<f32> {
                let product = |(at, &x): (usize, &f64)| x as f32 * of(scale, at);
                x.iter().enumerate().map(product).collect()
            };
            let (k, v) = (times(&k, k_scale), times(&v, v_scale));
            let want = run(
                View::new(&k, &[n, d]).unwrap().into(),
                View::new(&v, &[n, d]).unwrap().into(),
                Default::default(),
            );
            let options = AttentionOptions {
                k_scale: Some(View::new(k_scale, &shape_of(k_scale)).unwrap()),
                v_scale: Some(View::new(v_scale, &shape_of(v_scale)).unwrap()),
                ..Default::default()
            };
            assert_eq!(run(k8.into(), v8.into(), options), want);
        }
    }

    // Floats of 8 bits, with a scale and without.
    let x: Vec<u8> = (0..n * d).map(|i| (i * 37 % 127) as u8).collect();
    let wide: Vec<f32> = x.iter().map(|&x| f8_by_definition(x)).collect();
    let halved: Vec<f32> = wide.iter().map(|x| x / 64.0).collect();
    let x = View::new(F8E4M3::slice(&x), &[n, d]).unwrap();
    let one = [1f32 / 64.0];
    let options = AttentionOptions {
        k_scale: Some(View::new(&one, &[1]).unwrap()),
        ..Default::default()
    };
    let got = run(x.into(), x.into(), options);
    let want = run(
        View::new(&halved, &[n, d]).unwrap().into(),
        View::new(&wide, &[n, d]).unwrap().into(),
        Default::default(),
    );
    assert_eq!(got, want);
    assert!(got.is_ok());

    let said = |k: View, v: View| run(k, v, Default::default()).unwrap_err();
    let error = said(k8.into(), v8.into());
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (
            Kind::NullPointer,
            "options.k_scale: is null, but required where k's type is int8."
        )
    );
    let doubles = vec![0f64; n * d];
    let error = said(x.into(), View::new(&doubles, &[n, d]).unwrap().into());
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (
            Kind::InvalidDtype,
            "v: is float64; float32, bfloat16, float16, int8 or float8_e4m3 is needed beside the other operands."
        )
    );
}

fn f8_by_definition(bits: u8) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let size = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction / 8.0 * 2f32.powi(-6),
        _ => (1.0 + fraction / 8.0) * 2f32.powi(exponent - 7),
    };
    if bits < 128 {
        size
    } else {
        -size
    }
}

#[test]
fn conversion() {
    fn to<X: Element, Y: Element>(x: &[X], y: Y) -> Vec<Y> {
        let mut out = vec![y; x.len()];
        let view = ViewMut::new(&mut out, &[x.len()]).unwrap();
        convert(View::new(x, &[x.len()]).unwrap(), view, Default::default()).unwrap();
        out
    }
    let x = floats(&mut Random(14), 1000);
    same!(bf16, to(&x, bf16::ZERO), x);
    same!(f16, to(&x, f16::ZERO), x);
    let narrow = to(&x, bf16::ZERO);
    let wide: Vec<f32> = narrow.iter().map(|x| x.to_f32()).collect();
    assert_eq!(bits(&to(&narrow, 0f32)), bits(&wide));
    assert_eq!(to(&[1.5f64, 2.5, -300.0, f64::NAN], 0i8), [2, 2, -128, 0]);
    assert_eq!(to(&[-1f32, 255.5, 254.5], 0u8), [0, 255, 254]);
    assert_eq!(to(&[f32::MAX, -7.0], 0i32), [i32::MAX, -7]);
    let every: Vec<u8> = (0..=255).collect();
    for (bits, got) in to(F8E4M3::slice(&every), 0f64).iter().enumerate() {
        let want = f64::from(f8_by_definition(bits as u8));
        assert!(
            *got == want || got.is_nan() && want.is_nan(),
            "{bits}: {got}"
        );
    }
    let mut stored = [0u8; 3];
    let y = ViewMut::new(F8E4M3::slice_mut(&mut stored), &[3]).unwrap();
    convert(
        View::new(&[1f32, -1e9, 0.5], &[3]).unwrap(),
        y,
        Default::default(),
    )
    .unwrap();
    assert_eq!(stored, [0x38, 0xfe, 0x30]);

    // A scale for each of 10 items is computed; given, it brings the numbers back.
    let (mut scale, mut y, mut back) = (vec![0f32; 10], vec![0i8; 1000], vec![0f32; 1000]);
    let options = ConvertOptions {
        scale: Scale::Computed(ViewMut::new(&mut scale, &[10, 1]).unwrap()),
        threads: 1,
    };
    convert(
        View::new(&x, &[10, 100]).unwrap(),
        ViewMut::new(&mut y, &[10, 100]).unwrap(),
        options,
    )
    .unwrap();
    let given = || ConvertOptions {
        scale: Scale::Given(View::new(&scale, &[10, 1]).unwrap()),
        ..Default::default()
    };
    convert(
        View::new(&y, &[10, 100]).unwrap(),
        ViewMut::new(&mut back, &[10, 100]).unwrap(),
        given(),
    )
    .unwrap();
    for (row, scale) in scale.iter().enumerate() {
        let at = row * 100..row * 100 + 100;
        let most = x[at.clone()].iter().fold(0f32, |m, x| m.max(x.abs()));
        assert_eq!(*scale, most / 127.0);
        for i in at {
            assert!((f32::from(y[i]) - x[i] / scale).abs() <= 0.5);
            assert_eq!(back[i], scale * f32::from(y[i]));
        }
    }

    let error = convert(
        View::new(&x, &[10, 100]).unwrap(),
        ViewMut::new(&mut back, &[10, 100]).unwrap(),
        given(),
    )
    .unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidValue);
    assert_eq!(
        error.to_string(),
        "options.scale: is given, but x's type is float32 and y's type float32: \
         one of the two must be int8, uint8 or float8_e4m3."
    );
    let mut scale = [0f32];
    let computed = ConvertOptions {
        scale: Scale::Computed(ViewMut::new(&mut scale, &[1]).unwrap()),
        ..Default::default()
    };
    let out = ViewMut::new(&mut back, &[10, 100]).unwrap();
    let error = convert(View::new(&x, &[10, 100]).unwrap(), out, computed).unwrap_err();
    assert_eq!(
        error.to_string(),
        "options.scale: is Computed, but y's type is float32, not int8 or float8_e4m3."
    );
}
