//! The shard's calls that change the log, and what is saved beside it.

use std::sync::Arc;

use baton_core::producer::ProducerTable;
use baton_core::replica::{LogTerm, StoredBatch};
use baton_core::{Epoch, Generation, Offset, TopicPartition};
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::log::Append;
use crate::mutation::Mutation;
use crate::shard::completion::{Completion, CopyId, LogChange};
use crate::shard::partition::rebuild_producers;
use crate::shard::run::Shard;
use crate::shard::turn::Mark;

impl Shard {
    pub(super) fn save_snapshot(&mut self, id: TopicPartition) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let saved = self.parts.log.save(partition.local, partition.full_snapshot());
        self.running.push(Box::pin(async move { Completion::Snapshot { result: saved.await } }));
    }

    /// Everything that is remembered in memory only is saved; the caller learns when. While
    /// the log is being cut the producers are not those of its end: they are read again then.
    pub(super) fn checkpoint(&mut self, done: oneshot::Sender<()>) {
        self.flush_appends();
        let saves: Vec<_> = self
            .partitions
            .values_mut()
            .filter(|p| p.may_save_producers())
            .map(|p| self.parts.log.save(p.local, p.full_snapshot()))
            .collect();
        self.running.push(Box::pin(async move {
            let results = futures::future::join_all(saves).await;
            let _ = done.send(());
            Completion::Snapshot { result: results.into_iter().collect() }
        }));
    }

    pub(super) fn save_epoch(&mut self, id: TopicPartition, epoch: Epoch) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let copy = CopyId { id, local: partition.local };
        let saved = self.parts.log.save(partition.local, partition.snapshot(epoch));
        let early = self.parts.mutations.lacks(Mutation::EpochSavedEarly);
        self.running.push(Box::pin(async move {
            let result = if early { Ok(()) } else { saved.await };
            Completion::EpochSaved { copy, epoch, result }
        }));
    }

    pub(super) fn append(&mut self, id: TopicPartition, term: LogTerm, batches: Vec<StoredBatch>) {
        let (Some(partition), Some(last)) = (self.partitions.get_mut(&id), batches.last()) else { return };
        let mark = Mark { id, local: partition.local, term, end: last.end() };
        for batch in &batches {
            partition.unsaved_bytes += batch.len() as u64;
            self.cache.push(partition.local, batch.clone());
        }
        self.turn.append(mark, Append { partition: partition.local, batches });
    }

    /// The log takes effect in the order of calls: what was appended before a truncation has
    /// to be handed over before it.
    pub(super) fn flush_appends(&mut self) {
        let Some((appends, marks)) = self.turn.take_appends() else { return };
        let bytes = appends.iter().flat_map(|a| &a.batches).map(|b| b.len() as u64).sum();
        let started = Instant::now();
        let written = self.parts.log.append(appends);
        let early = self.parts.mutations.lacks(Mutation::AcknowledgeBeforeFsync);
        self.running.push(Box::pin(async move {
            let result = if early { Ok(()) } else { written.await.map(drop) };
            Completion::Appended { marks, started, bytes, result }
        }));
    }

    /// The meta record is replaced together with the cut: what the old one says of epochs and
    /// producers may be about batches that go, and others will be at their offsets.
    pub(super) fn truncate(&mut self, id: TopicPartition, term: LogTerm, to: Offset) {
        self.flush_appends();
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        self.cache.truncate(partition.local, to);
        partition.changing = Some(term);
        let meta = partition.snapshot_below(to);
        let (log, local) = (Arc::clone(&self.parts.log), partition.local);
        let start = partition.replica.start_under_way();
        let truncated = log.truncate(local, to, Some(meta.clone()));
        let forgets = self.parts.mutations.lacks(Mutation::ProducersLostAtTruncation);
        self.running.push(Box::pin(async move {
            let result = match truncated.await {
                Ok(()) if forgets => Ok(ProducerTable::default()),
                Ok(()) => rebuild_producers(&*log, local, &meta, start, to).await,
                Err(error) => Err(error),
            };
            Completion::LogChanged { copy: CopyId { id, local }, term, change: LogChange::Truncate { to }, result }
        }));
    }

    /// Nothing is saved besides: the log begins the meta record anew, with these producers.
    pub(super) fn restart(
        &mut self,
        id: TopicPartition,
        term: LogTerm,
        generation: Generation,
        start: Offset,
        producers: ProducerTable,
    ) {
        self.flush_appends();
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        tracing::info!(partition = %id, %start, %generation, "this copy is emptied, to be filled anew");
        self.cache.remove(partition.local);
        partition.changing = Some(term);
        let saved = if producers.is_empty() { Bytes::new() } else { producers.encode() };
        partition.forget_saved(start, saved.clone());
        let copy = CopyId { id, local: partition.local };
        let reset = self.parts.log.reset(partition.local, generation, start, saved);
        self.running.push(Box::pin(async move {
            let result = reset.await.map(|()| producers.clone());
            Completion::LogChanged { copy, term, change: LogChange::Restart { generation, start, producers }, result }
        }));
    }
}
