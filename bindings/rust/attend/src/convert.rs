//! Between element types.

use crate::check_version;
use crate::error::{Error, Message};
use crate::view::{View, ViewMut};
use attend_sys as sys;
use std::ptr::null;

/// What one step of a number of 8 bits stands for. Shapes broadcast to x: (1, N) by column, as of each token, (M, 1) by
/// row, (1, 1) for all.
#[derive(Default)]
pub enum Scale<'a> {
    /// Numbers as they are.
    #[default]
    None,
    /// y = scale x from `i8`, `u8` and [`F8E4M3`](crate::F8E4M3), y = x / scale to them.
    Given(View<'a, f32>),
    /// The same to `i8` and `F8E4M3`, with a scale that is computed first and written here: the largest magnitude that it
    /// stands for over 127 or 448.
    Computed(ViewMut<'a, f32>),
}

/// Options of [`convert`].
#[derive(Default)]
pub struct ConvertOptions<'a> {
    pub scale: Scale<'a>,
    /// At most so many; 0 = [`threads`](crate::threads).
    pub threads: i32,
}

/// y = x in another element type, any but `bool`: x, y (M, N, H, B). Every number is rounded once, to nearest even; integers
/// and `F8E4M3` take the nearest that there is.
///
/// ```
/// use attend::*;
/// let (x, mut scale, mut y) = ([1.0f32, -2.0, 0.5, 4.0], [0f32; 2], [0i8; 4]);
/// let options = ConvertOptions {
///     scale: Scale::Computed(ViewMut::new(&mut scale, &[2, 1])?), // one for each item
///     ..Default::default()
/// };
/// convert(View::new(&x, &[2, 2])?, ViewMut::new(&mut y, &[2, 2])?, options)?;
/// assert_eq!((y, scale), ([64, -127, 16, 127], [2.0 / 127.0, 4.0 / 127.0]));
/// # Ok::<(), Error>(())
/// ```
pub fn convert<'x, 'y>(
    x: impl Into<View<'x>>,
    y: impl Into<ViewMut<'y>>,
    options: ConvertOptions,
) -> Result<(), Error> {
    check_version()?;
    let (x, y) = (x.into(), y.into());
    let mut message = Message::new();
    let (scale, flags): (*const sys::attend_tensor, _) = match &options.scale {
        Scale::None => (null(), 0),
        Scale::Given(scale) => (&scale.tensor, 0),
        Scale::Computed(scale) => (&scale.tensor, sys::ATTEND_COMPUTE_SCALE),
    };
    let o = sys::attend_convert_options {
        flags,
        threads: options.threads,
        message: message.text(),
        message_size: message.size(),
        scale,
        ..sys::attend_convert_options::init()
    };
    let status = unsafe { sys::attend_convert(&x.tensor, &y.tensor, &o) };
    Error::check_call(status, &message)
}
