//! An administrator at work while something breaks.

use std::time::Duration;

use anyhow::{Context, bail};
use baton_client::admin::TopicSpec;
use baton_client::{Admin, BrokerId, ClientError, ErrorCode};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::TOPIC;
use super::draw::Kind;

/// How long one request is tried again.
const TRIES_FOR: Duration = Duration::from_secs(60);

/// An administrator that works until it is told to end.
pub struct Work {
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Work {
    /// Nothing new is begun.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Lets the administrator finish what was begun.
    ///
    /// # Errors
    /// A request failed for good, or is never answered.
    pub async fn end(self) -> anyhow::Result<()> {
        self.stop();
        timeout(TRIES_FOR * 2, self.task).await.context("the administrator is never answered")??
    }
}

/// Begins to create and delete topics, or to move partitions.
#[must_use]
pub fn start(kind: Kind, admin: Admin, number: u32, brokers: u32) -> Work {
    let (stop, stopped) = watch::channel(false);
    let task = match kind {
        Kind::Topics => tokio::spawn(topics(admin, number, stopped)),
        _ => tokio::spawn(moves(admin, number, brokers, stopped)),
    };
    Work { stop, task }
}

async fn topics(admin: Admin, number: u32, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    for lap in 0.. {
        let name = format!("passing-{number}-{lap}");
        let spec = || TopicSpec::new(&name).partitions(8).replication(3);
        persist("creation", || admin.create_topic(spec()), Some(ErrorCode::TopicExists)).await?;
        sleep(Duration::from_millis(100)).await;
        persist("deletion", || admin.delete_topic(&name), Some(ErrorCode::UnknownTopic)).await?;
        if *stop.borrow() {
            return Ok(());
        }
    }
    Ok(())
}

/// Gives partitions other replicas, one after the other; at the end all have as many as before.
async fn moves(admin: Admin, number: u32, brokers: u32, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let described = persist("description", || admin.describe_topic(TOPIC), None).await?;
    let Some(described) = described else { bail!("the topic is gone") };
    let count = described.partitions.len();
    for lap in 0.. {
        let index = (number as usize * 7 + lap) % count;
        let partition = &described.partitions[index];
        let first = number.wrapping_add(u32::try_from(lap)?) % brokers;
        let replicas: Vec<BrokerId> = (0..partition.replicas.len())
            .map(|next| BrokerId((first + u32::try_from(next).unwrap_or(0)) % brokers + 1))
            .collect();
        let asked = || admin.reassign(TOPIC, partition.partition, &replicas);
        persist("reassignment", asked, Some(ErrorCode::ReassignmentInProgress)).await?;
        if *stop.borrow() {
            return Ok(());
        }
        sleep(Duration::from_millis(30)).await;
    }
    Ok(())
}

/// Asks until it is done or refused for good. `already` is what the second answer to a request
/// says whose first answer got lost: done as well.
async fn persist<T, F>(what: &str, ask: impl Fn() -> F, already: Option<ErrorCode>) -> anyhow::Result<Option<T>>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let deadline = Instant::now() + TRIES_FOR;
    loop {
        match ask().await {
            Ok(done) => return Ok(Some(done)),
            Err(error) if Some(error.code()) == already => return Ok(None),
            Err(error) => {
                let again = error.retriable()
                    || matches!(
                        error.code(),
                        ErrorCode::Unreachable
                            | ErrorCode::RequestTimedOut
                            | ErrorCode::InvalidReplication
                            | ErrorCode::UnknownBroker
                    );
                if !again || Instant::now() > deadline {
                    bail!("{what}: {error}");
                }
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}
