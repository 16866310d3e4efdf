//! A committed offset.
//!
//! ```text
//! key:   kind u8 = 2 │ group text │ topic id u32 │ partition u32
//! value: version u8 = 1 │ offset u64 │ leader epoch i32, −1 if not said │ committed i64, ms since 1970
//!        │ metadata text
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{Reader, put_text};
use super::{KIND_OFFSET, RecordError};
use crate::group::offsets::Committed;
use crate::ids::{Offset, TopicId, TopicPartition};

const VERSION: u8 = 1;

pub fn key(group: &str, at: TopicPartition) -> Bytes {
    let mut out = BytesMut::with_capacity(group.len() + 13);
    out.put_u8(KIND_OFFSET);
    put_text(&mut out, group);
    out.put_u32(at.topic.0);
    out.put_u32(at.partition);
    out.freeze()
}

pub fn read_key(mut rest: Reader<'_>) -> Result<(String, TopicPartition), RecordError> {
    let group = rest.text()?;
    let at = TopicPartition { topic: TopicId(rest.u32()?), partition: rest.u32()? };
    rest.end()?;
    Ok((group, at))
}

pub fn value(committed: &Committed) -> Bytes {
    let mut out = BytesMut::with_capacity(committed.metadata.len() + 25);
    out.put_u8(VERSION);
    out.put_u64(committed.offset.0);
    out.put_i32(committed.leader_epoch.unwrap_or(-1));
    out.put_i64(committed.committed_ms);
    put_text(&mut out, &committed.metadata);
    out.freeze()
}

pub fn read_value(value: &[u8]) -> Result<Committed, RecordError> {
    let mut rest = Reader::new(value);
    match rest.u8()? {
        VERSION => {}
        version => return Err(RecordError::Version(version)),
    }
    let offset = Offset(rest.u64()?);
    let leader_epoch = Some(rest.i32()?).filter(|epoch| *epoch >= 0);
    let committed_ms = rest.i64()?;
    let metadata = rest.text()?;
    rest.end()?;
    Ok(Committed { offset, leader_epoch, metadata, committed_ms })
}
