//! What waits for a commit, and how its caller is answered.

use baton_core::{Generation, Offset, TopicPartition};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::{Append, Damage, DurableEnd, LocalPartition, LogError, PartitionMeta, StoredBatch};

/// One change of the log, in the terms of [`super::Log`].
#[derive(Debug)]
pub(super) enum Change {
    Create {
        id: TopicPartition,
        generation: Generation,
        start: Offset,
    },
    Delete(LocalPartition),
    Append(Vec<Append>),
    Truncate {
        partition: LocalPartition,
        to: Offset,
        meta: Option<PartitionMeta>,
    },
    SetStart {
        partition: LocalPartition,
        start: Offset,
        meta: Option<PartitionMeta>,
    },
    Rewrite {
        partition: LocalPartition,
        batches: Vec<StoredBatch>,
        meta: PartitionMeta,
    },
    Reset {
        partition: LocalPartition,
        generation: Generation,
        start: Offset,
        producers: Bytes,
    },
    Save {
        partition: LocalPartition,
        meta: PartitionMeta,
    },
    /// A reader met damage under this number of the store; remembered until the copy is reset.
    NoteDamage {
        partition: LocalPartition,
        number: u32,
        damage: Damage,
    },
    Close,
}

impl Change {
    /// What the change holds in memory while it waits, roughly.
    pub(super) fn bytes(&self) -> u64 {
        let payload = match self {
            Self::Append(appends) => {
                let batches = appends.iter().flat_map(|a| &a.batches);
                batches.map(|b| b.bytes.len() + size_of_val(b)).sum()
            }
            Self::Save { meta, .. }
            | Self::Truncate { meta: Some(meta), .. }
            | Self::SetStart { meta: Some(meta), .. } => meta_bytes(meta),
            Self::Rewrite { batches, meta, .. } => {
                batches.iter().map(|b| b.bytes.len() + size_of_val(b)).sum::<usize>() + meta_bytes(meta)
            }
            Self::Reset { producers, .. } => producers.len(),
            _ => 0,
        };
        (payload + size_of::<Operation>()) as u64
    }
}

fn meta_bytes(meta: &PartitionMeta) -> usize {
    meta.producers.len() + size_of_val(&*meta.lineage)
}

/// What a change answers when it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Changed,
    Created(LocalPartition),
    Ends(Vec<DurableEnd>),
}

pub(super) type Answer = Result<Done, LogError>;

/// A change and the caller who waits for it.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) change: Change,
    pub(super) reply: oneshot::Sender<Answer>,
}

impl Operation {
    pub(super) fn new(change: Change) -> (Self, Waiting) {
        let (reply, receiver) = oneshot::channel();
        (Self { change, reply }, Waiting(receiver))
    }

    /// A caller who stopped waiting is not an error.
    pub(super) fn answer(self, answer: Answer) {
        let _ = self.reply.send(answer);
    }
}

/// The caller's end of an [`Operation`].
pub(super) struct Waiting(oneshot::Receiver<Answer>);

impl Waiting {
    async fn done(self) -> Answer {
        self.0.await.unwrap_or(Err(LogError::Closed))
    }

    pub(super) fn changed(self) -> BoxFuture<'static, Result<(), LogError>> {
        async move { self.done().await.map(drop) }.boxed()
    }

    pub(super) fn created(self) -> BoxFuture<'static, Result<LocalPartition, LogError>> {
        async move {
            match self.done().await? {
                Done::Created(partition) => Ok(partition),
                other => Err(mismatch(&other)),
            }
        }
        .boxed()
    }

    pub(super) fn ends(self) -> BoxFuture<'static, Result<Vec<DurableEnd>, LogError>> {
        async move {
            match self.done().await? {
                Done::Ends(ends) => Ok(ends),
                other => Err(mismatch(&other)),
            }
        }
        .boxed()
    }
}

fn mismatch(other: &Done) -> LogError {
    debug_assert!(false, "an answer of the wrong kind: {other:?}");
    LogError::Failed(format!("an answer of the wrong kind: {other:?}"))
}
