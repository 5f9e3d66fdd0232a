//! Why a call was refused.

use attend_sys as sys;
use std::ffi::CStr;
use std::fmt;

/// The reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A required operand is missing.
    NullPointer,
    /// A rank is not 1 to 4.
    InvalidRank,
    /// Operands of different types.
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
    message: &'static str,
}

fn text(pointer: *const std::os::raw::c_char) -> &'static str {
    // The library's texts are static and ASCII.
    unsafe { CStr::from_ptr(pointer) }.to_str().unwrap_or("")
}

impl Error {
    pub(crate) fn new(kind: Kind, argument: &'static str) -> Self {
        let message = match kind {
            Kind::OutOfRange => "the view reaches outside its slice",
            Kind::InvalidRank => "a view needs 1 to 4 dimensions",
            Kind::InvalidStride => "a view needs a stride for every dimension",
            Kind::InvalidShape => "the shape does not fit",
            Kind::Overflow => "the shape is too large",
            Kind::Version => {
                "the attend library that was loaded is of another version than this crate"
            }
            _ => "",
        };
        Error {
            kind,
            argument,
            message,
        }
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
        Err(Error {
            kind,
            argument,
            message,
        })
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
        if self.argument.is_empty() {
            write!(f, "{}", self.message)
        } else {
            write!(f, "{}: {}", self.argument, self.message)
        }
    }
}

impl std::error::Error for Error {}
