//! Long polls: over when there is enough to read, or something to say, or the time is up.

use std::sync::Arc;
use std::time::Duration;

use baton_core::{Epoch, Error, ErrorCode, Offset};
use futures::future::select_all;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::answers::{Answers, Room};
use crate::shard::{
    Copies, FetchCall, FetchFailure, Fetched, Isolation, PartitionHandle, PartitionStatus, ShardInput, Shards,
};

/// One partition to read, which this broker led when it was looked at last.
#[derive(Clone, Debug)]
pub struct Wanted {
    handle: PartitionHandle,
    from: Offset,
    max_bytes: usize,
    epoch: Option<Epoch>,
    isolation: Isolation,
    copies: Copies,
    /// What the last reading could see: below it there is nothing new.
    seen: Offset,
}

impl Wanted {
    /// The batches from the one that contains `from` on, up to `max_bytes` (one comes whole
    /// even above it), if the leader's epoch is the one that the reader knows.
    #[must_use]
    pub fn new(handle: PartitionHandle, from: Offset, max_bytes: usize, epoch: Option<Epoch>) -> Self {
        Self { handle, from, max_bytes, epoch, isolation: Isolation::Uncommitted, copies: Copies::Leader, seen: from }
    }

    /// The same for a reader who is content with such copies.
    #[must_use]
    pub fn of(self, copies: Copies) -> Self {
        Self { copies, ..self }
    }

    /// The same for a reader who wants this.
    #[must_use]
    pub fn isolated(self, isolation: Isolation) -> Self {
        Self { isolation, ..self }
    }
}

/// When a poll is over.
#[derive(Clone, Copy, Debug)]
pub struct PollLimits {
    /// Bytes of all partitions; the batch with which they are reached still counts.
    pub max_bytes: usize,
    pub min_bytes: usize,
    pub wait: Duration,
}

/// What was read of a partition; none if there was no room left for it.
pub type Read = Option<Result<Fetched, FetchFailure>>;

/// Reads until there is enough, something went wrong, or the time is up. The results stand in
/// the order of `wanted`; they have room until it is dropped.
pub async fn poll(
    shards: &Shards,
    answers: &Arc<Answers>,
    mut wanted: Vec<Wanted>,
    limits: PollLimits,
) -> (Vec<Read>, Room) {
    let enough = limits.min_bytes.min(limits.max_bytes);
    let deadline = Instant::now() + limits.wait;
    loop {
        for one in &mut wanted {
            // What comes after this reading is news.
            one.handle.status.mark_unchanged();
        }
        let mut room = answers.room(limits.max_bytes);
        let granted = room.bytes();
        let Reading { results, bytes, failed } = read_once(shards, &mut wanted, granted).await;
        room.is(bytes);
        if failed || bytes >= enough.min(granted) || wanted.is_empty() || limits.wait.is_zero() {
            return (results, room);
        }
        if timeout_at(deadline, news(&mut wanted)).await.is_err() {
            return (results, room);
        }
    }
}

struct Reading {
    results: Vec<Read>,
    bytes: usize,
    failed: bool,
}

async fn read_once(shards: &Shards, wanted: &mut [Wanted], max_bytes: usize) -> Reading {
    let mut reading = Reading { results: Vec::with_capacity(wanted.len()), bytes: 0, failed: false };
    for one in wanted {
        let left = max_bytes.saturating_sub(reading.bytes);
        if left == 0 && reading.bytes > 0 {
            reading.results.push(None);
            continue;
        }
        let (reply, answer) = oneshot::channel();
        let id = one.handle.id;
        let max_bytes = one.max_bytes.min(left.max(1));
        let Wanted { from, epoch, isolation, copies, .. } = *one;
        let call = FetchCall { id, from, max_bytes, epoch, isolation, copies, reply };
        shards.tell(id, ShardInput::Fetch(call)).await;
        let result = answer.await.unwrap_or_else(|_| Err(stopping()));
        match &result {
            Ok(fetched) => {
                one.seen = one.seen.max(match one.isolation {
                    Isolation::Uncommitted => fetched.high_watermark,
                    Isolation::Committed => fetched.last_stable,
                });
                reading.bytes += fetched.batches.iter().map(|batch| batch.bytes.len()).sum::<usize>();
            }
            Err(_) => reading.failed = true,
        }
        reading.results.push(Some(result));
    }
    reading
}

fn stopping() -> FetchFailure {
    let error = Error::new(ErrorCode::ShuttingDown, "this broker is stopping");
    FetchFailure { error, latest: None, log_start: Offset::ZERO }
}

/// Until more can be read than the last reading saw, or a partition changed hands or closed.
async fn news(wanted: &mut [Wanted]) {
    let waits = wanted.iter_mut().map(|one| {
        let (seen, epoch) = (one.seen, one.handle.status.now().epoch);
        let (isolation, copies) = (one.isolation, one.copies);
        let end = move |s: &PartitionStatus| match isolation {
            Isolation::Uncommitted => s.high_watermark,
            Isolation::Committed => s.last_stable,
        };
        Box::pin(async move {
            // A partition that closes is news, too.
            let _ = one.handle.status.wait_for(|s| end(s) > seen || !s.serves(copies) || s.epoch != epoch).await;
        })
    });
    select_all(waits).await;
}

#[cfg(test)]
mod tests {
    use baton_core::replica::RoleView;
    use baton_core::{BrokerId, DiskId, Generation, Member, TopicPartition};
    use tokio::sync::watch;

    use super::*;
    use crate::shard::StatusWatch;

    fn status(high_watermark: u64) -> PartitionStatus {
        PartitionStatus {
            role: RoleView::Leader { resigning: false },
            member: Member { broker: BrokerId(1), disk: DiskId(1), generation: Generation(0) },
            epoch: Epoch(1),
            version: 1,
            log_start: Offset(0),
            log_end: Offset(9),
            high_watermark: Offset(high_watermark),
            latest: Some(Offset(high_watermark)),
            last_stable: Offset(high_watermark),
            in_sync: 1,
            assigned: 1,
            damaged: false,
            follows_in_sync: false,
            yields: false,
        }
    }

    /// One record is there and the reader wants more: it waits for the next one, instead of
    /// reading the same one until the time is up.
    #[tokio::test(start_paused = true)]
    async fn what_was_read_is_no_news() {
        let (shown, watched) = watch::channel(status(1));
        let handle = PartitionHandle {
            id: TopicPartition::default(),
            topic: "t".into(),
            settings: baton_core::topic::TopicConfig::default(),
            status: StatusWatch::new(watched),
        };
        let mut wanted = [Wanted { seen: Offset(1), ..Wanted::new(handle, Offset(0), 1 << 20, None) }];
        let second = Duration::from_secs(1);
        assert!(tokio::time::timeout(second, news(&mut wanted)).await.is_err());
        shown.send_replace(status(2));
        assert!(tokio::time::timeout(second, news(&mut wanted)).await.is_ok());
        wanted[0].seen = Offset(2);
        shown.send_replace(PartitionStatus { role: RoleView::Idle, ..status(2) });
        assert!(tokio::time::timeout(second, news(&mut wanted)).await.is_ok());
    }
}
