//! Attention, alone and of projections, and the union of its results.

use crate::error::{Error, Message};
use crate::lists::{batch_of, per_batch, sequences_of, start_of};
use crate::view::{View, ViewMut};
use crate::{check_version, of, of_mut, Tensor};
use attend_sys as sys;

/// Key j is visible to query i iff j <= i + offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Causal {
    /// offset = the query offset: query 0 sees key 0.
    TopLeft,
    /// offset = Nk - Nq: the last query sees the last key.
    BottomRight,
}

/// Which scores [`AttentionOptions::scores`] receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    #[default]
    Scaled,
    Softcapped,
    Masked,
    Probabilities,
}

/// Options of [`attention`] and [`self_attention`]. All of them compose.
pub struct AttentionOptions<'a> {
    pub causal: Option<Causal>,
    /// Keys to the left and right of each query; -1 = no bound.
    pub window: Option<(i64, i64)>,
    /// `None` = 1 / sqrt(D).
    pub scale: Option<f64>,
    pub softcap: Option<f64>,
    pub query_offset: i64,
    /// One per batch, instead of `query_offset`.
    pub query_offsets: Option<&'a [i64]>,
    /// One per batch.
    pub kv_lengths: Option<&'a [i64]>,
    /// One per batch: keys before it do not exist (padding on the left).
    pub kv_first: Option<&'a [i64]>,
    /// Packed sequences, without padding: the columns of q where they begin, and the number of all, so one number more than
    /// there are sequences. What is one per batch is one per sequence then, and q and out have one batch.
    pub query_starts: Option<&'a [i64]>,
    /// The same of k and v; a side that is not packed has the sequences as its batch. Not of [`self_attention`].
    pub key_starts: Option<&'a [i64]>,
    /// (most pages of a sequence, B), NumPy's `[B, pages]`: k and v are pools (D, page size, Hkv, pages of the pool), and key j
    /// of a batch lies in column j % size of the page that row j / size names. Needs `kv_lengths`. Not of [`self_attention`].
    pub pages: Option<View<'a, i32>>,
    /// Keys in several calls, with the bits of one: each but the first `resumes`, each but the last `pauses`. What is between
    /// them lies in `state`, (2 (Dv + 2), Nq, H, B), of f32, or f64 where all is; a call that pauses writes it and not `out`.
    /// Not of [`self_attention`].
    pub state: Option<ViewMut<'a>>,
    /// More keys follow in another call: those of this one are a multiple of 256.
    pub pauses: bool,
    /// Goes on from `state`, which is only read where it does not pause.
    pub resumes: bool,
    /// How many keys the calls before had, which moves causal masks, windows and ALiBi. Mask, bias and `kv_lengths` are of the
    /// keys of the call.
    pub key_offset: i64,
    pub mask: Option<View<'a, bool>>,
    pub bias: Option<View<'a>>,
    pub alibi_slopes: Option<View<'a>>,
    pub sinks: Option<View<'a>>,
    /// What one step of a key of 8 bits stands for, needed with `i8`: as k, with 1 row (of each key), 1 key (of each
    /// feature) or both, broadcast. Not of [`self_attention`], nor is `v_scale`.
    pub k_scale: Option<View<'a, f32>>,
    /// The same of v.
    pub v_scale: Option<View<'a, f32>>,
    /// Receives (1, Nq, H, B), of f32, or f64 where all is.
    pub lse: Option<ViewMut<'a>>,
    /// Receives (Nk, Nq, H, B) of `scores_stage`, of the same type.
    pub scores: Option<ViewMut<'a>>,
    pub scores_stage: Stage,
    pub threads: i32,
}

impl Default for AttentionOptions<'_> {
    fn default() -> Self {
        AttentionOptions {
            causal: None,
            window: None,
            scale: None,
            softcap: None,
            query_offset: 0,
            query_offsets: None,
            kv_lengths: None,
            kv_first: None,
            query_starts: None,
            key_starts: None,
            pages: None,
            state: None,
            pauses: false,
            resumes: false,
            key_offset: 0,
            mask: None,
            bias: None,
            alibi_slopes: None,
            sinks: None,
            k_scale: None,
            v_scale: None,
            lse: None,
            scores: None,
            scores_stage: Stage::Scaled,
            threads: 0,
        }
    }
}

impl AttentionOptions<'_> {
    /// The C structure, which points into self; `out` says how many batches the lists must serve.
    pub(crate) fn raw(&self, out: &Tensor) -> Result<sys::attend_attention_options, Error> {
        let sequences = sequences_of(
            "options.query_starts",
            self.query_starts,
            "options.key_starts",
            self.key_starts,
        )?;
        let batch = if sequences > 0 {
            sequences
        } else {
            batch_of(out)
        };
        let list = |list, name| per_batch(list, batch, name);
        let mut flags = match self.causal {
            None => 0,
            Some(Causal::TopLeft) => sys::ATTEND_CAUSAL_TOP_LEFT,
            Some(Causal::BottomRight) => sys::ATTEND_CAUSAL_BOTTOM_RIGHT,
        };
        if self.window.is_some() {
            flags |= sys::ATTEND_WINDOW;
        }
        if self.pauses {
            flags |= sys::ATTEND_PARTIAL;
        }
        if self.resumes {
            flags |= sys::ATTEND_CONTINUE;
        }
        let (window_left, window_right) = self.window.unwrap_or((0, 0));
        Ok(sys::attend_attention_options {
            flags,
            threads: self.threads,
            scale: self.scale.unwrap_or(0.0),
            softcap: self.softcap.unwrap_or(0.0),
            query_offset: self.query_offset,
            query_offsets: list(self.query_offsets, "options.query_offsets")?,
            kv_lengths: list(self.kv_lengths, "options.kv_lengths")?,
            kv_first: list(self.kv_first, "options.kv_first")?,
            sequences: sequences as i64,
            query_starts: start_of(self.query_starts),
            key_starts: start_of(self.key_starts),
            pages: of(&self.pages),
            key_offset: self.key_offset,
            state: of_mut(&self.state),
            window_left,
            window_right,
            mask: of(&self.mask),
            bias: of(&self.bias),
            alibi_slopes: of(&self.alibi_slopes),
            sinks: of(&self.sinks),
            k_scale: of(&self.k_scale),
            v_scale: of(&self.v_scale),
            lse: of_mut(&self.lse),
            scores: of_mut(&self.scores),
            scores_stage: match self.scores_stage {
                Stage::Scaled => sys::ATTEND_SCORES_SCALED,
                Stage::Softcapped => sys::ATTEND_SCORES_SOFTCAPPED,
                Stage::Masked => sys::ATTEND_SCORES_MASKED,
                Stage::Probabilities => sys::ATTEND_SCORES_PROBABILITIES,
            },
            ..sys::attend_attention_options::init()
        })
    }
}

/// out = v softmax(scale k^T q): q (D, Nq, H, B), k (D, Nk, Hkv, B), v (Dv, Nk, Hkv, B), out (Dv, Nq, H, B); in row-major
/// words arrays `[batch, head, N, D]` by [`View::new`].
///
/// Each may be of `f32`, `bf16` or `f16`, whatever the others are, k and v also of `i8` or [`F8E4M3`](crate::F8E4M3); it is
/// computed in f32 and rounded once. Or all are of `f64`.
pub fn attention<'q, 'k, 'v, 'o>(
    q: impl Into<View<'q>>,
    k: impl Into<View<'k>>,
    v: impl Into<View<'v>>,
    out: impl Into<ViewMut<'o>>,
    options: AttentionOptions,
) -> Result<(), Error> {
    check_version()?;
    let (q, k, v, out) = (q.into(), k.into(), v.into(), out.into());
    let mut message = Message::new();
    let o = sys::attend_attention_options {
        message: message.text(),
        message_size: message.size(),
        ..options.raw(&out.tensor)?
    };
    let status = unsafe { sys::attend_attention(&q.tensor, &k.tensor, &v.tensor, &out.tensor, &o) };
    Error::check_call(status, &message)
}

/// (out_a, lse_a) become the attention over the union of two disjoint key sets. `out_a` and `out_b` may be of narrow types
/// each, as attention's `out`.
pub fn merge<'a, 'b, 'c, 'd>(
    out_a: impl Into<ViewMut<'a>>,
    lse_a: impl Into<ViewMut<'b>>,
    out_b: impl Into<View<'c>>,
    lse_b: impl Into<View<'d>>,
    threads: i32,
) -> Result<(), Error> {
    check_version()?;
    let (out_a, lse_a) = (out_a.into(), lse_a.into());
    let (out_b, lse_b) = (out_b.into(), lse_b.into());
    let mut message = Message::new();
    let o = sys::attend_merge_options {
        threads,
        message: message.text(),
        message_size: message.size(),
        ..sys::attend_merge_options::init()
    };
    let status = unsafe {
        sys::attend_attention_merge(
            &out_a.tensor,
            &lse_a.tensor,
            &out_b.tensor,
            &lse_b.tensor,
            &o,
        )
    };
    Error::check_call(status, &message)
}

/// Weights of [`self_attention`]: w_q (Dh, D, H), w_k (Dh, D, Hkv), w_v (Dv, D, Hkv), biases (Dh, 1, H) and so on,
/// w_o (Dout, Dv, H), b_o (Dout).
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    pub w_q: View<'a>,
    pub w_k: View<'a>,
    pub w_v: View<'a>,
    pub b_q: Option<View<'a>>,
    pub b_k: Option<View<'a>>,
    pub b_v: Option<View<'a>>,
    pub w_o: Option<View<'a>>,
    pub b_o: Option<View<'a>>,
}

impl<'a> Weights<'a> {
    /// Without biases and output projection.
    pub fn new(
        w_q: impl Into<View<'a>>,
        w_k: impl Into<View<'a>>,
        w_v: impl Into<View<'a>>,
    ) -> Self {
        Weights {
            w_q: w_q.into(),
            w_k: w_k.into(),
            w_v: w_v.into(),
            b_q: None,
            b_k: None,
            b_v: None,
            w_o: None,
            b_o: None,
        }
    }
}

/// Projects x (D, N, 1, B), attends, and with `w_o` projects back: out (Dv, N, H, B), or (Dout, N, 1, B). `query_starts` packs x
/// with its keys. Types as in
/// [`attention`], those of 8 bits left out.
pub fn self_attention<'x, 'o>(
    x: impl Into<View<'x>>,
    weights: Weights,
    out: impl Into<ViewMut<'o>>,
    options: AttentionOptions,
) -> Result<(), Error> {
    check_version()?;
    let (x, out) = (x.into(), out.into());
    let mut attention = options.raw(&out.tensor)?;
    let mut message = Message::new();
    let o = sys::attend_self_attention_options {
        message: message.text(),
        message_size: message.size(),
        threads: std::mem::take(&mut attention.threads),
        ..sys::attend_self_attention_options::init()
    };
    let w = sys::attend_self_attention_weights {
        w_q: &weights.w_q.tensor,
        w_k: &weights.w_k.tensor,
        w_v: &weights.w_v.tensor,
        b_q: of(&weights.b_q),
        b_k: of(&weights.b_k),
        b_v: of(&weights.b_v),
        w_o: of(&weights.w_o),
        b_o: of(&weights.b_o),
        ..sys::attend_self_attention_weights::init()
    };
    let status = unsafe { sys::attend_self_attention(&x.tensor, &w, &out.tensor, &o, &attention) };
    Error::check_call(status, &message)
}
