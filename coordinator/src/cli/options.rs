//! What every verb takes.

use std::{io, time::Duration};

use baton_client::{Attempt, Client, ClientConfig, ClientError};
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::failure::Failure;
use super::wrong_port::speaks_kafka;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For programs: one object, or one object a line
    Json,
}

#[derive(Debug, Args)]
pub struct Options {
    /// Brokers to ask, separated by commas; all are tried
    #[arg(
        long,
        global = true,
        env = "BATON_BOOTSTRAP",
        value_delimiter = ',',
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:7400,127.0.0.1:7401,127.0.0.1:7402"
    )]
    pub bootstrap: Vec<String>,
    /// How to print
    #[arg(long, global = true, env = "BATON_OUTPUT", value_enum, default_value = "text")]
    pub output: Output,
    /// How long one request may take
    #[arg(long, global = true, env = "BATON_TIMEOUT", value_parser = humantime::parse_duration, default_value = "30s",
          value_name = "DURATION")]
    pub timeout: Duration,
    /// How long one connection may take to open
    #[arg(long, global = true, env = "BATON_CONNECT_TIMEOUT", value_parser = humantime::parse_duration,
          default_value = "1s", value_name = "DURATION")]
    pub connect_timeout: Duration,
    /// The name that brokers see
    #[arg(long, global = true, env = "BATON_CLIENT_ID", default_value = "baton-cli", value_name = "NAME")]
    pub client_id: String,
    /// What to log to the standard error, as for `tracing` (warn, debug, baton_client=trace); errors only, or what
    /// happens for a daemon, unless it is given
    #[arg(long, global = true, env = "BATON_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

impl Options {
    pub async fn connect(&self) -> Result<Client, Failure> {
        let config = ClientConfig {
            bootstrap: self.bootstrap.clone(),
            client_id: self.client_id.clone(),
            connect_timeout: self.connect_timeout,
            request_timeout: self.timeout,
            ..ClientConfig::default()
        };
        match Client::connect(config).await {
            Err(ClientError::Unreachable(attempts)) => Err(self.explained(attempts).await),
            connected => Ok(connected?),
        }
    }

    /// Says of those who did not answer whether they speak another protocol.
    async fn explained(&self, mut attempts: Vec<Attempt>) -> Failure {
        for attempt in &mut attempts {
            if speaks_kafka(&attempt.address, self.connect_timeout).await {
                attempt.reason =
                    "this is a port for Kafka's clients; baton needs the one of gRPC (7400 unless configured)"
                        .to_owned();
            }
        }
        Failure::Client(ClientError::Unreachable(attempts))
    }

    pub fn json(&self) -> bool {
        self.output == Output::Json
    }

    pub fn log(&self) {
        self.log_from("error");
    }

    /// A daemon says what happens to it.
    pub fn log_for_daemon(&self) {
        self.log_from("info");
    }

    /// A terminal shows what is wrong only.
    pub fn log_for_daemon_quietly(&self) {
        self.log_from("error");
    }

    /// Sends log lines to the standard error. A second call changes nothing.
    fn log_from(&self, default: &str) {
        let filter = EnvFilter::try_new(self.log.as_deref().unwrap_or(default));
        let filter = filter.unwrap_or_else(|_| EnvFilter::new(default));
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).try_init();
    }
}
