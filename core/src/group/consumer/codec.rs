//! Kafka's plain encoding: big-endian, lengths before what they count, −1 for nothing.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Malformed;

/// Partitions by topic.
pub type Partitions = BTreeMap<String, Vec<u32>>;

const SHORT: Malformed = Malformed("they end too early");

pub struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.0.try_get_i16().map_err(|_| SHORT)
    }

    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.0.try_get_i32().map_err(|_| SHORT)
    }

    /// A number of things of at least `bytes_min` bytes each: never more than could follow.
    pub fn count(&mut self, bytes_min: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.i32()?).map_err(|_| Malformed("a negative number of things"))?;
        if count > self.0.len() / bytes_min { Err(SHORT) } else { Ok(count) }
    }

    fn take(&mut self, length: usize) -> Result<&[u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn text(&mut self) -> Result<String, Malformed> {
        self.optional_text()?.ok_or(Malformed("a text is missing"))
    }

    pub fn optional_text(&mut self) -> Result<Option<String>, Malformed> {
        let length = self.i16()?;
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| Malformed("a text is not UTF-8"))?;
        Ok(Some(text.to_owned()))
    }

    pub fn optional_bytes(&mut self) -> Result<Option<Bytes>, Malformed> {
        let length = self.i32()?;
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        self.take(length).map(|bytes| Some(Bytes::copy_from_slice(bytes)))
    }

    /// A topic takes at least 6 bytes, a partition 4.
    pub fn partitions(&mut self) -> Result<Partitions, Malformed> {
        let mut all = Partitions::new();
        for _ in 0..self.count(6)? {
            let topic = self.text()?;
            let numbers = all.entry(topic).or_default();
            for _ in 0..self.count(4)? {
                numbers.push(u32::try_from(self.i32()?).map_err(|_| Malformed("a negative partition"))?);
            }
        }
        Ok(all)
    }
}

/// A text; names of topics and racks are far below 32 KiB, and what is longer is cut.
pub fn put_text(out: &mut BytesMut, text: &str) {
    let mut end = text.len().min(i16::MAX as usize);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.put_i16(end as i16);
    out.put_slice(&text.as_bytes()[..end]);
}

pub fn put_count(out: &mut BytesMut, count: usize) {
    out.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
}

pub fn put_optional_bytes(out: &mut BytesMut, bytes: Option<&Bytes>) {
    match bytes {
        Some(bytes) => {
            put_count(out, bytes.len());
            out.put_slice(bytes);
        }
        None => out.put_i32(-1),
    }
}

pub fn put_partitions(out: &mut BytesMut, partitions: &Partitions) {
    put_count(out, partitions.len());
    for (topic, numbers) in partitions {
        put_text(out, topic);
        put_count(out, numbers.len());
        for number in numbers {
            out.put_i32(i32::try_from(*number).unwrap_or(i32::MAX));
        }
    }
}
