//! The acknowledgement of a record, shared by all records of its batch.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    sync::{Arc, OnceLock},
};

use baton_core::{Epoch, Offset};
use tokio::sync::Notify;

use crate::{error::ClientError, record::RecordMetadata};

/// Where a batch was stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub base: Offset,
    pub timestamp_ms: Option<i64>,
    pub epoch: Epoch,
}

/// What became of a batch. One allocation and one wake-up for all its records.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    result: OnceLock<Result<Stored, ClientError>>,
    done: Notify,
}

impl Outcome {
    /// The first result counts: a batch that was given up stays given up.
    pub(super) fn set(&self, result: Result<Stored, ClientError>) {
        if self.result.set(result).is_ok() {
            self.done.notify_waiters();
        }
    }

    pub(super) async fn wait(&self) -> Result<Stored, ClientError> {
        loop {
            let mut done = std::pin::pin!(self.done.notified());
            // Registers before looking, so that a result in between is not missed.
            done.as_mut().enable();
            if let Some(result) = self.result.get() {
                return result.clone();
            }
            done.await;
        }
    }
}

/// A record on its way; awaiting it gives its offset. Dropping it does not take the record back.
#[derive(Debug)]
#[must_use = "a record that is not awaited may fail unnoticed; `flush` reports the first failure too"]
pub struct Delivery {
    pub(super) outcome: Arc<Outcome>,
    pub(super) topic: Arc<str>,
    pub(super) partition: u32,
    pub(super) index: u32,
}

impl Delivery {
    /// The partition that was chosen.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// What became of it, if that is known already.
    #[must_use]
    pub fn result(&self) -> Option<Result<RecordMetadata, ClientError>> {
        let result = self.outcome.result.get()?;
        Some(result.clone().map(|stored| self.metadata(stored)))
    }

    /// Waits until the record is acknowledged.
    ///
    /// # Errors
    /// [`ClientError::DeliveryTimeout`] and [`ClientError::Refused`] say whether it may be
    /// stored nevertheless.
    pub async fn wait(self) -> Result<RecordMetadata, ClientError> {
        let stored = self.outcome.wait().await?;
        Ok(self.metadata(stored))
    }

    fn metadata(&self, stored: Stored) -> RecordMetadata {
        RecordMetadata {
            topic: self.topic.clone(),
            partition: self.partition,
            offset: stored.base.plus(u64::from(self.index)),
            timestamp_ms: stored.timestamp_ms,
            epoch: stored.epoch,
        }
    }
}

impl IntoFuture for Delivery {
    type Output = Result<RecordMetadata, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}
