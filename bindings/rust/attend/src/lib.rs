//! Matrix multiply, column softmax and fused attention on CPUs, over slices.
//!
//! Operands are views of slices with shapes and strides; nothing is copied. A view cannot reach outside its slice, and
//! outputs are mutable borrows, so no safe program makes the library read or write where it should not. What the
//! functions compute, exactly, is written in `attend.h`; shapes are its own: rows, columns, heads, batch. Each operand has
//! its own element type, so functions and options take views of any: those of a type go as they are, or by `into()`.
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

mod attention;
mod convert;
mod element;
mod error;
mod executor;
mod gradients;
mod lists;
mod serving;
mod view;

pub use attention::{attention, merge, self_attention, AttentionOptions, Causal, Stage, Weights};
pub use convert::{convert, ConvertOptions, Scale};
pub use element::{Any, Element, F8E4M3};
use error::Message;
pub use error::{Error, Kind};
pub use executor::{set_executor, Executor};
pub use gradients::{attention_backward, AttentionBackwardOptions};
pub use serving::{kv_append, rotary, rotary_in_place, KvAppendOptions, RotaryOptions};
pub use view::{View, ViewMut};

use attend_sys as sys;
use std::ffi::{CStr, CString};
use std::ptr::null;

/// Version of the library that is loaded: 10000 * major + 100 * minor + patch.
pub fn version() -> u32 {
    unsafe { sys::attend_version() }
}

/// The instruction set in use: "avx512bf16", "avx2", ...
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

/// Options of [`matmul`]. Scales and zero points are of operands of `i8` or `u8`, which then count as a_scale (a - a_zero) and
/// b_scale (b - b_zero): (M, 1, H, B) of a, (1, N, H, B) of b, broadcast.
pub struct MatmulOptions<'a> {
    pub alpha: f64,
    pub beta: f64,
    pub bias: Option<View<'a>>,
    pub a_scale: Option<View<'a, f32>>,
    pub b_scale: Option<View<'a, f32>>,
    pub a_zero: Option<View<'a, i32>>,
    pub b_zero: Option<View<'a, i32>>,
    /// Allows the CPU's dot products of `bf16` where both factors are `bf16`: up to twice the speed where [`isa`] is avx512bf16,
    /// within attend.h's error bound, not the bits of other CPUs; elsewhere without effect.
    pub native_dot: bool,
    /// At most so many; 0 = [`threads`].
    pub threads: i32,
}

impl Default for MatmulOptions<'_> {
    fn default() -> Self {
        MatmulOptions {
            alpha: 1.0,
            beta: 0.0,
            bias: None,
            a_scale: None,
            b_scale: None,
            a_zero: None,
            b_zero: None,
            native_dot: false,
            threads: 0,
        }
    }
}

/// c = alpha a b + beta c + bias: a (M, K, H, B), b (K, N, H, B), c (M, N, H, B). Each, the bias too, may be of `f32`, `bf16`
/// or `f16`, whatever the others are, computed in f32 and rounded once; or all are of `f64`. With a and b of `i8` or `u8`, c is
/// of `i32`, exact, or of a floating-point type; one of `i8` may stand beside one of floats. See [`MatmulOptions`].
pub fn matmul<'a, 'b, 'c>(
    a: impl Into<View<'a>>,
    b: impl Into<View<'b>>,
    c: impl Into<ViewMut<'c>>,
    options: MatmulOptions,
) -> Result<(), Error> {
    check_version()?;
    let (a, b, c) = (a.into(), b.into(), c.into());
    let mut message = Message::new();
    let flags = if options.native_dot {
        sys::ATTEND_NATIVE_DOT
    } else {
        0
    };
    let o = sys::attend_matmul_options {
        flags,
        threads: options.threads,
        message: message.text(),
        message_size: message.size(),
        bias: of(&options.bias),
        a_scale: of(&options.a_scale),
        b_scale: of(&options.b_scale),
        a_zero: of(&options.a_zero),
        b_zero: of(&options.b_zero),
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
pub struct SoftmaxOptions<'a> {
    /// The logarithm of the softmax.
    pub log: bool,
    pub scale: f64,
    pub mask: Option<View<'a, bool>>,
    pub bias: Option<View<'a>>,
    /// Receives the log-sum-exp of each column, (1, N, H, B), of f32, or f64 where all is.
    pub lse: Option<ViewMut<'a>>,
    pub threads: i32,
}

impl Default for SoftmaxOptions<'_> {
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

fn softmax_of(x: &Tensor, y: &Tensor, options: SoftmaxOptions) -> Result<(), Error> {
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

/// Softmax down each column of x (the last axis of a row-major array) into y of the same shape. y has x's type, or is of
/// f32 where x is of `bf16` or `f16`.
pub fn softmax<'x, 'y>(
    x: impl Into<View<'x>>,
    y: impl Into<ViewMut<'y>>,
    options: SoftmaxOptions,
) -> Result<(), Error> {
    softmax_of(&x.into().tensor, &y.into().tensor, options)
}

/// The same in place.
pub fn softmax_in_place<'x>(
    x: impl Into<ViewMut<'x>>,
    options: SoftmaxOptions,
) -> Result<(), Error> {
    let x = x.into();
    softmax_of(&x.tensor, &x.tensor, options)
}

/// Options of [`softmax_backward`]: of the softmax its `log` and `scale`.
pub struct SoftmaxBackwardOptions<'a> {
    pub log: bool,
    /// The gradient is added to what d_x holds.
    pub accumulate: bool,
    pub scale: f64,
    /// Gradient of the log-sum-exp, (1, N, H, B), where that was used.
    pub d_lse: Option<View<'a>>,
    pub threads: i32,
}

impl Default for SoftmaxBackwardOptions<'_> {
    fn default() -> Self {
        SoftmaxBackwardOptions {
            log: false,
            accumulate: false,
            scale: 1.0,
            d_lse: None,
            threads: 0,
        }
    }
}

fn softmax_backward_of(
    y: &Tensor,
    d_y: &Tensor,
    d_x: &Tensor,
    options: SoftmaxBackwardOptions,
) -> Result<(), Error> {
    check_version()?;
    let mut message = Message::new();
    let log = if options.log { sys::ATTEND_LOG } else { 0 };
    let accumulate = if options.accumulate {
        sys::ATTEND_ACCUMULATE
    } else {
        0
    };
    let o = sys::attend_softmax_backward_options {
        message: message.text(),
        message_size: message.size(),
        flags: log | accumulate,
        threads: options.threads,
        scale: options.scale,
        d_lse: of(&options.d_lse),
        ..sys::attend_softmax_backward_options::init()
    };
    Error::check_call(
        unsafe { sys::attend_softmax_backward(y, d_y, d_x, &o) },
        &message,
    )
}

/// The gradient of [`softmax`]: d_x, of x, from y, its result, and d_y, the gradient of that; all of one shape. Entries that
/// were masked get 0, whatever d_y holds there.
pub fn softmax_backward<'y, 'd, 'x>(
    y: impl Into<View<'y>>,
    d_y: impl Into<View<'d>>,
    d_x: impl Into<ViewMut<'x>>,
    options: SoftmaxBackwardOptions,
) -> Result<(), Error> {
    softmax_backward_of(
        &y.into().tensor,
        &d_y.into().tensor,
        &d_x.into().tensor,
        options,
    )
}

/// The same in place of d_y.
pub fn softmax_backward_in_place<'y, 'd>(
    y: impl Into<View<'y>>,
    d_y: impl Into<ViewMut<'d>>,
    options: SoftmaxBackwardOptions,
) -> Result<(), Error> {
    let d_y = d_y.into();
    softmax_backward_of(&y.into().tensor, &d_y.tensor, &d_y.tensor, options)
}
