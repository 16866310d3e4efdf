//! `baton broker` and `baton coordinator`: run until a signal comes or nothing can go on.

use baton_broker::config::BrokerConfig;
use baton_broker::launch::{RegistrySource, launch};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::config::Source;
use super::failure::{Failure, Outcome};
use super::options::Options;
use baton_coordinator::daemon::config::CoordinatorConfig;

#[derive(Debug, Args)]
pub struct BrokerArgs {
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Args)]
pub struct CoordinatorArgs {
    #[command(flatten)]
    source: Source,
}

/// SIGTERM and SIGINT; a second one ends the process at once.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> Outcome<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

pub async fn broker(options: &Options, args: BrokerArgs) -> Outcome {
    options.log_for_daemon();
    let config: BrokerConfig = args.source.load()?;
    let mut stop = Stop::new()?;
    let id = config.broker_id;
    let starting = launch(config, RegistrySource::ZooKeeper);
    let mut broker = tokio::select! {
        started = starting => started.map_err(|error| Failure::Failed(format!("broker {id} does not start: {error}")))?,
        () = stop.asked() => return Ok(()),
    };
    for (listener, address) in broker.addresses() {
        tracing::info!(broker = id, listener, address, "listening");
    }
    tokio::select! {
        error = broker.failed() => {
            broker.kill();
            return Err(Failure::Failed(format!("broker {id} cannot go on: {error}")));
        }
        () = stop.asked() => {}
    }
    tracing::info!(broker = id, "handing over, then stopping; a second signal ends the process at once");
    tokio::select! {
        () = broker.stop() => Ok(()),
        () = stop.asked() => Err(Failure::Failed(format!("broker {id} was ended before it had handed over"))),
    }
}

pub async fn coordinator(options: &Options, args: CoordinatorArgs) -> Outcome {
    options.log_for_daemon();
    let config: CoordinatorConfig = args.source.load()?;
    let mut stop = Stop::new()?;
    let started = baton_coordinator::launch::launch(config).await;
    let coordinator = started.map_err(|error| Failure::Failed(format!("the coordinator does not start: {error}")))?;
    tracing::info!(address = coordinator.advertised(), "the coordinator listens");
    stop.asked().await;
    coordinator.stop().await;
    Ok(())
}
