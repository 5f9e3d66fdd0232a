//! Packed sequences, paged caches and keys in pieces: each sequence has the bits that it has alone.

mod common;

use attend::*;
use common::draw;

const D: usize = 8;
const HEADS: usize = 4;
const KV: usize = 2;
const SIZE: usize = 4; // of a page
const QUERIES: [usize; 3] = [3, 0, 5];
const KEYS: [usize; 3] = [5, 0, 12];
const QUERY_STARTS: [i64; 4] = [0, 3, 3, 8];
const KEY_STARTS: [i64; 4] = [0, 5, 5, 17];
const LENGTHS: [i64; 3] = [5, 0, 12];

/// Items `first` to `first + count` of an array [total, heads, D]: the tensor (D, count, heads).
fn part(data: &[f32], heads: usize, first: usize, count: usize) -> View<'_, f32> {
    let stride = [1, (heads * D) as isize, D as isize];
    View::strided(data, first * heads * D, &[D, count, heads], &stride).unwrap()
}
fn part_mut(data: &mut [f32], first: usize, count: usize) -> ViewMut<'_, f32> {
    let stride = [1, (HEADS * D) as isize, D as isize];
    ViewMut::strided(data, first * HEADS * D, &[D, count, HEADS], &stride).unwrap()
}

struct Packed {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Packed {
    fn new() -> Self {
        Packed {
            q: draw(8 * HEADS * D),
            k: draw(17 * KV * D),
            v: draw(18 * KV * D),
        }
    }
    /// [total, heads, D], from a call for each sequence.
    fn alone(&self) -> Vec<f32> {
        let mut out = vec![0f32; self.q.len()];
        for b in 0..3 {
            let (first, key) = (QUERY_STARTS[b] as usize, KEY_STARTS[b] as usize);
            attention(
                part(&self.q, HEADS, first, QUERIES[b]),
                part(&self.k, KV, key, KEYS[b]),
                part(&self.v, KV, key, KEYS[b]),
                part_mut(&mut out, first, QUERIES[b]),
                bottom_right(),
            )
            .unwrap();
        }
        out
    }
    fn run(&self, k: View<f32>, v: View<f32>, options: AttentionOptions) -> Vec<f32> {
        let mut out = vec![0f32; self.q.len()];
        let (q, to) = (part(&self.q, HEADS, 0, 8), part_mut(&mut out, 0, 8));
        attention(q, k, v, to, options).unwrap();
        out
    }
}

fn bottom_right<'a>() -> AttentionOptions<'a> {
    AttentionOptions {
        causal: Some(Causal::BottomRight),
        ..Default::default()
    }
}

#[test]
fn packed_queries_and_keys() {
    let p = Packed::new();
    let options = || AttentionOptions {
        query_starts: Some(&QUERY_STARTS),
        key_starts: Some(&KEY_STARTS),
        ..bottom_right()
    };
    let (k, v) = (part(&p.k, KV, 0, 17), part(&p.v, KV, 0, 17));
    let (out, lengths) = (p.run(k, v, options()), Some(&LENGTHS[..]));
    assert_eq!(out, p.alone());
    let with_lengths = AttentionOptions {
        kv_lengths: lengths,
        ..options()
    };
    assert_eq!(p.run(k, v, with_lengths), out);
}

#[test]
fn packed_keys_alone() {
    let (p, q) = (Packed::new(), draw(3 * HEADS * D));
    let mut out = vec![0f32; 3 * HEADS * D];
    let options = AttentionOptions {
        key_starts: Some(&KEY_STARTS),
        ..Default::default()
    };
    let shape = [3, HEADS, 1, D];
    attention(
        View::new(&q, &shape).unwrap(),
        part(&p.k, KV, 0, 17),
        part(&p.v, KV, 0, 17),
        ViewMut::new(&mut out, &shape).unwrap(),
        options,
    )
    .unwrap();
    for b in 0..3 {
        let (at, key) = (b * HEADS * D, KEY_STARTS[b] as usize);
        let mut alone = vec![0f32; HEADS * D];
        attention(
            View::new(&q[at..], &shape[1..]).unwrap(),
            part(&p.k, KV, key, KEYS[b]),
            part(&p.v, KV, key, KEYS[b]),
            ViewMut::new(&mut alone, &shape[1..]).unwrap(),
            Default::default(),
        )
        .unwrap();
        assert_eq!(out[at..at + HEADS * D], alone);
    }
}

#[test]
fn appended_to_pages() {
    let p = Packed::new();
    // What no key needs is no page.
    let table = [4, 1, -1, -7, -1, 9, 0, 3, 2];
    let pages = View::new(&table, &[3, 3]).unwrap();
    let pool = [5, KV, SIZE, D];
    let (mut k_pool, mut v_pool) = (
        vec![f32::NAN; 5 * KV * SIZE * D],
        vec![0f32; 5 * KV * SIZE * D],
    );
    kv_append(
        part(&p.k, KV, 0, 17),
        Some(part(&p.v, KV, 0, 17).into()),
        ViewMut::new(&mut k_pool, &pool).unwrap(),
        Some(ViewMut::new(&mut v_pool, &pool).unwrap().into()),
        KvAppendOptions {
            starts: Some(&KEY_STARTS),
            pages: Some(pages),
            ..Default::default()
        },
    )
    .unwrap();
    let (k, v) = (
        View::new(&k_pool, &pool).unwrap(),
        View::new(&v_pool, &pool).unwrap(),
    );
    let options = AttentionOptions {
        query_starts: Some(&QUERY_STARTS),
        pages: Some(pages),
        kv_lengths: Some(&LENGTHS),
        ..bottom_right()
    };
    assert_eq!(p.run(k, v, options), p.alone());
}

#[test]
fn keys_in_pieces() {
    const N: usize = 600;
    let (p, k, v) = (Packed::new(), draw(N * KV * D), draw((N + 1) * KV * D));
    let options = || AttentionOptions {
        causal: Some(Causal::TopLeft),
        query_offset: 590,
        window: Some((400, 0)),
        ..Default::default()
    };
    let whole = p.run(part(&k, KV, 0, N), part(&v, KV, 0, N), options());
    let mut state = vec![f32::NAN; HEADS * 8 * 2 * (D + 2)];
    for begin in [0, 256, 512] {
        let (end, last) = (N.min(begin + 256), begin == 512);
        let piece = AttentionOptions {
            state: Some(
                ViewMut::new(&mut state, &[HEADS, 8, 2 * (D + 2)])
                    .unwrap()
                    .into(),
            ),
            pauses: !last,
            resumes: begin > 0,
            key_offset: begin as i64,
            ..options()
        };
        let (k, v) = (
            part(&k, KV, begin, end - begin),
            part(&v, KV, begin, end - begin),
        );
        let out = p.run(k, v, piece);
        assert_eq!(
            out,
            if last {
                whole.clone()
            } else {
                vec![0f32; out.len()]
            }
        );
    }
}

#[test]
fn packed_self_attention() {
    let (x, w) = (draw(8 * D), draw(3 * D * D));
    let weight = |i: usize| View::weight(&w[i * D * D..], 1, D, D).unwrap();
    let run = |first: usize, count: usize, query_starts| {
        let mut out = vec![0f32; count * D];
        self_attention(
            View::new(&x[first * D..], &[count, D]).unwrap(),
            Weights::new(weight(0), weight(1), weight(2)),
            ViewMut::new(&mut out, &[count, D]).unwrap(),
            AttentionOptions {
                query_starts,
                ..bottom_right()
            },
        )
        .unwrap();
        out
    };
    let packed = run(0, 8, Some(&QUERY_STARTS[..]));
    for b in 0..3 {
        let first = QUERY_STARTS[b] as usize;
        assert_eq!(
            packed[first * D..(first + QUERIES[b]) * D],
            run(first, QUERIES[b], None)
        );
    }
}

#[test]
fn messages() {
    let (x, mut out) = (vec![1f32; 6 * D], vec![0f32; 6 * D]);
    let (t, table) = (View::new(&x, &[6, D]).unwrap(), [3]);
    let mut say = |options: AttentionOptions| {
        let out = ViewMut::new(&mut out, &[6, D]).unwrap();
        attention(t, t, t, out, options).unwrap_err().to_string()
    };
    let packed = |query_starts, key_starts, kv_lengths| AttentionOptions {
        query_starts,
        key_starts,
        kv_lengths,
        ..Default::default()
    };
    for (options, said) in [
        (
            packed(Some(&[0, 5]), None, None),
            "options.query_starts: ends with 5, but must end with 6, the number of packed items.",
        ),
        (
            packed(Some(&[0]), None, None),
            "options.query_starts: has 1 numbers for sequences, of which there is one at least: its beginning and its end.",
        ),
        (
            packed(Some(&[0, 2, 6]), Some(&[0, 6]), None),
            "options.key_starts: has 2 numbers for 2 sequences and their end.",
        ),
        (
            packed(Some(&[0, 2, 6]), Some(&[0, 4, 6]), Some(&[4])),
            "options.kv_lengths: has 1 numbers for 2 batches.",
        ),
        (
            packed(None, Some(&[0, 4, 3]), None),
            "options.key_starts: falls from 4 to 3 at sequence 1, but must never decrease.",
        ),
        (
            AttentionOptions {
                pages: Some(View::new(&table, &[1, 1]).unwrap()),
                ..packed(None, None, Some(&[6]))
            },
            "options.pages: has 3 for page 0 of batch 0, but the pool has 1 pages, counted from 0.",
        ),
        (
            AttentionOptions {
                key_offset: 255,
                ..Default::default()
            },
            "options.key_offset: is 255, but must be a multiple of 256, 0 or more.",
        ),
        (
            AttentionOptions {
                resumes: true,
                ..Default::default()
            },
            "options.state: is null, but required with pauses and resumes.",
        ),
        (
            AttentionOptions {
                key_offset: 256,
                ..bottom_right()
            },
            "options.causal: is BottomRight, but where the keys end is not known to one of several calls.",
        ),
    ] {
        assert_eq!(say(options), said);
    }
}
