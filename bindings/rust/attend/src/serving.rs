//! Rotary embedding, and new keys and values into caches.

use crate::convert::Scale;
use crate::error::{Error, Message};
use crate::lists::{batch_of, count_sequences, items_of, per_batch, per_item, start_of};
use crate::view::{View, ViewMut};
use crate::{check_version, of, of_mut, Tensor};
use attend_sys as sys;
use std::ptr::null;

fn batch(sequences: usize, of: &Tensor) -> usize {
    if sequences > 0 {
        sequences
    } else {
        batch_of(of)
    }
}

/// Options of [`rotary`].
#[derive(Clone, Copy, Default)]
pub struct RotaryOptions<'a> {
    /// So many features, an even number, are rotated, the others copied; 0 = all.
    pub rotary_dims: i64,
    /// Pairs are features 2i and 2i + 1, not i and i + rotary_dims / 2.
    pub interleaved: bool,
    /// By the opposite angle.
    pub inverse: bool,
    /// One per item, columns before batches; `None` = offset + number in its sequence.
    pub positions: Option<&'a [i64]>,
    /// One per batch: position of its first item; `None` = 0. Not beside positions.
    pub offsets: Option<&'a [i64]>,
    /// Packed sequences: the columns of x where they begin, and the number of all.
    pub starts: Option<&'a [i64]>,
    /// At most so many; 0 = [`threads`](crate::threads).
    pub threads: i32,
}

fn rotary_of(
    x: &Tensor,
    cos: &Tensor,
    sin: &Tensor,
    y: &Tensor,
    options: RotaryOptions,
) -> Result<(), Error> {
    check_version()?;
    let mut message = Message::new();
    let sequences = count_sequences(options.starts, "options.starts")?;
    let mut flags = 0;
    if options.interleaved {
        flags |= sys::ATTEND_ROTARY_INTERLEAVED;
    }
    if options.inverse {
        flags |= sys::ATTEND_ROTARY_INVERSE;
    }
    let o = sys::attend_rotary_options {
        flags,
        threads: options.threads,
        message: message.text(),
        message_size: message.size(),
        rotary_dims: options.rotary_dims,
        positions: per_item(options.positions, items_of(x), "options.positions")?,
        offsets: per_batch(options.offsets, batch(sequences, x), "options.offsets")?,
        sequences: sequences as i64,
        starts: start_of(options.starts),
        ..sys::attend_rotary_options::init()
    };
    let status = unsafe { sys::attend_rotary(x, cos, sin, y, &o) };
    Error::check_call(status, &message)
}

/// Each pair of features of x (D, N, H, B) turned by the angle of its item's position, into y of the same shape. cos and sin
/// are (rotary_dims / 2, positions, 1 or H, 1 or B), `View::new(&cos, &[positions, rotary_dims / 2])`. Each may be of `f32`,
/// `bf16` or `f16`, whatever the others are, computed in f32 and rounded once; or all are of `f64`.
///
/// ```
/// use attend::*;
/// let (x, cos, sin) = ([1.0f32, 2.0, 3.0, 4.0], [1.0f32, 0.0], [0.0f32, 1.0]); // two positions, a quarter turn apart
/// let mut y = [0f32; 4];
/// let tables = (View::new(&cos, &[2, 1])?, View::new(&sin, &[2, 1])?);
/// rotary(View::new(&x, &[2, 2])?, tables.0, tables.1, ViewMut::new(&mut y, &[2, 2])?, Default::default())?;
/// assert_eq!(y, [1.0, 2.0, -4.0, 3.0]);
/// # Ok::<(), Error>(())
/// ```
pub fn rotary<'x, 'c, 's, 'y>(
    x: impl Into<View<'x>>,
    cos: impl Into<View<'c>>,
    sin: impl Into<View<'s>>,
    y: impl Into<ViewMut<'y>>,
    options: RotaryOptions,
) -> Result<(), Error> {
    let (x, y) = (x.into(), y.into());
    let (cos, sin) = (cos.into(), sin.into());
    rotary_of(&x.tensor, &cos.tensor, &sin.tensor, &y.tensor, options)
}

/// The same in place.
pub fn rotary_in_place<'x, 'c, 's>(
    x: impl Into<ViewMut<'x>>,
    cos: impl Into<View<'c>>,
    sin: impl Into<View<'s>>,
    options: RotaryOptions,
) -> Result<(), Error> {
    let (x, cos, sin) = (x.into(), cos.into(), sin.into());
    rotary_of(&x.tensor, &cos.tensor, &sin.tensor, &x.tensor, options)
}

/// Options of [`kv_append`].
#[derive(Default)]
pub struct KvAppendOptions<'a> {
    /// Packed sequences: the columns of k where they begin, and the number of all.
    pub starts: Option<&'a [i64]>,
    /// One per batch: the column of its cache where its first new item goes, the length before; `None` = 0.
    pub offsets: Option<&'a [i64]>,
    /// One per item, instead of offsets and pages: page * page size + column, in caches without pages batch * capacity +
    /// column; -1 = it goes nowhere.
    pub slots: Option<&'a [i64]>,
    /// As in [`AttentionOptions`](crate::AttentionOptions): the caches are pools.
    pub pages: Option<View<'a, i32>>,
    /// Of a cache of `i8`, which needs one, or `F8E4M3`: as the cache, with 1 row or 1 column, broadcast; computed, 1 row.
    pub k_scale: Scale<'a>,
    pub v_scale: Scale<'a>,
    /// Tables as in [`rotary`], both or none: k is not rotated.
    pub cos: Option<View<'a>>,
    pub sin: Option<View<'a>>,
    /// The next three as in [`RotaryOptions`].
    pub rotary_dims: i64,
    pub positions: Option<&'a [i64]>,
    pub interleaved: bool,
    /// At most so many; 0 = [`threads`](crate::threads).
    pub threads: i32,
}

fn scale_of(scale: &Scale, computed: u32, flags: &mut u32) -> *const Tensor {
    match scale {
        Scale::None => null(),
        Scale::Given(scale) => &scale.tensor,
        Scale::Computed(scale) => {
            *flags |= computed;
            &scale.tensor
        }
    }
}

/// New keys and values into their caches, k rotated if there are tables, both converted to the types of the caches: k (D, new,
/// Hkv, B), v (Dv, new, Hkv, B), caches (D, capacity, Hkv, B) and (Dv, ..), or pools (.., page size, Hkv, pages). v and
/// v_cache may both be `None`. What is no new item's stays as it is.
///
/// k, v and tables are of `f32`, `bf16` or `f16`, caches of those, `i8` or [`F8E4M3`](crate::F8E4M3), each by itself; or all
/// are of `f64`.
pub fn kv_append<'k, 'c>(
    k: impl Into<View<'k>>,
    v: Option<View>,
    k_cache: impl Into<ViewMut<'c>>,
    v_cache: Option<ViewMut>,
    options: KvAppendOptions,
) -> Result<(), Error> {
    check_version()?;
    let (k, k_cache) = (k.into(), k_cache.into());
    let mut message = Message::new();
    let sequences = count_sequences(options.starts, "options.starts")?;
    let (items, batch) = (items_of(&k.tensor), batch(sequences, &k.tensor));
    let mut flags = 0;
    if options.interleaved {
        flags |= sys::ATTEND_ROTARY_INTERLEAVED;
    }
    let k_scale = scale_of(&options.k_scale, sys::ATTEND_COMPUTE_K_SCALE, &mut flags);
    let v_scale = scale_of(&options.v_scale, sys::ATTEND_COMPUTE_V_SCALE, &mut flags);
    let o = sys::attend_kv_append_options {
        flags,
        threads: options.threads,
        message: message.text(),
        message_size: message.size(),
        sequences: sequences as i64,
        starts: start_of(options.starts),
        offsets: per_batch(options.offsets, batch, "options.offsets")?,
        slots: per_item(options.slots, items, "options.slots")?,
        pages: of(&options.pages),
        k_scale,
        v_scale,
        cos: of(&options.cos),
        sin: of(&options.sin),
        rotary_dims: options.rotary_dims,
        positions: per_item(options.positions, items, "options.positions")?,
        ..sys::attend_kv_append_options::init()
    };
    let of_v = of(&v);
    let of_cache = of_mut(&v_cache);
    let status = unsafe { sys::attend_kv_append(&k.tensor, of_v, &k_cache.tensor, of_cache, &o) };
    Error::check_call(status, &message)
}
