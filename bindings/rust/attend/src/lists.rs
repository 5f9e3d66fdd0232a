//! Lists of integers, whose lengths the library cannot see.

use crate::error::{Error, Kind};
use crate::Tensor;
use std::ptr::null;

fn wrong_length(name: &'static str, length: usize, needed: impl std::fmt::Display) -> Error {
    let message = format!("has {length} numbers for {needed}.");
    Error::new(Kind::InvalidShape, name, message)
}

pub(crate) fn batch_of(tensor: &Tensor) -> usize {
    if tensor.rank == 4 {
        tensor.shape[3] as usize
    } else {
        1
    }
}

/// Columns of all batches; more than there is memory for where that is beyond 64 bits.
pub(crate) fn items_of(tensor: &Tensor) -> usize {
    let columns = if tensor.rank > 1 {
        tensor.shape[1] as usize
    } else {
        1
    };
    columns.saturating_mul(batch_of(tensor))
}

pub(crate) fn start_of(list: Option<&[i64]>) -> *const i64 {
    list.map_or(null(), <[i64]>::as_ptr)
}

/// One number a batch, or more.
pub(crate) fn per_batch(
    list: Option<&[i64]>,
    batch: usize,
    name: &'static str,
) -> Result<*const i64, Error> {
    match list {
        Some(l) if l.len() < batch => Err(wrong_length(name, l.len(), format!("{batch} batches"))),
        list => Ok(start_of(list)),
    }
}

/// One number an item.
pub(crate) fn per_item(
    list: Option<&[i64]>,
    items: usize,
    name: &'static str,
) -> Result<*const i64, Error> {
    match list {
        Some(l) if l.len() != items => Err(wrong_length(name, l.len(), format!("{items} items"))),
        list => Ok(start_of(list)),
    }
}

/// How many sequences starts are for, which are one number more; 0 = there are none.
pub(crate) fn count_sequences(list: Option<&[i64]>, name: &'static str) -> Result<usize, Error> {
    match list {
        Some(l) if l.len() < 2 => {
            let needed = "sequences, of which there is one at least: its beginning and its end";
            Err(wrong_length(name, l.len(), needed))
        }
        Some(l) => Ok(l.len() - 1),
        None => Ok(0),
    }
}

/// The same of two lists that speak of the same sequences.
pub(crate) fn sequences_of(
    name: &'static str,
    list: Option<&[i64]>,
    other_name: &'static str,
    other: Option<&[i64]>,
) -> Result<usize, Error> {
    let (count, other_count) = (
        count_sequences(list, name)?,
        count_sequences(other, other_name)?,
    );
    match other {
        Some(l) if count > 0 && other_count != count => Err(wrong_length(
            other_name,
            l.len(),
            format!("{count} sequences and their end"),
        )),
        _ => Ok(count.max(other_count)),
    }
}
