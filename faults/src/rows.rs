//! The faults of the data plane, one script each.

use std::time::Duration;

use anyhow::bail;
use baton_client::{BrokerId, ClientError, ErrorCode, ProducerConfig, Record};
use tokio::time::sleep;

use crate::daemon::Signal;
use crate::stage::Stage;

/// How long a producer that must be refused tries.
const IMPATIENCE: Duration = Duration::from_millis(1_500);
/// How long ZooKeeper is left without one of its servers.
const ONE_SERVER_AWAY: Duration = Duration::from_secs(10);

/// `kill -9` of a broker, and its return.
pub async fn kill9(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let victim = stage.victim();
    stage.target = format!("broker {victim}, leader of {}", stage.observer.led_by(victim));
    stage.fault("down");
    stage.cluster.broker(victim).kill();
    stage.acknowledging().await?;
    sleep(stage.pace.hurt).await;
    stage.phase("back");
    stage.come_back().await
}

/// `SIGSTOP`, long enough to be given up, then `SIGCONT`.
pub async fn sigstop(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let victim = stage.victim();
    stage.target = format!("broker {victim}, leader of {}", stage.observer.led_by(victim));
    stage.fault("frozen");
    stage.cluster.broker(victim).signal(Signal::Stop)?;
    sleep(stage.pace.freeze).await;
    stage.phase("thawed");
    stage.cluster.broker(victim).signal(Signal::Continue)?;
    stage.acknowledging().await?;
    stage.come_back().await
}

/// `kill -9` of all brokers at once, and their restart.
pub async fn kill_all(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.target = "all brokers".to_owned();
    stage.fault("down");
    stage.cluster.kill_all_brokers()?;
    sleep(Duration::from_millis(500)).await;
    stage.phase("back");
    stage.recovery_from = Some(stage.load.now());
    for id in 1..=stage.cluster.broker_count() {
        stage.cluster.broker(id).start()?;
    }
    stage.acknowledging().await?;
    stage.come_back().await
}

/// The leader of the ZooKeeper ensemble dies and comes back; afterwards elections work.
pub async fn zk_leader(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let Some(leader) = stage.cluster.ensemble.leader() else { bail!("ZooKeeper has no leader") };
    stage.target = format!("ZooKeeper server {}", leader + 1);
    let before = stage.observer.moves();
    stage.fault("no ZooKeeper leader");
    stage.cluster.ensemble.kill(leader);
    stage.acknowledging().await?;
    sleep(ONE_SERVER_AWAY.min(stage.pace.away)).await;
    stage.phase("ZooKeeper back");
    stage.cluster.ensemble.spawn(leader)?;
    stage.cluster.ensemble.serving().await?;
    after_zookeeper(stage, before).await
}

/// The whole ensemble is away and comes back; afterwards elections work.
pub async fn zk_away(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.target = "all ZooKeeper servers".to_owned();
    let before = stage.observer.moves();
    stage.fault("no ZooKeeper");
    for server in 0..3 {
        stage.cluster.ensemble.kill(server);
    }
    let until = stage.load.now() + stage.pace.away;
    while stage.load.now() < until {
        // Producing has to go on all the time.
        stage.acknowledging().await?;
        sleep(Duration::from_millis(500)).await;
    }
    stage.phase("ZooKeeper back");
    for server in 0..3 {
        stage.cluster.ensemble.spawn(server)?;
    }
    stage.cluster.ensemble.serving().await?;
    after_zookeeper(stage, before).await
}

/// Counts what moved, then shows that a broker that dies is replaced.
async fn after_zookeeper(stage: &mut Stage<'_>, before: super::observer::Moves) -> anyhow::Result<()> {
    sleep(stage.pace.hurt).await;
    stage.observer.until_whole(stage.shape.partitions, stage.pace.come_back).await?;
    let moves = stage.observer.moves() - before;
    stage.note(format!("ZooKeeper's absence moved {} leaders and raised {} epochs", moves.leaders, moves.epochs));
    // Every leader may have to elect itself anew, once.
    let allowed = u64::from(stage.shape.partitions);
    if moves.leaders > allowed || moves.epochs > 2 * allowed {
        stage.failures.push(format!("a storm: {moves:?} in {allowed} partitions"));
    }
    let victim = stage.victim();
    stage.phase("a broker killed");
    stage.cluster.broker(victim).kill();
    stage.acknowledging().await?;
    let dead = BrokerId(victim);
    stage
        .observer
        .until(stage.shape.partitions, stage.pace.come_back, |seen| seen.leader.is_some_and(|leader| leader != dead))
        .await?;
    stage.phase("the broker back");
    stage.come_back().await
}

/// A broker comes back with its id and without its data.
pub async fn empty_disk(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let victim = stage.victim();
    stage.target = format!("broker {victim}, leader of {}", stage.observer.led_by(victim));
    stage.fault("down");
    let began = stage.load.now();
    stage.cluster.broker(victim).kill();
    stage.cluster.wipe(victim)?;
    stage.phase("refilling");
    stage.cluster.broker(victim).start()?;
    stage.acknowledging().await?;
    stage.cluster.ready().await?;
    stage.observer.until_whole(stage.shape.partitions, stage.pace.come_back).await?;
    let refilled = stage.load.now().saturating_sub(began);
    stage.note(format!("in sync again {:.1} s after the fault", refilled.as_secs_f64()));
    // Now that it counts as in sync, it has to have everything: the others go in turn, so that
    // what it holds is what is read.
    for other in (1..=stage.cluster.broker_count()).filter(|id| *id != victim) {
        stage.phase("another one down");
        stage.cluster.broker(other).kill();
        stage.acknowledging().await?;
        stage.cluster.restore().await?;
        stage.observer.until_whole(stage.shape.partitions, stage.pace.come_back).await?;
    }
    stage.come_back().await
}

/// Two of three brokers go, one after the other; the first one to go comes back first.
pub async fn below_min_first(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    below_min(stage, false).await
}

/// The same; the last one to go comes back first.
pub async fn below_min_last(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    below_min(stage, true).await
}

async fn below_min(stage: &mut Stage<'_>, last_first: bool) -> anyhow::Result<()> {
    let first = stage.victim();
    let second = first % stage.cluster.broker_count() + 1;
    stage.target = format!("brokers {first} and {second}");
    stage.fault("one down");
    stage.cluster.broker(first).kill();
    stage.acknowledging().await?;
    sleep(Duration::from_secs(1)).await;
    stage.phase("two down");
    stage.cluster.broker(second).kill();
    // The survivor learns that the other one is dead.
    sleep(Duration::from_secs(2)).await;
    refused(stage).await?;
    let (earlier, later) = if last_first { (second, first) } else { (first, second) };
    stage.phase("one back");
    stage.recovery_from = Some(stage.load.now());
    stage.cluster.broker(earlier).start()?;
    stage.acknowledging().await?;
    stage.phase("two back");
    stage.cluster.broker(later).start()?;
    stage.come_back().await
}

/// A producer that gives up soon is told why: a reason that passes.
async fn refused(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let client = stage.cluster.client("impatient").await?;
    let producer = client.producer(ProducerConfig { delivery_timeout: IMPATIENCE, ..ProducerConfig::default() });
    let mut codes = std::collections::BTreeMap::new();
    let mut deliveries = Vec::new();
    for partition in 0..stage.shape.partitions {
        deliveries.push(producer.send(&stage.shape.topic, Record::new("impatient").partition(partition)).await?);
    }
    for delivery in deliveries {
        let partition = delivery.partition();
        let code = match delivery.await {
            Ok(stored) => {
                stage.failures.push(format!("partition {partition} acknowledged {} below min in-sync", stored.offset));
                continue;
            }
            Err(error) => reason(&error),
        };
        let good = matches!(code, ErrorCode::NotEnoughReplicas | ErrorCode::NoLeader | ErrorCode::RequestTimedOut);
        if !good {
            stage.failures.push(format!("partition {partition} refused with {code}"));
        }
        *codes.entry(code.name()).or_insert(0) += 1;
    }
    stage.note(format!("refused below min in-sync: {codes:?}"));
    Ok(())
}

/// What the last attempt failed with.
fn reason(error: &ClientError) -> ErrorCode {
    match error {
        ClientError::DeliveryTimeout { last: Some(last), .. } | ClientError::TimedOut { last: Some(last), .. } => {
            reason(last)
        }
        other => other.code(),
    }
}

/// SIGTERM of each broker in turn: each hands over, exits with 0, and comes back.
pub async fn sigterm(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.target = "each broker in turn".to_owned();
    for id in 1..=stage.cluster.broker_count() {
        let led = stage.observer.led_by(id);
        stage.fault(["", "broker 1 stops", "broker 2 stops", "broker 3 stops"][id as usize % 4]);
        let began = stage.load.now();
        stage.cluster.broker(id).signal(Signal::Terminate)?;
        let status = stage.cluster.broker(id).ended(stage.pace.come_back).await?;
        let took = stage.load.now().saturating_sub(began);
        stage.note(format!("broker {id}, leader of {led}, stopped in {:.2} s", took.as_secs_f64()));
        if !status.success() {
            let tail = stage.cluster.broker(id).log_tail(5);
            stage.failures.push(format!("broker {id} ended with {status}{tail}"));
        }
        sleep(Duration::from_secs(1)).await;
        stage.phase(["", "broker 1 back", "broker 2 back", "broker 3 back"][id as usize % 4]);
        stage.come_back().await?;
    }
    Ok(())
}
