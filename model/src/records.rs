//! The batches behind the model's records, built once: each has one record.

use baton_core::batch::{BatchBuilder, BatchHeader, BuildOptions, Codec, ProducerStamp, Stamp, stamp};
use baton_core::ids::{Epoch, Offset, ProducerEpoch, ProducerId};
use baton_core::producer::ProducerTable;
use baton_core::replica::{Acks, Produce, RequestId, StoredBatch};

use crate::disk::{Image, Record};

/// A request, ready to be sent, and what becomes of it at every place and in every epoch.
#[derive(Debug)]
pub struct Records {
    requests: Vec<Produce>,
    stored: Vec<StoredBatch>,
    places: usize,
    epochs: usize,
    idempotent: bool,
}

impl Records {
    /// For records 1 to `ids`, offsets below `places` and epochs below `epochs`. Idempotent:
    /// each record has a producer of its own, and sent again it is the same one.
    ///
    /// # Panics
    /// If a batch of one small record cannot be built.
    #[must_use]
    pub fn new(ids: u8, places: usize, epochs: usize, idempotent: bool) -> Self {
        let requests: Vec<Produce> = (1..=ids).map(|id| request(id, idempotent)).collect();
        let mut stored = Vec::with_capacity(requests.len() * places * epochs);
        for request in &requests {
            for place in 0..places {
                for epoch in 0..epochs {
                    stored.push(store(request, place as u64, epoch as u32));
                }
            }
        }
        Self { requests, stored, places, epochs, idempotent }
    }

    #[must_use]
    pub fn request(&self, id: u8) -> Produce {
        self.requests[usize::from(id) - 1].clone()
    }

    #[must_use]
    pub fn stored(&self, record: Record, at: u64) -> StoredBatch {
        let (place, epoch) = (at as usize, record.epoch.0 as usize);
        assert!(place < self.places && epoch < self.epochs, "{record:?} at {at} is beyond the bounds");
        self.stored[((usize::from(record.id) - 1) * self.places + place) * self.epochs + epoch].clone()
    }

    /// The producers' state as a function of the log.
    #[must_use]
    pub fn producers(&self, image: &Image) -> ProducerTable {
        let mut table = ProducerTable::default();
        if !self.idempotent {
            return table;
        }
        for (at, record) in (image.start.0..).zip(&image.records) {
            let batch = self.stored(*record, at);
            if let Ok(header) = BatchHeader::parse(&batch.bytes) {
                table.applied_batch(&header, batch.base, &batch.bytes);
            }
        }
        table
    }
}

fn request(id: u8, idempotent: bool) -> Produce {
    let mut builder = BatchBuilder::new(256);
    let time_ms = i64::from(id);
    let pushed = builder.push(time_ms, None, Some(&[id]), &[]);
    assert!(pushed.is_ok(), "one record of one byte fits");
    let stamp = ProducerStamp { id: ProducerId(time_ms), epoch: ProducerEpoch(0), base_sequence: 0 };
    let producer = idempotent.then_some(stamp);
    let options = BuildOptions { codec: Codec::None, producer, ..BuildOptions::default() };
    let bytes = builder.build(&options).expect("one record makes a batch");
    let header = BatchHeader::parse(&bytes).expect("a batch that was just built");
    Produce { request: RequestId(u64::from(id)), acks: Acks::All, header, bytes, wall_ms: 0 }
}

fn store(request: &Produce, place: u64, epoch: u32) -> StoredBatch {
    let stamped = Stamp { base_offset: Offset(place), leader_epoch: Epoch(epoch), append_time_ms: None };
    let (header, bytes) = stamp(request.bytes.clone(), stamped).expect("a batch that was just built");
    StoredBatch {
        base: Offset(place),
        last: header.last_offset(),
        epoch: Epoch(epoch),
        max_timestamp_ms: header.max_timestamp_ms,
        bytes,
    }
}
