//! Matrix multiply, column softmax and fused attention on CPUs, over slices.
//!
//! Operands are views of slices with shapes and strides; nothing is copied. A view cannot reach outside its slice, and
//! outputs are mutable borrows, so no safe program makes the library read or write where it should not. What the
//! functions compute, exactly, is written in `attend.h`; shapes are its own: rows, columns, heads, batch.
//!
//! ```
//! use attend::{attention, AttentionOptions, View, ViewMut};
//! let (heads, n, d) = (2, 3, 4);
//! let x = vec![0.5f32; heads * n * d];
//! let mut out = vec![0f32; heads * n * d];
//! let q = View::new(&x, &[heads, n, d])?; // as NumPy's array [heads, n, d]
//! attention(q, q, q, ViewMut::new(&mut out, &[heads, n, d])?, AttentionOptions::default())?;
//! assert_eq!(out, x);
//! # Ok::<(), attend::Error>(())
//! ```

mod error;
mod executor;
mod view;

use error::Message;
pub use error::{Error, Kind};
pub use executor::{set_executor, Executor};
pub use view::{Element, Float, View, ViewMut};

use attend_sys as sys;
use std::ffi::{CStr, CString};
use std::ptr::null;

/// Version of the library that is loaded: 10000 * major + 100 * minor + patch.
pub fn version() -> u32 {
    unsafe { sys::attend_version() }
}

/// The instruction set in use: "avx512", "avx2", ...
pub fn isa() -> &'static str {
    unsafe { CStr::from_ptr(sys::attend_isa()) }
        .to_str()
        .unwrap_or("")
}

/// Use the named one, `None` = the best.
pub fn set_isa(name: Option<&str>) -> Result<(), Error> {
    let text = name.map(|n| CString::new(n).unwrap_or_default());
    Error::check(unsafe { sys::attend_set_isa(text.as_ref().map_or(null(), |t| t.as_ptr())) })
        .map_err(|error| {
            let have: Vec<_> = (0..)
                .map(|i| unsafe { sys::attend_isa_name(i) })
                .take_while(|name| !name.is_null())
                .map(|name| unsafe { CStr::from_ptr(name) }.to_string_lossy())
                .collect();
            let name = name.unwrap_or_default();
            error.because(format!("is {name:?}, not one of {}.", have.join(", ")))
        })
}

/// Threads of a call that does not say.
pub fn threads() -> i32 {
    unsafe { sys::attend_threads() }
}

/// Set it for the process; 0 = the default.
pub fn set_threads(threads: i32) -> Result<(), Error> {
    Error::check(unsafe { sys::attend_set_threads(threads) })
        .map_err(|error| error.because(format!("is {threads}, but must be 0 or more.")))
}

fn check_version() -> Result<(), Error> {
    let have = version();
    if have / 100 != sys::ATTEND_VERSION / 100 || have < sys::ATTEND_VERSION {
        return Err(Error::new(
            Kind::Version,
            "",
            format!(
                "the attend library that was loaded is version {have}, this crate was written for {}",
                sys::ATTEND_VERSION
            ),
        ));
    }
    Ok(())
}

type Tensor = sys::attend_tensor;

fn of<T>(view: &Option<View<'_, T>>) -> *const Tensor {
    view.as_ref().map_or(null(), |v| &v.tensor)
}
fn of_mut<T>(view: &Option<ViewMut<'_, T>>) -> *const Tensor {
    view.as_ref().map_or(null(), |v| &v.tensor)
}

/// Options of [`matmul`].
pub struct MatmulOptions<'a, T> {
    pub alpha: f64,
    pub beta: f64,
    pub bias: Option<View<'a, T>>,
    /// At most so many; 0 = [`threads`].
    pub threads: i32,
}

impl<T> Default for MatmulOptions<'_, T> {
    fn default() -> Self {
        MatmulOptions {
            alpha: 1.0,
            beta: 0.0,
            bias: None,
            threads: 0,
        }
    }
}

/// c = alpha a b + beta c + bias: a (M, K, H, B), b (K, N, H, B), c (M, N, H, B).
pub fn matmul<T: Float>(
    a: View<T>,
    b: View<T>,
    c: ViewMut<T>,
    options: MatmulOptions<T>,
) -> Result<(), Error> {
    check_version()?;
    let mut message = Message::new();
    let o = sys::attend_matmul_options {
        threads: options.threads,
        message: message.text(),
        message_size: message.size(),
        bias: of(&options.bias),
        ..sys::attend_matmul_options::init()
    };
    let status = unsafe {
        sys::attend_matmul(
            options.alpha,
            &a.tensor,
            &b.tensor,
            options.beta,
            &c.tensor,
            &o,
        )
    };
    Error::check_call(status, &message)
}

/// Options of [`softmax`].
pub struct SoftmaxOptions<'a, T> {
    /// The logarithm of the softmax.
    pub log: bool,
    pub scale: f64,
    pub mask: Option<View<'a, bool>>,
    pub bias: Option<View<'a, T>>,
    /// Receives the log-sum-exp of each column, (1, N, H, B).
    pub lse: Option<ViewMut<'a, T>>,
    pub threads: i32,
}

impl<T> Default for SoftmaxOptions<'_, T> {
    fn default() -> Self {
        SoftmaxOptions {
            log: false,
            scale: 1.0,
            mask: None,
            bias: None,
            lse: None,
            threads: 0,
        }
    }
}

fn softmax_of<T: Float>(x: &Tensor, y: &Tensor, options: SoftmaxOptions<T>) -> Result<(), Error> {
    check_version()?;
    let mut message = Message::new();
    let o = sys::attend_softmax_options {
        message: message.text(),
        message_size: message.size(),
        flags: if options.log { sys::ATTEND_LOG } else { 0 },
        threads: options.threads,
        scale: options.scale,
        mask: of(&options.mask),
        bias: of(&options.bias),
        lse: of_mut(&options.lse),
        ..sys::attend_softmax_options::init()
    };
    Error::check_call(unsafe { sys::attend_softmax(x, y, &o) }, &message)
}

/// Softmax down each column of x (the last axis of a row-major array) into y of the same shape.
pub fn softmax<T: Float>(
    x: View<T>,
    y: ViewMut<T>,
    options: SoftmaxOptions<T>,
) -> Result<(), Error> {
    softmax_of(&x.tensor, &y.tensor, options)
}

/// The same in place.
pub fn softmax_in_place<T: Float>(x: ViewMut<T>, options: SoftmaxOptions<T>) -> Result<(), Error> {
    softmax_of(&x.tensor, &x.tensor, options)
}

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
pub struct AttentionOptions<'a, T> {
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
    pub mask: Option<View<'a, bool>>,
    pub bias: Option<View<'a, T>>,
    pub alibi_slopes: Option<View<'a, T>>,
    pub sinks: Option<View<'a, T>>,
    /// Receives (1, Nq, H, B).
    pub lse: Option<ViewMut<'a, T>>,
    /// Receives (Nk, Nq, H, B) of `scores_stage`.
    pub scores: Option<ViewMut<'a, T>>,
    pub scores_stage: Stage,
    pub threads: i32,
}

impl<T> Default for AttentionOptions<'_, T> {
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
            mask: None,
            bias: None,
            alibi_slopes: None,
            sinks: None,
            lse: None,
            scores: None,
            scores_stage: Stage::Scaled,
            threads: 0,
        }
    }
}

impl<T> AttentionOptions<'_, T> {
    /// The C structure, which points into self; `out` says how many batches the lists must serve.
    fn raw(&self, out: &Tensor) -> Result<sys::attend_attention_options, Error> {
        let batch = if out.rank == 4 {
            out.shape[3] as usize
        } else {
            1
        };
        let list = |list: Option<&[i64]>, name| match list {
            Some(l) if l.len() < batch => Err(Error::new(
                Kind::InvalidShape,
                name,
                format!("has {} numbers for {batch} batches.", l.len()),
            )),
            Some(l) => Ok(l.as_ptr()),
            None => Ok(null()),
        };
        let mut flags = match self.causal {
            None => 0,
            Some(Causal::TopLeft) => sys::ATTEND_CAUSAL_TOP_LEFT,
            Some(Causal::BottomRight) => sys::ATTEND_CAUSAL_BOTTOM_RIGHT,
        };
        if self.window.is_some() {
            flags |= sys::ATTEND_WINDOW;
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
            window_left,
            window_right,
            mask: of(&self.mask),
            bias: of(&self.bias),
            alibi_slopes: of(&self.alibi_slopes),
            sinks: of(&self.sinks),
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
pub fn attention<T: Float>(
    q: View<T>,
    k: View<T>,
    v: View<T>,
    out: ViewMut<T>,
    options: AttentionOptions<T>,
) -> Result<(), Error> {
    check_version()?;
    let mut message = Message::new();
    let o = sys::attend_attention_options {
        message: message.text(),
        message_size: message.size(),
        ..options.raw(&out.tensor)?
    };
    let status = unsafe { sys::attend_attention(&q.tensor, &k.tensor, &v.tensor, &out.tensor, &o) };
    Error::check_call(status, &message)
}

/// (out_a, lse_a) become the attention over the union of two disjoint key sets.
pub fn merge<T: Float>(
    out_a: ViewMut<T>,
    lse_a: ViewMut<T>,
    out_b: View<T>,
    lse_b: View<T>,
    threads: i32,
) -> Result<(), Error> {
    check_version()?;
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
pub struct Weights<'a, T> {
    pub w_q: View<'a, T>,
    pub w_k: View<'a, T>,
    pub w_v: View<'a, T>,
    pub b_q: Option<View<'a, T>>,
    pub b_k: Option<View<'a, T>>,
    pub b_v: Option<View<'a, T>>,
    pub w_o: Option<View<'a, T>>,
    pub b_o: Option<View<'a, T>>,
}

impl<'a, T> Weights<'a, T> {
    /// Without biases and output projection.
    pub fn new(w_q: View<'a, T>, w_k: View<'a, T>, w_v: View<'a, T>) -> Self {
        Weights {
            w_q,
            w_k,
            w_v,
            b_q: None,
            b_k: None,
            b_v: None,
            w_o: None,
            b_o: None,
        }
    }
}

/// Projects x (D, N, 1, B), attends, and with `w_o` projects back: out (Dv, N, H, B), or (Dout, N, 1, B).
pub fn self_attention<T: Float>(
    x: View<T>,
    weights: Weights<T>,
    out: ViewMut<T>,
    options: AttentionOptions<T>,
) -> Result<(), Error> {
    check_version()?;
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
