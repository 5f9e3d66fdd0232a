//! What views are made of.

use attend_sys as sys;

mod sealed {
    pub trait Sealed {
        const DTYPE: u32;
    }
}
pub(crate) use sealed::Sealed;

/// What views are made of: `f32`, `f64`, `i8`, `u8`, `i32`, [`F8E4M3`], `bool` for masks, and with the feature `half`
/// `half::bf16` and `half::f16`. Which of them a call takes beside each other is said with the function, and checked by
/// the library: [`Kind::InvalidDtype`](crate::Kind::InvalidDtype).
pub trait Element: Sealed + Copy {}

macro_rules! elements {
    ($($type:ty, $dtype:ident;)*) => {$(
        impl Sealed for $type {
            const DTYPE: u32 = sys::$dtype;
        }
        impl Element for $type {}
    )*};
}
elements! {
    f32, ATTEND_F32;
    f64, ATTEND_F64;
    i8, ATTEND_I8;
    u8, ATTEND_U8;
    i32, ATTEND_I32;
    bool, ATTEND_BOOL;
    F8E4M3, ATTEND_F8E4M3;
}
#[cfg(feature = "half")]
elements! {
    half::bf16, ATTEND_BF16;
    half::f16, ATTEND_F16;
}

/// In the place of an element type: a view of elements known when the program runs.
#[derive(Clone, Copy, Debug)]
pub enum Any {}

/// The bits of a number of 8 bits with 4 of exponent and 3 of fraction ("fn": the largest is 448, there is no infinity).
/// Equal are equal bits. [`convert`](crate::convert) makes them of other numbers, and other numbers of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct F8E4M3(pub u8);

impl F8E4M3 {
    /// Bytes as they come from a file.
    pub fn slice(bytes: &[u8]) -> &[F8E4M3] {
        // Safety: the same bytes, for as long; every one is a number.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
    }

    /// The same of bytes that are written.
    pub fn slice_mut(bytes: &mut [u8]) -> &mut [F8E4M3] {
        // Safety: as above, borrowed once.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
    }
}
