//! The gradients of attention.

use crate::error::{Error, Message};
use crate::view::{View, ViewMut};
use crate::{check_version, of, of_mut, AttentionOptions};
use attend_sys as sys;

/// Outputs and options of [`attention_backward`].
#[derive(Default)]
pub struct AttentionBackwardOptions<'a> {
    /// Receive the gradients, of the shapes of q, k and v; `None` = not wanted. Of `f32`, `bf16` or `f16` (all `f64`); of `f32`
    /// where the batch of q, k or v is 1 and that of out is not, since they sum over it.
    pub d_q: Option<ViewMut<'a>>,
    pub d_k: Option<ViewMut<'a>>,
    pub d_v: Option<ViewMut<'a>>,
    /// The same of the bias and the sinks of attention's options, of their shapes, of `f32` (`f64`).
    pub d_bias: Option<ViewMut<'a>>,
    pub d_sinks: Option<ViewMut<'a>>,
    /// Add to what is there.
    pub accumulate: bool,
    /// (1, Nq, H, B): what the call of attention wrote; `None` = it is computed again, unless attention's options have it.
    pub lse: Option<View<'a>>,
    /// The gradient of lse, where something was computed from it.
    pub d_lse: Option<View<'a>>,
}

/// Gradients of a number with respect to q, k and v, of which `d_out` (Dv, Nq, H, B) is that with respect to `out`. q, k, v and
/// `attention_options` are those of the call of [`attention`](crate::attention), `out` is what it wrote; its threads hold here.
///
/// Each may be of `f32`, `bf16` or `f16`, whatever the others are, computed in f32 and rounded once; or all are of `f64`.
///
/// ```
/// use attend::*;
/// let (x, d_out) = ([0.5f32; 6], [1f32; 6]);
/// let (mut out, mut d_v) = ([0f32; 6], [0f32; 6]);
/// let q = View::new(&x, &[3, 2])?;
/// attention(q, q, q, ViewMut::new(&mut out, &[3, 2])?, AttentionOptions::default())?;
/// let gradients = AttentionBackwardOptions {
///     d_v: Some(ViewMut::new(&mut d_v, &[3, 2])?.into()),
///     ..Default::default()
/// };
/// let (out, d_out) = (View::new(&out, &[3, 2])?, View::new(&d_out, &[3, 2])?);
/// attention_backward(q, q, q, out, d_out, gradients, AttentionOptions::default())?;
/// assert!(d_v.iter().all(|x| (x - 1.0).abs() < 1e-6)); // each value has a third of three outputs
/// # Ok::<(), Error>(())
/// ```
pub fn attention_backward<'q, 'k, 'v, 'o, 'd>(
    q: impl Into<View<'q>>,
    k: impl Into<View<'k>>,
    v: impl Into<View<'v>>,
    out: impl Into<View<'o>>,
    d_out: impl Into<View<'d>>,
    options: AttentionBackwardOptions,
    attention_options: AttentionOptions,
) -> Result<(), Error> {
    check_version()?;
    let (q, k, v) = (q.into(), k.into(), v.into());
    let (out, d_out) = (out.into(), d_out.into());
    let mut attention = attention_options.raw(&out.tensor)?;
    if options.lse.is_some() {
        attention.lse = of(&options.lse);
    }
    let mut message = Message::new();
    let o = sys::attend_attention_backward_options {
        flags: if options.accumulate {
            sys::ATTEND_ACCUMULATE
        } else {
            0
        },
        threads: std::mem::take(&mut attention.threads),
        message: message.text(),
        message_size: message.size(),
        d_lse: of(&options.d_lse),
        d_bias: of_mut(&options.d_bias),
        d_sinks: of_mut(&options.d_sinks),
        ..sys::attend_attention_backward_options::init()
    };
    let (d_q, d_k) = (of_mut(&options.d_q), of_mut(&options.d_k));
    let d_v = of_mut(&options.d_v);
    let status = unsafe {
        sys::attend_attention_backward(
            &q.tensor,
            &k.tensor,
            &v.tensor,
            &out.tensor,
            &d_out.tensor,
            d_q,
            d_k,
            d_v,
            &o,
            &attention,
        )
    };
    Error::check_call(status, &message)
}
