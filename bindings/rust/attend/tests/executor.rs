//! Calls on the program's own threads. A program of its own, since an executor is set for the process.

mod common;

use attend::*;
use common::Random;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

static RUNS: AtomicI32 = AtomicI32::new(0);

struct Rayon;
impl Executor for Rayon {
    fn workers(&self) -> i32 {
        4
    }
    fn run(&self, tasks: i32, task: &(dyn Fn(i32) + Sync)) {
        RUNS.fetch_add(1, SeqCst);
        assert!((2..=4).contains(&tasks));
        rayon::scope(|scope| {
            for i in 0..tasks {
                scope.spawn(move |_| task(i));
            }
        });
    }
}

/// Calls tasks again and again, on many threads at once, and those that do not exist.
struct Insistent;
impl Executor for Insistent {
    fn run(&self, tasks: i32, task: &(dyn Fn(i32) + Sync)) {
        RUNS.fetch_add(1, SeqCst);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    (-2..tasks + 2)
                        .chain([i32::MIN, 64, i32::MAX])
                        .for_each(task)
                });
            }
        });
    }
}

struct Panicking;
impl Executor for Panicking {
    fn run(&self, tasks: i32, task: &(dyn Fn(i32) + Sync)) {
        RUNS.fetch_add(1, SeqCst);
        task(tasks - 1);
        panic!("expected by this test");
    }
}

struct Idle;
impl Executor for Idle {
    fn run(&self, _: i32, _: &(dyn Fn(i32) + Sync)) {
        RUNS.fetch_add(1, SeqCst);
    }
}

struct Negative;
impl Executor for Negative {
    fn workers(&self) -> i32 {
        -1
    }
    fn run(&self, _: i32, _: &(dyn Fn(i32) + Sync)) {}
}

fn bits(q: &[f32], threads: i32) -> Vec<u32> {
    let mut out = vec![0f32; q.len()];
    let view = View::new(q, &[4, 300, 64]).unwrap();
    let options = AttentionOptions {
        causal: Some(Causal::TopLeft),
        threads,
        ..Default::default()
    };
    let out_view = ViewMut::new(&mut out, &[4, 300, 64]).unwrap();
    attention(view, view, view, out_view, options).unwrap();
    out.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn equal_bits_on_any_executor() {
    let normals = Random(3).normals(4 * 300 * 64);
    let q: Vec<f32> = normals.iter().map(|&x| x as f32).collect();
    let want = bits(&q, 1);
    let all: [&'static dyn Executor; 4] = [&Rayon, &Insistent, &Panicking, &Idle];
    for executor in all {
        set_executor(Some(executor)).unwrap();
        RUNS.store(0, SeqCst);
        assert!(bits(&q, 1) == want);
        assert_eq!(RUNS.load(SeqCst), 0, "one thread is the calling one");
        for threads in [2, 3, 500] {
            assert!(bits(&q, threads) == want);
        }
        assert!(RUNS.load(SeqCst) > 0);
    }

    // From within workers, more calls than there are.
    set_executor(Some(&Rayon)).unwrap();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .build()
        .unwrap();
    pool.scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|_| assert!(bits(&q, 3) == want));
        }
    });
    let alone = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    alone.install(|| assert!(bits(&q, 0) == want));

    // A wrong one changes nothing.
    let error = set_executor(Some(&Negative)).unwrap_err();
    assert_eq!(
        (error.kind(), error.argument()),
        (Kind::InvalidValue, "executor")
    );
    RUNS.store(0, SeqCst);
    assert!(bits(&q, 2) == want);
    assert!(RUNS.load(SeqCst) > 0);

    set_executor(None).unwrap();
    RUNS.store(0, SeqCst);
    assert!(bits(&q, 2) == want);
    assert_eq!(RUNS.load(SeqCst), 0);
}
