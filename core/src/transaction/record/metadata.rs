//! A transactional id.
//!
//! ```text
//! key:   kind u8 = 1 │ transactional id, UTF-8
//! value: version u8 = 1 │ state u8 │ flags u8: 1 raised, 2 previous, 4 next id, 8 started
//!        │ producer id i64 │ producer epoch i16 │ time-out u32, ms │ updated i64, ms since 1970
//!        │ flag 2: { previous id i64 │ previous epoch i16 } │ flag 4: next id i64
//!        │ flag 8: started i64, ms since 1970 │ partitions u32 │ { topic id u32 │ partition u32 }…
//! ```
//! Big-endian; the partitions rise. States: 0 Empty, 1 Ongoing, 2 PrepareCommit, 3 PrepareAbort,
//! 4 CompleteCommit, 5 CompleteAbort.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{KIND_TRANSACTION, RecordError};
use crate::ids::{ProducerEpoch, ProducerId, TopicId, TopicPartition};
use crate::transaction::message::Producer;
use crate::transaction::metadata::{TransactionMetadata, TransactionState as State};

const VERSION: u8 = 1;

const RAISED: u8 = 1;
const PREVIOUS: u8 = 2;
const NEXT_ID: u8 = 4;
const STARTED: u8 = 8;
const FLAGS: u8 = RAISED | PREVIOUS | NEXT_ID | STARTED;

const PARTITION_BYTES: usize = 8;

pub fn key(id: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + id.len());
    out.put_u8(KIND_TRANSACTION);
    out.put_slice(id.as_bytes());
    out.freeze()
}

pub fn read_key(rest: &[u8]) -> Result<String, RecordError> {
    let id = std::str::from_utf8(rest).map_err(|_| RecordError::NotText)?;
    Ok(id.to_owned())
}

pub fn value(metadata: &TransactionMetadata) -> Bytes {
    let mut out = BytesMut::with_capacity(64 + metadata.partitions.len() * PARTITION_BYTES);
    out.put_u8(VERSION);
    out.put_u8(state_number(metadata.state));
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    out.put_u8(
        flag(metadata.raised, RAISED)
            | flag(metadata.previous.is_some(), PREVIOUS)
            | flag(metadata.next_id.is_some(), NEXT_ID)
            | flag(metadata.started_ms.is_some(), STARTED),
    );
    put_producer(&mut out, metadata.producer);
    out.put_u32(metadata.timeout_ms);
    out.put_i64(metadata.updated_ms);
    if let Some(previous) = metadata.previous {
        put_producer(&mut out, previous);
    }
    if let Some(id) = metadata.next_id {
        out.put_i64(id.0);
    }
    if let Some(started_ms) = metadata.started_ms {
        out.put_i64(started_ms);
    }
    // Bounded by `partitions_max`.
    out.put_u32(metadata.partitions.len() as u32);
    for at in &metadata.partitions {
        out.put_u32(at.topic.0);
        out.put_u32(at.partition);
    }
    out.freeze()
}

pub fn read_value(value: &[u8]) -> Result<TransactionMetadata, RecordError> {
    let mut rest = value;
    match rest.try_get_u8()? {
        VERSION => {}
        version => return Err(RecordError::Version(version)),
    }
    let state = state(rest.try_get_u8()?)?;
    let flags = rest.try_get_u8()?;
    if flags & !FLAGS != 0 {
        return Err(RecordError::Malformed("a flag that is not known"));
    }
    let producer = producer(&mut rest)?;
    let timeout_ms = rest.try_get_u32()?;
    let updated_ms = rest.try_get_i64()?;
    let previous = (flags & PREVIOUS != 0).then(|| self::producer(&mut rest)).transpose()?;
    let next_id = (flags & NEXT_ID != 0).then(|| producer_id(&mut rest)).transpose()?;
    let started_ms = (flags & STARTED != 0).then(|| rest.try_get_i64()).transpose()?;
    let partitions = partitions(&mut rest)?;
    if !rest.is_empty() {
        return Err(RecordError::LeftOver(rest.len()));
    }
    let raised = flags & RAISED != 0;
    let metadata = TransactionMetadata {
        producer,
        previous,
        next_id,
        raised,
        timeout_ms,
        state,
        partitions,
        started_ms,
        updated_ms,
    };
    check(&metadata)?;
    Ok(metadata)
}

/// What the coordinator relies on.
fn check(metadata: &TransactionMetadata) -> Result<(), RecordError> {
    let open = !metadata.state.is_idle();
    if open == metadata.partitions.is_empty() {
        return Err(RecordError::Malformed("a transaction has partitions exactly while it is open"));
    }
    if open != metadata.started_ms.is_some() {
        return Err(RecordError::Malformed("a transaction has a beginning exactly while it is open"));
    }
    if metadata.state.deciding().is_none() && (metadata.raised || metadata.next_id.is_some()) {
        return Err(RecordError::Malformed("an epoch is raised only when a transaction ends"));
    }
    Ok(())
}

fn partitions(rest: &mut &[u8]) -> Result<BTreeSet<TopicPartition>, RecordError> {
    let count = rest.try_get_u32()? as usize;
    if count > rest.len() / PARTITION_BYTES {
        return Err(RecordError::Truncated);
    }
    let mut partitions = BTreeSet::new();
    for _ in 0..count {
        let at = TopicPartition { topic: TopicId(rest.try_get_u32()?), partition: rest.try_get_u32()? };
        if partitions.last().is_some_and(|last| *last >= at) {
            return Err(RecordError::Malformed("partitions out of order"));
        }
        partitions.insert(at);
    }
    Ok(partitions)
}

fn put_producer(out: &mut BytesMut, producer: Producer) {
    out.put_i64(producer.id.0);
    out.put_i16(producer.epoch.0);
}

fn producer(rest: &mut &[u8]) -> Result<Producer, RecordError> {
    let id = producer_id(rest)?;
    let epoch = ProducerEpoch(rest.try_get_i16()?);
    if epoch.0 < 0 {
        return Err(RecordError::Malformed("a negative producer epoch"));
    }
    Ok(Producer { id, epoch })
}

fn producer_id(rest: &mut &[u8]) -> Result<ProducerId, RecordError> {
    let id = rest.try_get_i64()?;
    if id < 0 { Err(RecordError::Malformed("a negative producer id")) } else { Ok(ProducerId(id)) }
}

fn state_number(state: State) -> u8 {
    match state {
        State::Empty => 0,
        State::Ongoing => 1,
        State::PrepareCommit => 2,
        State::PrepareAbort => 3,
        State::CompleteCommit => 4,
        State::CompleteAbort => 5,
    }
}

fn state(number: u8) -> Result<State, RecordError> {
    Ok(match number {
        0 => State::Empty,
        1 => State::Ongoing,
        2 => State::PrepareCommit,
        3 => State::PrepareAbort,
        4 => State::CompleteCommit,
        5 => State::CompleteAbort,
        _ => return Err(RecordError::Malformed("a state that is not known")),
    })
}
