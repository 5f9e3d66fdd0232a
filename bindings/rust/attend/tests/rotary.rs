//! Rotary and kv_append: the formula, by position and by offset, what an append writes, and what is refused.

mod common;

use attend::*;
use common::draw;

const D: usize = 8;

/// cos and sin for 20 positions.
fn tables() -> (Vec<f32>, Vec<f32>) {
    let angle = |i: usize| (i / (D / 2)) as f64 * 10f64.powi(-((i % (D / 2)) as i32));
    let count = 20 * D / 2;
    (
        (0..count).map(|i| angle(i).cos() as f32).collect(),
        (0..count).map(|i| angle(i).sin() as f32).collect(),
    )
}

#[test]
fn rotation() {
    let (x, (cos, sin)) = (draw(2 * 3 * D), tables());
    let shape = [2, 1, 3, D];
    let of = |t| View::new(t, &[20, D / 2]).unwrap();
    for interleaved in [false, true] {
        let options = RotaryOptions {
            interleaved,
            offsets: Some(&[0, 7]),
            ..Default::default()
        };
        let mut y = vec![0f32; x.len()];
        let to = ViewMut::new(&mut y, &shape).unwrap();
        rotary(
            View::new(&x, &shape).unwrap(),
            of(&cos),
            of(&sin),
            to,
            options,
        )
        .unwrap();
        for (token, position) in [0usize, 1, 2, 7, 8, 9].iter().enumerate() {
            for i in 0..D / 2 {
                let (a, b) = if interleaved {
                    (2 * i, 2 * i + 1)
                } else {
                    (i, i + D / 2)
                };
                let (c, s) = (cos[position * D / 2 + i], sin[position * D / 2 + i]);
                let (x1, x2) = (x[token * D + a], x[token * D + b]);
                assert!((y[token * D + a] - (x1 * c - x2 * s)).abs() < 1e-6);
                assert!((y[token * D + b] - (x2 * c + x1 * s)).abs() < 1e-6);
            }
        }
        let by_position = RotaryOptions {
            positions: Some(&[0, 1, 2, 7, 8, 9]),
            offsets: None,
            ..options
        };
        let mut z = x.clone();
        rotary_in_place(
            ViewMut::new(&mut z, &shape).unwrap(),
            of(&cos),
            of(&sin),
            by_position,
        )
        .unwrap();
        assert_eq!(y, z);
        let back = RotaryOptions {
            inverse: true,
            ..options
        };
        rotary_in_place(
            ViewMut::new(&mut z, &shape).unwrap(),
            of(&cos),
            of(&sin),
            back,
        )
        .unwrap();
        assert!(z.iter().zip(&x).all(|(z, x)| (z - x).abs() < 1e-6));
    }
}

#[test]
fn appended_with_scales_and_rotation() {
    let (k, (cos, sin)) = (draw(3 * D), tables());
    let of = |t| View::new(t, &[20, D / 2]).unwrap();
    let (mut cache, mut scale) = (vec![0i8; 6 * D], vec![0f32; 6]);
    kv_append(
        View::new(&k, &[3, D]).unwrap(),
        None,
        ViewMut::new(&mut cache, &[6, D]).unwrap(),
        None,
        KvAppendOptions {
            slots: Some(&[4, -1, 0]),
            k_scale: Scale::Computed(ViewMut::new(&mut scale, &[6, 1]).unwrap()),
            cos: Some(of(&cos).into()),
            sin: Some(of(&sin).into()),
            positions: Some(&[10, 0, 12]),
            ..Default::default()
        },
    )
    .unwrap();
    let mut turned = k.clone();
    let options = RotaryOptions {
        positions: Some(&[10, 0, 12]),
        ..Default::default()
    };
    rotary_in_place(
        ViewMut::new(&mut turned, &[3, D]).unwrap(),
        of(&cos),
        of(&sin),
        options,
    )
    .unwrap();
    let (mut bytes, mut wanted) = (vec![0i8; 3 * D], vec![0f32; 3]);
    let computed = ConvertOptions {
        scale: Scale::Computed(ViewMut::new(&mut wanted, &[3, 1]).unwrap()),
        ..Default::default()
    };
    let to = ViewMut::new(&mut bytes, &[3, D]).unwrap();
    convert(View::new(&turned, &[3, D]).unwrap(), to, computed).unwrap();
    assert_eq!(cache[4 * D..5 * D], bytes[..D]);
    assert_eq!(cache[..D], bytes[2 * D..]);
    assert_eq!(scale, [wanted[2], 0.0, 0.0, 0.0, wanted[0], 0.0]);
}

#[test]
fn messages() {
    let x = vec![1f32; 6 * D];
    let t = View::new(&x, &[6, D]).unwrap();
    let (cos, mut cache) = (View::new(&x, &[6, D / 2]).unwrap(), vec![0f32; 9 * D]);
    let rotated = |options| {
        let mut y = vec![0f32; 6 * D];
        let error = rotary(t, cos, cos, ViewMut::new(&mut y, &[6, D]).unwrap(), options);
        error.unwrap_err().to_string()
    };
    let positions = RotaryOptions {
        positions: Some(&[0, 1, 2, 3, 4, 6]),
        ..Default::default()
    };
    assert_eq!(
        rotated(positions),
        "options.positions: is 6 for item 5, but cos has 6 positions, counted from 0."
    );
    let few = RotaryOptions {
        positions: Some(&[0]),
        ..Default::default()
    };
    assert_eq!(
        rotated(few),
        "options.positions: has 1 numbers for 6 items."
    );
    let mut scale = vec![0f32; 9];
    let mut appended = |options| {
        let cache = ViewMut::new(&mut cache, &[9, D]).unwrap();
        let error = kv_append(t, None, cache, None, options);
        error.unwrap_err().to_string()
    };
    let slots = KvAppendOptions {
        slots: Some(&[0, 1, 2, 3, 2, 5]),
        ..Default::default()
    };
    assert_eq!(
        appended(slots),
        "options.slots: has slot 2 twice, for two keys."
    );
    let no_room = KvAppendOptions {
        offsets: Some(&[4]),
        ..Default::default()
    };
    assert_eq!(
        appended(no_room),
        "options.offsets: is 4 for batch 0 of 6 new keys, but a sequence has room for 9."
    );
    let no_tables = KvAppendOptions {
        interleaved: true,
        ..Default::default()
    };
    assert_eq!(
        appended(no_tables),
        "options.interleaved: is true without cos and sin."
    );
    let computed = KvAppendOptions {
        k_scale: Scale::Computed(ViewMut::new(&mut scale, &[9, 1]).unwrap()),
        ..Default::default()
    };
    assert_eq!(
        appended(computed),
        "options.k_scale: is Computed, but k_cache's type is float32, not int8 or float8_e4m3."
    );
    assert!(cache.iter().all(|&x| x == 0.0));
}
