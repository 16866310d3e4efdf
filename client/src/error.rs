//! What can go wrong, as an application sees it.

use std::{fmt, time::Duration};

use baton_core::{Error, ErrorCode};

/// One address that was tried, and why it did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub address: String,
    pub reason: String,
}

/// What a client operation fails with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A broker refused; the error says why and where.
    #[error(transparent)]
    Broker(#[from] Error),
    /// No address answered.
    #[error("no broker answers: {}", Attempts(.0))]
    Unreachable(Vec<Attempt>),
    /// A record was not acknowledged in time.
    #[error("not acknowledged within {waited:?} [topic {topic}, partition {partition}]{}{}", Stored(*.maybe_stored), Last(.last))]
    DeliveryTimeout {
        topic: String,
        partition: u32,
        waited: Duration,
        /// Whether a broker may have stored the record nevertheless.
        maybe_stored: bool,
        /// What the last attempt failed with.
        last: Option<Box<ClientError>>,
    },
    /// A broker refused a record for good.
    #[error("{error}{}", Stored(*.maybe_stored))]
    Refused {
        error: Error,
        /// Whether an earlier attempt may have stored the record nevertheless.
        maybe_stored: bool,
    },
    /// An operation did not finish in its time.
    #[error("{what} took longer than {after:?}{}", Last(.last))]
    TimedOut { what: String, after: Duration, last: Option<Box<ClientError>> },
    /// The record is larger than this producer takes.
    #[error("a record of {bytes} bytes is above the limit of {limit} bytes")]
    RecordTooLarge { bytes: usize, limit: usize },
    /// A setting or an argument makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A broker answered something that does not follow the protocol.
    #[error("the broker's answer does not follow the protocol: {0}")]
    Protocol(String),
    /// The producer, the consumer or the client was closed.
    #[error("it was closed")]
    Closed,
}

impl ClientError {
    /// The stable code, the same on every interface.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Broker(error) | Self::Refused { error, .. } => error.code,
            Self::Unreachable(_) => ErrorCode::Unreachable,
            Self::DeliveryTimeout { .. } | Self::TimedOut { .. } => ErrorCode::RequestTimedOut,
            Self::RecordTooLarge { .. } => ErrorCode::BatchTooLarge,
            Self::Invalid(_) | Self::Closed => ErrorCode::InvalidRequest,
            Self::Protocol(_) => ErrorCode::Internal,
        }
    }

    /// Whether the same operation may succeed later, unchanged.
    #[must_use]
    pub fn retriable(&self) -> bool {
        self.code().retriable()
    }

    /// What the caller should do next.
    #[must_use]
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Closed => "open a new one",
            _ => self.code().next_step(),
        }
    }

    /// Whether the record that failed may be in the log nevertheless.
    #[must_use]
    pub fn maybe_stored(&self) -> bool {
        matches!(self, Self::DeliveryTimeout { maybe_stored: true, .. } | Self::Refused { maybe_stored: true, .. })
    }
}

struct Attempts<'a>(&'a [Attempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Attempt { address, reason }) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {reason}")?;
        }
        Ok(())
    }
}

struct Stored(bool);

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { " (it may be stored nevertheless)" } else { " (it is not stored)" })
    }
}

struct Last<'a>(&'a Option<Box<ClientError>>);

impl fmt::Display for Last<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(error) => write!(f, "; last: {error}"),
            None => Ok(()),
        }
    }
}
