//! What earlier coordinators of groups left.

use baton_core::batch::BatchHeader;
use baton_core::group::GroupCoordinator;
use baton_core::group::message::Input;
use baton_core::group::record::GroupRecord;
use baton_core::transaction::partition::EndMarker;
use baton_core::{Epoch, Offset};

use crate::coordination::replay::{Source, records_from};
use crate::coordination::time::Timekeeper;
use crate::group::term::Parts;
use crate::log::StoredBatch;
use crate::shard::PartitionHandle;

/// The coordinator as the log has it; none once this broker does not lead in this epoch.
pub(super) async fn load(
    parts: &Parts,
    handle: PartitionHandle,
    epoch: Epoch,
    time: Timekeeper,
) -> Option<GroupCoordinator> {
    let source = Source { shards: &parts.shards, handle, epoch };
    let new = || GroupCoordinator::new(parts.settings.clone());
    let mut coordinator = source.replayed(new, |machine, batch, from| replay(machine, batch, from, time)).await?;
    coordinator.loaded(time.now_ms());
    Some(coordinator)
}

fn replay(coordinator: &mut GroupCoordinator, batch: &StoredBatch, from: Offset, time: Timekeeper) {
    let Ok(header) = BatchHeader::parse(&batch.bytes) else { return };
    if header.attributes.control() {
        return replay_marker(coordinator, &header, batch, time);
    }
    let transaction = header.attributes.transactional().then_some((header.producer_id, header.producer_epoch));
    for record in records_from(batch, from) {
        match GroupRecord::decode(record.key.as_deref().unwrap_or_default(), record.value.as_deref()) {
            Ok(record) => coordinator.replay(time.now_ms(), record, transaction),
            Err(error) => tracing::error!(at = %record.offset, %error, "a record of the groups' partition is skipped"),
        }
    }
}

/// The offsets of a transaction count from here on, or never will.
fn replay_marker(coordinator: &mut GroupCoordinator, header: &BatchHeader, batch: &StoredBatch, time: Timekeeper) {
    match EndMarker::read(header, &batch.bytes) {
        Ok(Some(EndMarker { producer, commit: committed, .. })) => {
            let ended = Input::TransactionEnded { producer: producer.id, epoch: producer.epoch, committed };
            // Nobody waits for anything yet: there is nothing to do about it.
            drop(coordinator.step(time.now_ms(), ended));
        }
        Ok(None) => {}
        Err(error) => tracing::error!(at = %batch.base, %error, "the end of a transaction is unreadable"),
    }
}
