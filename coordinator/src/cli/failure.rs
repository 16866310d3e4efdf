//! How a verb fails: the code, the cause, the place, whether a retry helps, and what to do.

use std::{io, process::ExitCode};

use baton_client::{ClientError, Error, ErrorCode};
use serde_json::{Value, json};

use super::options::Output;

pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a verb failed; it decides the exit code.
#[derive(Debug)]
pub enum Failure {
    /// The cluster refused, or could not be reached.
    Client(ClientError),
    /// An argument makes no sense.
    Usage(String),
    /// Some of the work was not done; what is known was printed already.
    Failed(String),
    /// The cluster answered that it is not well.
    Unhealthy(String),
    /// Whoever read the standard output has gone: nothing is left to do or to say.
    NobodyReads,
    /// Reading or writing here failed.
    Io(io::Error),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::Io(error),
        }
    }
}

impl Failure {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NobodyReads => 0,
            Self::Failed(_) | Self::Io(_) => 1,
            Self::Usage(_) => 2,
            Self::Unhealthy(_) => 10,
            Self::Client(error) => match error {
                ClientError::Invalid(_) => 2,
                error if unreachable(error) => 3,
                error => match error.code() {
                    ErrorCode::UnknownTopic | ErrorCode::UnknownPartition | ErrorCode::UnknownBroker => 4,
                    _ => 1,
                },
            },
        }
    }

    /// Tells it on the standard error and gives the exit code.
    pub fn report(&self, output: Output) -> ExitCode {
        let text = match output {
            Output::Json => self.json().map(|json| json.to_string()),
            Output::Text => self.text(),
        };
        if let Some(text) = text {
            eprintln!("{text}");
        }
        ExitCode::from(self.exit_code())
    }

    fn text(&self) -> Option<String> {
        match self {
            Self::NobodyReads => None,
            Self::Client(error) => {
                let retry = if error.retriable() { "may help" } else { "does not help" };
                let code = error.code();
                let name = code.name();
                let told = error.to_string();
                // The code is named once, wherever the error comes from.
                let told = if told.starts_with(name) { told } else { format!("{name}: {told}") };
                Some(format!("error: {told}\n  retry: {retry}\n  next:  {}", error.next_step()))
            }
            Self::Usage(what) | Self::Failed(what) | Self::Unhealthy(what) => Some(format!("error: {what}")),
            Self::Io(error) => Some(format!("error: {error}")),
        }
    }

    fn json(&self) -> Option<Value> {
        let (name, cause) = match self {
            Self::NobodyReads => return None,
            Self::Client(error) => return Some(client_json(error, self.exit_code())),
            Self::Usage(what) => ("USAGE", what.clone()),
            Self::Failed(what) => ("FAILED", what.clone()),
            Self::Unhealthy(what) => ("UNHEALTHY", what.clone()),
            Self::Io(error) => ("IO", error.to_string()),
        };
        Some(error_json(None, name, &cause, None, (false, ""), self.exit_code()))
    }
}

fn client_json(error: &ClientError, exit_code: u8) -> Value {
    let (cause, place) = match error {
        ClientError::Broker(error) | ClientError::Refused { error, .. } => (error.cause.clone(), Some(error.clone())),
        error => (error.to_string(), None),
    };
    let code = error.code();
    let advice = (error.retriable(), error.next_step());
    error_json(Some(code.number()), code.name(), &cause, place.as_ref(), advice, exit_code)
}

fn error_json(
    code: Option<u32>,
    name: &str,
    cause: &str,
    place: Option<&Error>,
    (retriable, next_step): (bool, &str),
    exit_code: u8,
) -> Value {
    json!({"error": {
        "code": code,
        "name": name,
        "cause": cause,
        "topic": place.and_then(|error| error.topic.clone()),
        "partition": place.and_then(|error| error.partition),
        "epoch": place.and_then(|error| error.epoch),
        "retriable": retriable,
        "next_step": next_step,
        "exit_code": exit_code,
    }})
}

/// Nobody answered, rather than somebody refused.
fn unreachable(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable(_) => true,
        ClientError::TimedOut { last: Some(last), .. } => unreachable(last),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(code: ErrorCode) -> Failure {
        Failure::Client(Error::new(code, "because").topic("t").partition(3).into())
    }

    #[test]
    fn exit_codes_are_those_of_the_documentation() {
        assert_eq!(broker(ErrorCode::TopicExists).exit_code(), 1);
        assert_eq!(broker(ErrorCode::UnknownTopic).exit_code(), 4);
        assert_eq!(broker(ErrorCode::UnknownPartition).exit_code(), 4);
        assert_eq!(Failure::Client(ClientError::Unreachable(Vec::new())).exit_code(), 3);
        assert_eq!(Failure::Usage(String::new()).exit_code(), 2);
        assert_eq!(Failure::Unhealthy(String::new()).exit_code(), 10);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit_code(), 0);
    }

    #[test]
    fn an_error_is_told_with_code_cause_place_retry_and_next_step() {
        let text = broker(ErrorCode::NotLeader).text().unwrap();
        for part in ["NOT_LEADER", "because", "topic t, partition 3", "retry: may help", "next:"] {
            assert!(text.contains(part), "{part} is missing: {text}");
        }
        assert_eq!(text.matches("NOT_LEADER").count(), 1, "{text}");
        let json = broker(ErrorCode::NotLeader).json().unwrap();
        assert_eq!(json["error"]["name"], "NOT_LEADER");
        assert_eq!(json["error"]["partition"], 3);
        assert_eq!(json["error"]["retriable"], true);
    }

    #[test]
    fn when_nobody_reads_nothing_is_said() {
        let failure = Failure::NobodyReads;
        assert!(failure.text().is_none() && failure.json().is_none());
    }
}
