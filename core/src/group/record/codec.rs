//! Big-endian numbers and texts, checked against what is left before anything is taken.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::RecordError;

/// A text: its length in bytes as u32, then UTF-8.
pub fn put_text(out: &mut BytesMut, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// A text that may be missing: a byte says whether it follows.
pub fn put_optional(out: &mut BytesMut, text: Option<&str>) {
    out.put_u8(u8::from(text.is_some()));
    if let Some(text) = text {
        put_text(out, text);
    }
}

/// Bytes after their length as u32. Everything that gets here is bounded far below 2³².
pub fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn u8(&mut self) -> Result<u8, RecordError> {
        self.0.try_get_u8().map_err(|_| RecordError::Truncated)
    }

    pub fn u32(&mut self) -> Result<u32, RecordError> {
        self.0.try_get_u32().map_err(|_| RecordError::Truncated)
    }

    pub fn i32(&mut self) -> Result<i32, RecordError> {
        self.0.try_get_i32().map_err(|_| RecordError::Truncated)
    }

    pub fn u64(&mut self) -> Result<u64, RecordError> {
        self.0.try_get_u64().map_err(|_| RecordError::Truncated)
    }

    pub fn i64(&mut self) -> Result<i64, RecordError> {
        self.0.try_get_i64().map_err(|_| RecordError::Truncated)
    }

    pub fn slice(&mut self) -> Result<&'a [u8], RecordError> {
        let length = self.u32()? as usize;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn bytes(&mut self) -> Result<Bytes, RecordError> {
        self.slice().map(Bytes::copy_from_slice)
    }

    pub fn text(&mut self) -> Result<String, RecordError> {
        let text = std::str::from_utf8(self.slice()?).map_err(|_| RecordError::NotText)?;
        Ok(text.to_owned())
    }

    pub fn optional(&mut self) -> Result<Option<String>, RecordError> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            _ => Err(RecordError::Malformed("a flag that is neither 0 nor 1")),
        }
    }

    /// A number of things of at least `bytes_min` bytes each: never more than could follow.
    pub fn count(&mut self, bytes_min: usize) -> Result<usize, RecordError> {
        let count = self.u32()? as usize;
        if count > self.0.len() / bytes_min {
            return Err(RecordError::Truncated);
        }
        Ok(count)
    }

    pub fn end(self) -> Result<(), RecordError> {
        if self.0.is_empty() { Ok(()) } else { Err(RecordError::LeftOver(self.0.len())) }
    }
}
