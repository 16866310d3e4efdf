//! Looks at a request before it is decoded, so that decoding it takes no more memory than its
//! bytes deserve.
//!
//! The message types reserve room for as many elements as an array's length field says, before
//! any element is there: thirty bytes from an unauthenticated connection could ask for 154 GB
//! and abort the process. So a walk over the bytes comes first. It follows the request's
//! [`Layout`], allocates nothing, and passes a request only if every array's elements are
//! really there and all of them together are no more than [`ELEMENTS_MAX`].
//!
//! A walk by layout, not a bounded reader under the decoder: to a reader the length of an array
//! and an ordinary number look alike, and most numbers may be larger than what remains.

pub mod layout;
pub mod layouts;
#[cfg(test)]
mod tests;

use self::layout::{Field, Kind, Layout};

/// Elements of all arrays of a request, and tagged fields that nobody knows. A decoded element
/// takes some hundred bytes, so that a request of empty elements costs some ten MiB at most.
pub const ELEMENTS_MAX: usize = 100_000;

/// Arrays within arrays: the deepest layout has six levels.
const DEPTH_MAX: usize = 16;

/// Why a request is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the request ends in the middle of a field")]
    Truncated,
    #[error("a length is negative or too long to be one")]
    BadLength,
    #[error("the request has more than {ELEMENTS_MAX} elements")]
    TooManyElements,
    #[error("a text is not UTF-8")]
    NotText,
    #[error("the request's parts are nested too deeply")]
    TooDeep,
}

/// Walks over a request's body.
///
/// Returns how many bytes the request takes. What follows is ignored, as Kafka does.
///
/// # Errors
/// [`Malformed`]; the request must not be decoded then.
pub fn check(layout: &Layout, version: i16, body: &[u8]) -> Result<usize, Malformed> {
    let flexible = layout.is_flexible(version);
    let mut walk = Walk { rest: body, version, flexible, elements_left: ELEMENTS_MAX };
    walk.fields(layout.fields, 0)?;
    Ok(body.len() - walk.rest.len())
}

/// Walks over the tagged fields of a flexible request header, none of which is defined.
///
/// # Errors
/// [`Malformed`].
pub fn skip_header_tags(bytes: &[u8]) -> Result<usize, Malformed> {
    let mut walk = Walk { rest: bytes, version: 0, flexible: true, elements_left: ELEMENTS_MAX };
    walk.tags(&[], 0)?;
    Ok(bytes.len() - walk.rest.len())
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements_left: usize,
}

impl<'a> Walk<'a> {
    fn fields(&mut self, fields: &[Field], depth: usize) -> Result<(), Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed::TooDeep);
        }
        for field in fields {
            if field.tag.is_none() && field.is_in(self.version) {
                self.value(&field.kind, depth)?;
            }
        }
        if self.flexible { self.tags(fields, depth) } else { Ok(()) }
    }

    fn value(&mut self, kind: &Kind, depth: usize) -> Result<(), Malformed> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes),
            Kind::Text => {
                let length = if self.flexible { self.compact_length()? } else { self.short_length()? };
                self.skip(length.unwrap_or(0))
            }
            Kind::Blob => {
                let length = self.length()?;
                self.skip(length.unwrap_or(0))
            }
            Kind::Struct(fields) => self.fields(fields, depth + 1),
            Kind::MaybeStruct(fields) => match self.byte()? {
                1 => self.fields(fields, depth + 1),
                _ => Ok(()),
            },
            Kind::Array(element) => {
                let count = self.length()?.unwrap_or(0);
                self.count(count)?;
                (0..count).try_for_each(|_| self.value(element, depth + 1))
            }
        }
    }

    /// The tagged fields at the end of a structure (KIP-482).
    fn tags(&mut self, fields: &[Field], depth: usize) -> Result<(), Malformed> {
        for _ in 0..self.number()? {
            let (tag, size) = (self.number()?, self.number()?);
            let known = |field: &&Field| field.tag == Some(tag) && field.is_in(self.version);
            match fields.iter().find(known) {
                // The decoder reads a known field by its type, whatever its size says.
                Some(field) => self.value(&field.kind, depth + 1)?,
                None => {
                    self.count(1)?;
                    self.skip(usize::try_from(size).map_err(|_| Malformed::BadLength)?)?;
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, elements: usize) -> Result<(), Malformed> {
        // Every element takes at least a byte: more than there are bytes cannot be there.
        if elements > self.rest.len() {
            return Err(Malformed::Truncated);
        }
        self.elements_left = self.elements_left.checked_sub(elements).ok_or(Malformed::TooManyElements)?;
        Ok(())
    }

    fn length(&mut self) -> Result<Option<usize>, Malformed> {
        if self.flexible { self.compact_length() } else { self.long_length() }
    }

    /// None is null.
    fn compact_length(&mut self) -> Result<Option<usize>, Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed::BadLength)?;
        Ok(length.checked_sub(1))
    }

    fn short_length(&mut self) -> Result<Option<usize>, Malformed> {
        length_of(i32::from(i16::from_be_bytes(self.take()?)))
    }

    fn long_length(&mut self) -> Result<Option<usize>, Malformed> {
        length_of(i32::from_be_bytes(self.take()?))
    }

    /// An unsigned number of seven bits a byte, at most five bytes.
    fn number(&mut self) -> Result<u32, Malformed> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| Malformed::BadLength);
            }
        }
        Err(Malformed::BadLength)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.rest = self.rest.get(bytes..).ok_or(Malformed::Truncated)?;
        Ok(())
    }
}

/// −1 is null; other negative numbers are no lengths.
fn length_of(length: i32) -> Result<Option<usize>, Malformed> {
    match length {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| Malformed::BadLength),
    }
}
