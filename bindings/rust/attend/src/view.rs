//! Views of slices that cannot reach outside them.

use crate::element::{Any, Element};
use crate::{Error, Kind};
use attend_sys as sys;
use std::marker::PhantomData;

/// Shared memory seen as up to four dimensions: rows, columns, heads, batch. `View` alone, without a type, is one of any
/// element, which every other becomes by `into()`.
#[derive(Clone, Copy)]
pub struct View<'a, T = Any> {
    pub(crate) tensor: sys::attend_tensor,
    memory: PhantomData<&'a [T]>,
}

/// The same of memory that is written.
pub struct ViewMut<'a, T = Any> {
    pub(crate) tensor: sys::attend_tensor,
    memory: PhantomData<&'a mut [T]>,
}

// A view is a slice with a shape: what may be sent and shared of the one may be of the other.
unsafe impl<T: Sync> Send for View<'_, T> {}
unsafe impl<T: Sync> Sync for View<'_, T> {}
unsafe impl<T: Send> Send for ViewMut<'_, T> {}
unsafe impl<T: Sync> Sync for ViewMut<'_, T> {}

fn error(kind: Kind, message: String) -> Error {
    Error::new(kind, "", message)
}

fn too_large(kind: Kind, shape: &[usize]) -> Error {
    error(kind, format!("a view of shape {shape:?} is too large."))
}

/// The tensor, if all its elements lie in `length` elements from `data` on.
fn describe<T: Element>(
    data: *const T,
    length: usize,
    offset: usize,
    shape: &[usize],
    stride: &[isize],
) -> Result<sys::attend_tensor, Error> {
    if shape.is_empty() || shape.len() > 4 {
        let dimensions = shape.len();
        return Err(error(
            Kind::InvalidRank,
            format!("a view has 1 to 4 dimensions, not {dimensions}."),
        ));
    }
    if stride.len() != shape.len() {
        return Err(error(
            Kind::InvalidStride,
            format!(
                "a view of {} dimensions has as many strides, not {}.",
                shape.len(),
                stride.len()
            ),
        ));
    }
    let mut tensor = sys::attend_tensor {
        data: std::ptr::null_mut(),
        dtype: T::DTYPE,
        rank: shape.len() as u32,
        shape: [0; 4],
        stride: [0; 4],
    };
    for i in 0..shape.len() {
        tensor.shape[i] =
            i64::try_from(shape[i]).map_err(|_| too_large(Kind::InvalidShape, shape))?;
        tensor.stride[i] = stride[i] as i64;
    }
    if shape.contains(&0) {
        return Ok(tensor);
    }
    // i128 holds every sum of four products of 64-bit numbers.
    let (mut first, mut last) = (offset as i128, offset as i128);
    for (&extent, &step) in shape.iter().zip(stride) {
        let reach = (extent as i128 - 1) * step as i128;
        if reach > 0 {
            last += reach;
        } else {
            first += reach;
        }
    }
    if first < 0 || last >= length as i128 {
        return Err(error(Kind::OutOfRange, format!(
                "the view of shape {shape:?} reaches elements {first} to {last} of a slice of {length}."
            ),
        ));
    }
    tensor.data = unsafe { data.add(offset) } as *mut _;
    Ok(tensor)
}

/// NumPy's shape reversed, with the strides of a row-major array.
fn row_major(shape: &[usize]) -> Result<(Vec<usize>, Vec<isize>), Error> {
    let (mut extents, mut strides, mut step) = (Vec::new(), Vec::new(), 1usize);
    for &extent in shape.iter().rev() {
        extents.push(extent);
        strides.push(isize::try_from(step).map_err(|_| too_large(Kind::Overflow, shape))?);
        step = step
            .checked_mul(extent.max(1))
            .ok_or_else(|| too_large(Kind::Overflow, shape))?;
    }
    Ok((extents, strides))
}

impl<'a, T: Element> View<'a, T> {
    /// `data` as a row-major array whose shape is given as NumPy writes it: `new(x, &[heads, n, d])` has the shape
    /// (d, n, heads). For activations.
    pub fn new(data: &'a [T], shape: &[usize]) -> Result<Self, Error> {
        let (extents, strides) = row_major(shape)?;
        Self::strided(data, 0, &extents, &strides)
    }

    /// `data` as row-major weights `[heads][out][in]`: shape (out, in, heads), not reversed, since a weight stands to the
    /// left of the columns it multiplies.
    pub fn weight(data: &'a [T], heads: usize, out: usize, inner: usize) -> Result<Self, Error> {
        let step = out
            .checked_mul(inner)
            .and_then(|n| isize::try_from(n).ok())
            .ok_or_else(|| too_large(Kind::Overflow, &[heads, out, inner]))?;
        Self::strided(data, 0, &[out, inner, heads], &[inner as isize, 1, step])
    }

    /// Element (i, j, h, b) at `data[offset + i * stride[0] + j * stride[1] + ...]`; strides may be 0 or negative.
    pub fn strided(
        data: &'a [T],
        offset: usize,
        shape: &[usize],
        stride: &[isize],
    ) -> Result<Self, Error> {
        let tensor = describe(data.as_ptr(), data.len(), offset, shape, stride)?;
        Ok(View {
            tensor,
            memory: PhantomData,
        })
    }
}

impl<'a, T: Element> ViewMut<'a, T> {
    /// As [`View::new`].
    pub fn new(data: &'a mut [T], shape: &[usize]) -> Result<Self, Error> {
        let (extents, strides) = row_major(shape)?;
        Self::strided(data, 0, &extents, &strides)
    }

    /// As [`View::strided`]. That no two elements share memory is checked by the function that writes.
    pub fn strided(
        data: &'a mut [T],
        offset: usize,
        shape: &[usize],
        stride: &[isize],
    ) -> Result<Self, Error> {
        let tensor = describe(
            data.as_mut_ptr() as *const T,
            data.len(),
            offset,
            shape,
            stride,
        )?;
        Ok(ViewMut {
            tensor,
            memory: PhantomData,
        })
    }
}

impl<'a, T: Element> From<View<'a, T>> for View<'a> {
    fn from(view: View<'a, T>) -> Self {
        View {
            tensor: view.tensor,
            memory: PhantomData,
        }
    }
}

impl<'a, T: Element> From<ViewMut<'a, T>> for ViewMut<'a> {
    fn from(view: ViewMut<'a, T>) -> Self {
        ViewMut {
            tensor: view.tensor,
            memory: PhantomData,
        }
    }
}
