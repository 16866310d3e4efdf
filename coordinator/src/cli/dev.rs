//! `baton dev`: a cluster to try things with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_coordinator::dev::{DevCluster, DevOptions, control};
use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::failure::{Failure, Outcome};
use super::options::Options;

/// How long the brokers may take until each does what it should.
const READY_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DevArgs {
    /// Where the cluster keeps its data; it survives a restart
    #[arg(long, env = "BATON_DEV_DIR", default_value = "./baton-data", value_name = "DIR")]
    dir: PathBuf,
    /// Keep the data in a temporary directory and remove it at the end
    #[arg(long, env = "BATON_DEV_EPHEMERAL", conflicts_with = "dir")]
    ephemeral: bool,
    /// Where `baton dev kill` and `baton dev start` reach this process
    #[arg(long, global = true, env = "BATON_DEV_CONTROL", default_value = control::CONTROL, value_name = "HOST:PORT")]
    control: SocketAddr,
    /// Broker i listens for clients on this + i - 1, for peers 10 above, for monitoring 80 above
    #[arg(long, env = "BATON_DEV_PORT", default_value_t = 7_400, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    port: u16,
    /// Broker i listens for Kafka's clients on this + i - 1; 0 means that none does
    #[arg(long, env = "BATON_DEV_KAFKA_PORT", default_value_t = 9_092, value_parser = clap::value_parser!(u16).range(0..=65_000))]
    kafka_port: u16,
    #[command(subcommand)]
    command: Option<DevCommand>,
}

#[derive(Debug, Subcommand)]
enum DevCommand {
    /// Drop a broker without resigning, draining or flushing, as kill -9 would
    Kill { broker: u32 },
    /// Start a broker that was killed
    Start { broker: u32 },
}

pub async fn run(options: &Options, args: DevArgs) -> Outcome {
    match args.command {
        Some(DevCommand::Kill { broker }) => tell(options, args.control, broker, "kill").await,
        Some(DevCommand::Start { broker }) => tell(options, args.control, broker, "start").await,
        None => run_cluster(options, args).await,
    }
}

async fn tell(options: &Options, control: SocketAddr, broker: u32, what: &'static str) -> Outcome {
    let path = format!("/brokers/{broker}/{what}");
    let asked = tokio::task::spawn_blocking(move || control::ask(&control.to_string(), &path)).await;
    let told = asked.map_err(std::io::Error::other)?.map_err(Failure::Failed)?;
    if let Some(error) = told.error {
        return Err(Failure::Failed(error));
    }
    if options.json() {
        return super::output::json(&told);
    }
    let done = if what == "kill" { "killed" } else { "started" };
    eprintln!("broker {broker} {done}");
    Ok(())
}

async fn run_cluster(options: &Options, args: DevArgs) -> Outcome {
    options.log_for_daemon_quietly();
    let began = Instant::now();
    let temporary = match args.ephemeral {
        true => Some(tempfile::Builder::new().prefix("baton-dev-").tempdir()?),
        false => None,
    };
    let dir = temporary.as_ref().map_or(args.dir, |dir| dir.path().to_owned());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let dev = DevOptions {
        dir: dir.clone(),
        first_port: args.port,
        kafka_port: (args.kafka_port > 0).then_some(args.kafka_port),
    };
    let failed = |error: String| Failure::Failed(error);
    let starting = tokio::task::spawn_blocking(move || {
        let cluster = DevCluster::start(dev)?;
        let ready = cluster.wait_ready(READY_WITHIN);
        Ok::<_, baton_coordinator::dev::DevError>((cluster, ready))
    });
    let (cluster, ready) = starting.await.map_err(std::io::Error::other)?.map_err(|error| failed(error.to_string()))?;
    if !ready {
        eprintln!("not every broker is ready yet; see `baton cluster status`");
    }
    greet(&cluster, began.elapsed(), &dir, args.control);
    let serving = tokio::spawn(control::serve(args.control, Arc::clone(&cluster)));
    tokio::select! {
        ended = serving => {
            stop(cluster).await?;
            let why = match ended {
                Ok(Err(error)) => error.to_string(),
                Ok(Ok(())) => "it ended".to_owned(),
                Err(error) => error.to_string(),
            };
            return Err(failed(format!("the control port {}: {why}", args.control)));
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    eprintln!("stopping");
    stop(cluster).await
}

async fn stop(cluster: Arc<DevCluster>) -> Outcome {
    Ok(tokio::task::spawn_blocking(move || cluster.stop()).await.map_err(std::io::Error::other)?)
}

/// What to type next, so that a newcomer sees a failover in the first minute.
fn greet(cluster: &DevCluster, took: Duration, dir: &std::path::Path, control: SocketAddr) {
    let bootstrap = cluster.bootstrap();
    let flag = if bootstrap == "127.0.0.1:7400,127.0.0.1:7401,127.0.0.1:7402" {
        String::new()
    } else {
        format!(" --bootstrap {bootstrap}")
    };
    let control = if control.to_string() == control::CONTROL { String::new() } else { format!(" --control {control}") };
    let kafka = cluster.kafka_bootstrap().map_or_else(String::new, |bootstrap| {
        let first = bootstrap.split(',').next().unwrap_or_default();
        format!("\nKafka's clients reach them at {bootstrap}:\n\n  kcat -b {first} -L\n")
    });
    eprintln!(
        "Three brokers and a coordinator are up after {:.1} s. Data: {}

Clients reach them at {bootstrap}. In another terminal:

  baton topic create hello --partitions 3{flag}
  seq 100000 | baton produce hello{flag}
  baton partition list hello{flag}        # who leads what
  baton dev kill 1{control}                     # as kill -9 would
  seq 100000 | baton produce hello{flag}  # the others go on
  baton consume hello --from start --exit-at-end{flag} | wc -l
  baton events{flag}                      # what was seen and decided
  baton dev start 1{control}
{kafka}
Ctrl-C stops the cluster.",
        took.as_secs_f64(),
        dir.display(),
    );
}
