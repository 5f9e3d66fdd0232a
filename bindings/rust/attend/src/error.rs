//! Why a call was refused.

use attend_sys as sys;
use std::ffi::CStr;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::raw::c_char;

/// The reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A required operand is missing.
    NullPointer,
    /// A rank is not 1 to 4.
    InvalidRank,
    /// An element type that the call does not take there, or not beside the others.
    InvalidDtype,
    /// Shapes that do not fit together.
    InvalidShape,
    /// Two elements of an output may share memory.
    InvalidStride,
    /// A number or a combination of options outside its range.
    InvalidValue,
    /// More bytes than 63 bits count.
    Overflow,
    /// An output overlaps another operand.
    Overlap,
    /// Known to the library but not in this version.
    Unsupported,
    /// No memory for the call.
    OutOfMemory,
    /// No such instruction set here.
    UnknownIsa,
    /// The view reaches outside its slice.
    OutOfRange,
    /// The library that was loaded is not the one this crate was written for.
    Version,
    /// A status that this crate does not know.
    Other(i32),
}

/// What was wrong, and with which argument. Nothing was written then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    argument: &'static str,
    said: String, // all that is shown
}

fn text(pointer: *const c_char) -> &'static str {
    // The library's texts are static and ASCII.
    unsafe { CStr::from_ptr(pointer) }.to_str().unwrap_or("")
}

/// Room for what the library says of one call.
pub(crate) struct Message([MaybeUninit<c_char>; Message::SIZE]);

impl Message {
    const SIZE: usize = 512;
    pub(crate) fn new() -> Self {
        let mut message = Message([MaybeUninit::uninit(); Self::SIZE]);
        message.0[0].write(0);
        message
    }
    pub(crate) fn text(&mut self) -> *mut c_char {
        self.0.as_mut_ptr().cast()
    }
    pub(crate) fn size(&self) -> u64 {
        Self::SIZE as u64
    }
    /// As this crate calls things.
    fn said(&self) -> String {
        // Safety: empty, or what the library has written, which ends in 0.
        let said = unsafe { CStr::from_ptr(self.0.as_ptr().cast()) }.to_string_lossy();
        said.replace("attention_options.", "options.")
            .replace("options.window_left:", "options.window:")
            .replace(
                "options.flags: has ATTEND_COMPUTE_SCALE",
                "options.scale: is Computed",
            )
            .replace(
                "options.flags: wants a scale computed, but k_",
                "options.k_scale: is Computed, but k_",
            )
            .replace(
                "options.flags: wants a scale computed, but v_",
                "options.v_scale: is Computed, but v_",
            )
            .replace(
                "options.flags: has ATTEND_COMPUTE_V_SCALE",
                "options.v_scale: is Computed",
            )
            .replace(
                "options.flags: has ATTEND_ROTARY_INTERLEAVED",
                "options.interleaved: is true",
            )
            .replace(
                "options.flags: has ATTEND_CAUSAL_BOTTOM_RIGHT",
                "options.causal: is BottomRight",
            )
            .replace("ATTEND_PARTIAL and ATTEND_CONTINUE", "pauses and resumes")
    }
}

impl Error {
    pub(crate) fn new(kind: Kind, argument: &'static str, message: impl fmt::Display) -> Self {
        let colon = if argument.is_empty() { "" } else { ": " };
        Error {
            kind,
            argument,
            said: format!("{argument}{colon}{message}"),
        }
    }

    /// Of a function that has a message among its options.
    pub(crate) fn check_call(status: sys::attend_status, message: &Message) -> Result<(), Error> {
        Self::check(status).map_err(|error| match message.said() {
            said if said.is_empty() => error,
            said => Error { said, ..error },
        })
    }

    pub(crate) fn check(status: sys::attend_status) -> Result<(), Error> {
        if status == sys::ATTEND_OK {
            return Ok(());
        }
        let kind = match status & 0xff {
            sys::ATTEND_NULL_POINTER => Kind::NullPointer,
            sys::ATTEND_INVALID_RANK => Kind::InvalidRank,
            sys::ATTEND_INVALID_DTYPE => Kind::InvalidDtype,
            sys::ATTEND_INVALID_SHAPE => Kind::InvalidShape,
            sys::ATTEND_INVALID_STRIDE => Kind::InvalidStride,
            sys::ATTEND_INVALID_VALUE => Kind::InvalidValue,
            sys::ATTEND_OVERFLOW => Kind::Overflow,
            sys::ATTEND_OVERLAP => Kind::Overlap,
            sys::ATTEND_UNSUPPORTED => Kind::Unsupported,
            sys::ATTEND_OUT_OF_MEMORY => Kind::OutOfMemory,
            sys::ATTEND_UNKNOWN_ISA => Kind::UnknownIsa,
            other => Kind::Other(other),
        };
        let (message, argument) = unsafe {
            (
                text(sys::attend_status_string(status)),
                text(sys::attend_status_argument(status)),
            )
        };
        Err(Error::new(kind, argument, message))
    }

    /// The same with the call's own numbers.
    pub(crate) fn because(self, message: String) -> Self {
        Error::new(self.kind, self.argument, message)
    }

    /// The reason.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The argument at fault as `attend.h` spells it ("q", "options.mask"), or "".
    pub fn argument(&self) -> &'static str {
        self.argument
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl std::error::Error for Error {}
