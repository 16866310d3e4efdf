//! Errors on the wire: the core's error, spelled out for clients that do not know the code.

use baton_core::{Error, ErrorCode};

use crate::v1;

impl From<&Error> for v1::Error {
    fn from(error: &Error) -> Self {
        Self {
            code: error.code.number(),
            name: error.code.name().to_owned(),
            cause: error.cause.clone(),
            topic: error.topic.clone().unwrap_or_default(),
            partition: error.partition,
            epoch: error.epoch,
            retriable: error.code.retriable(),
            next_step: error.code.next_step().to_owned(),
            leader: None,
        }
    }
}

impl From<Error> for v1::Error {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&v1::Error> for Error {
    /// A code that this version does not know is shown as internal, with its name kept.
    fn from(wire: &v1::Error) -> Self {
        let code = ErrorCode::from_number(wire.code);
        let cause = match code {
            Some(_) => wire.cause.clone(),
            None => format!("{} ({}): {}", wire.name, wire.code, wire.cause),
        };
        Self {
            code: code.unwrap_or(ErrorCode::Internal),
            cause,
            topic: (!wire.topic.is_empty()).then(|| wire.topic.clone()),
            partition: wire.partition,
            epoch: wire.epoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire() {
        let error = Error::new(ErrorCode::NotLeader, "broker 2 leads").topic("t").partition(1).epoch(4);
        assert_eq!(Error::from(&v1::Error::from(&error)), error);
    }

    #[test]
    fn an_unknown_code_keeps_its_name() {
        let wire = v1::Error { code: 9_999, name: "FROM_THE_FUTURE".into(), cause: "x".into(), ..Default::default() };
        assert!(Error::from(&wire).cause.contains("FROM_THE_FUTURE"));
    }
}
