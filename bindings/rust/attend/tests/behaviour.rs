//! Errors, threads, memory.

mod common;

use attend::*;
use common::Random;

fn refused(result: Result<(), Error>, kind: Kind, argument: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.argument().ends_with(argument), "{error}");
    assert!(
        error.to_string().starts_with(error.argument()) && error.to_string().ends_with('.'),
        "{error}"
    );
}

#[test]
fn messages() {
    let data = vec![0f32; 60];
    let view = |shape: &[usize]| View::new(&data, shape).unwrap();
    let mut out = vec![0f32; 24];
    let mut say = |k: View<f32>, v: View<f32>, options: AttentionOptions| {
        let out = ViewMut::new(&mut out, &[2, 3, 4]).unwrap();
        let error = attention(view(&[2, 3, 4]), k, v, out, options);
        error.unwrap_err().to_string()
    };
    let k = view(&[2, 5, 4]);
    assert_eq!(
        say(view(&[2, 5, 3]), k, Default::default()),
        "k: has 3 features, not q's 4."
    );
    let v = view(&[3, 5, 4]);
    assert_eq!(
        say(v, v, Default::default()),
        "k: has 3 heads; q's 2 heads are no multiple of them."
    );
    let window = AttentionOptions {
        window: Some((1, -2)),
        ..Default::default()
    };
    assert_eq!(
        say(k, k, window),
        "options.window: left and right are 1 and -2, but must be -1 or more."
    );
    let lengths = AttentionOptions {
        kv_first: Some(&[]),
        ..Default::default()
    };
    assert_eq!(
        say(k, k, lengths),
        "options.kv_first: has 0 numbers for 1 batches."
    );

    let (w, mut y) = (view(&[4, 4]), vec![0f32; 12]);
    let softcap = AttentionOptions {
        softcap: Some(-1.5),
        ..Default::default()
    };
    let error = self_attention(
        view(&[3, 4]),
        Weights::new(w, w, w),
        ViewMut::new(&mut y, &[3, 4]).unwrap(),
        softcap,
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "options.softcap: is -1.5, but must be finite and 0 or more."
    );
    let error = View::new(&data, &[3, 4, 6]).err().unwrap();
    assert_eq!(
        error.to_string(),
        "the view of shape [6, 4, 3] reaches elements 0 to 71 of a slice of 60."
    );
    assert!(set_isa(Some("mmx"))
        .unwrap_err()
        .to_string()
        .starts_with("name: is \"mmx\", not one of "));
}

#[test]
fn errors() {
    let (q, k, other) = (vec![0f32; 24], vec![0f32; 40], vec![0f32; 30]);
    let mut out = vec![7f32; 24];
    let (q, k) = (
        View::new(&q, &[2, 3, 4]).unwrap(),
        View::new(&k, &[2, 5, 4]).unwrap(),
    );
    let mut run = |q: View<f32>, k2: View<f32>, options: AttentionOptions| {
        attention(
            q,
            k2,
            k,
            ViewMut::new(&mut out, &[2, 3, 4]).unwrap(),
            options,
        )
    };
    refused(
        run(
            q,
            View::new(&other, &[2, 5, 3]).unwrap(),
            Default::default(),
        ),
        Kind::InvalidShape,
        "k",
    );
    refused(
        run(
            q,
            k,
            AttentionOptions {
                softcap: Some(-1.0),
                ..Default::default()
            },
        ),
        Kind::InvalidValue,
        "softcap",
    );
    refused(
        run(
            q,
            k,
            AttentionOptions {
                kv_lengths: Some(&[6]),
                ..Default::default()
            },
        ),
        Kind::InvalidValue,
        "kv_lengths",
    );
    refused(
        run(
            q,
            k,
            AttentionOptions {
                kv_lengths: Some(&[]),
                ..Default::default()
            },
        ),
        Kind::InvalidShape,
        "kv_lengths",
    );
    refused(
        run(
            q,
            k,
            AttentionOptions {
                kv_first: Some(&[6]),
                ..Default::default()
            },
        ),
        Kind::InvalidValue,
        "kv_first",
    );
    refused(
        run(
            q,
            k,
            AttentionOptions {
                kv_first: Some(&[]),
                ..Default::default()
            },
        ),
        Kind::InvalidShape,
        "kv_first",
    );
    refused(
        run(
            q,
            k,
            AttentionOptions {
                threads: -1,
                ..Default::default()
            },
        ),
        Kind::InvalidValue,
        "threads",
    );
    assert!(
        out.iter().all(|&x| x == 7.0),
        "nothing is written when a call is refused"
    );
    let repeated = ViewMut::strided(&mut out, 0, &[4, 3, 2], &[1, 0, 12]).unwrap();
    refused(
        attention(q, k, k, repeated, Default::default()),
        Kind::InvalidStride,
        "out",
    );

    let data = vec![0f32; 10];
    let kind = |r: Result<View<f32>, Error>| r.err().unwrap().kind();
    assert_eq!(kind(View::new(&data, &[3, 4])), Kind::OutOfRange);
    assert_eq!(kind(View::new(&data, &[])), Kind::InvalidRank);
    assert_eq!(kind(View::new(&data, &[1, 1, 1, 1, 1])), Kind::InvalidRank);
    assert_eq!(
        kind(View::strided(&data, 0, &[2, 2], &[1])),
        Kind::InvalidStride
    );
    assert_eq!(
        kind(View::strided(&data, 0, &[2, 2], &[1, -1])),
        Kind::OutOfRange
    );
    assert_eq!(kind(View::strided(&data, 1, &[10], &[1])), Kind::OutOfRange);
    assert_eq!(
        kind(View::strided(&data, usize::MAX, &[1], &[1])),
        Kind::OutOfRange
    );
    assert_eq!(
        kind(View::strided(
            &data,
            0,
            &[usize::MAX / 4; 4],
            &[isize::MIN; 4]
        )),
        Kind::OutOfRange
    );
    assert_eq!(
        kind(View::new(&data, &[usize::MAX, usize::MAX])),
        Kind::Overflow
    );
    assert!(
        View::new(&data[..0], &[3, 0]).is_ok(),
        "an empty view needs no memory"
    );
    refused(set_isa(Some("mmx")), Kind::UnknownIsa, "");
    refused(set_threads(-1), Kind::InvalidValue, "");
}

#[test]
fn library() {
    assert!(version() >= 100 && !isa().is_empty() && threads() >= 1);
}

#[test]
fn many_threads_one_result() {
    fn assert_sync<T: Send + Sync>() {}
    assert_sync::<View<f32>>();
    assert_sync::<ViewMut<f32>>();
    assert_sync::<Error>();
    let q: Vec<f32> = Random(1)
        .normals(4 * 33 * 16)
        .iter()
        .map(|&x| x as f32)
        .collect();
    let run = |threads| {
        let mut out = vec![0f32; q.len()];
        let view = View::new(&q, &[4, 33, 16]).unwrap();
        let options = AttentionOptions {
            causal: Some(Causal::TopLeft),
            threads,
            ..Default::default()
        };
        attention(
            view,
            view,
            view,
            ViewMut::new(&mut out, &[4, 33, 16]).unwrap(),
            options,
        )
        .unwrap();
        out
    };
    let want = run(1);
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let (run, want) = (&run, &want);
            scope.spawn(move || {
                for _ in 0..25 {
                    assert_eq!(&run(thread % 3), want);
                }
            });
        }
    });
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn memory_does_not_grow() {
    let q = vec![0.5f32; 8 * 64 * 64];
    let mut out = q.clone();
    let view = View::new(&q, &[8, 64, 64]).unwrap();
    let bad = View::new(&q, &[2, 3]).unwrap();
    let mut before = 0;
    for round in 0..2 {
        for _ in 0..1000 {
            let options = || AttentionOptions {
                threads: 1,
                ..Default::default()
            };
            attention(
                view,
                view,
                view,
                ViewMut::new(&mut out, &[8, 64, 64]).unwrap(),
                options(),
            )
            .unwrap();
            attention(
                view,
                bad,
                view,
                ViewMut::new(&mut out, &[8, 64, 64]).unwrap(),
                options(),
            )
            .unwrap_err();
        }
        if round == 0 {
            before = resident();
        }
    }
    assert!(
        resident() < before + 2048,
        "grew from {before} KiB to {}",
        resident()
    );
}
