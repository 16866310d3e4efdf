//! One meaning for each of the library's errors.
//!
//! A lost connection comes back as several of them (`ConnectionLoss`, `Custom`, `Timeout`,
//! `UnexpectedError`, `ClientClosed`): all say that the outcome is unknown, and so does whatever
//! is not certain to have been refused.

use zookeeper_client as zk;

use crate::api::{MultiError, Op, RegistryError};

pub fn of_request(path: &str, error: &zk::Error) -> RegistryError {
    let path = path.to_owned();
    match error {
        zk::Error::NoNode => RegistryError::NoNode(path),
        zk::Error::NodeExists => RegistryError::NodeExists(path),
        zk::Error::BadVersion => RegistryError::BadVersion(path),
        zk::Error::NotEmpty => RegistryError::NotEmpty(path),
        zk::Error::NoChildrenForEphemerals => RegistryError::NoChildrenForEphemerals(path),
        // Queued while disconnected and never sent, or refused by the server.
        zk::Error::SessionExpired => RegistryError::SessionExpired,
        zk::Error::NoAuth | zk::Error::InvalidAcl | zk::Error::AuthFailed => {
            RegistryError::Denied(format!("{path}: {error}"))
        }
        zk::Error::QuotaExceeded | zk::Error::NotReadOnly => RegistryError::Denied(format!("{path}: {error}")),
        zk::Error::BadArguments(_) | zk::Error::Unimplemented => RegistryError::BadArgument(format!("{path}: {error}")),
        other => RegistryError::Unknown(other.to_string()),
    }
}

pub fn of_multi(ops: &[Op], error: &zk::MultiWriteError) -> MultiError {
    match error {
        zk::MultiWriteError::RequestFailed { source } => of_request("", source).into(),
        zk::MultiWriteError::OperationFailed { index, source } => {
            let path = ops.get(*index).map(path_of).unwrap_or_default();
            MultiError { index: Some(*index), error: of_request(path, source) }
        }
    }
}

pub fn path_of(op: &Op) -> &str {
    match op {
        Op::Check { path, .. } | Op::Create { path, .. } | Op::Set { path, .. } | Op::Delete { path, .. } => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_happened_is_unknown() {
        for error in [
            zk::Error::ConnectionLoss,
            zk::Error::Timeout,
            zk::Error::ClientClosed,
            zk::Error::SessionMoved,
            zk::Error::Throttled,
            zk::Error::UnexpectedError("x".to_owned()),
            zk::Error::UnexpectedErrorCode(-4),
        ] {
            assert!(of_request("/x", &error).outcome_unknown(), "{error}");
        }
        for error in [zk::Error::NoNode, zk::Error::SessionExpired, zk::Error::NoAuth] {
            assert!(!of_request("/x", &error).outcome_unknown(), "{error}");
        }
    }

    #[test]
    fn a_refused_operation_names_its_path() {
        let ops = ["/a", "/b"].map(|p| Op::Check { path: p.to_owned(), version: None });
        let error = zk::MultiWriteError::OperationFailed { index: 1, source: zk::Error::NoNode };
        let mapped = of_multi(&ops, &error);
        assert_eq!(mapped.index, Some(1));
        assert_eq!(mapped.error, RegistryError::NoNode("/b".to_owned()));
    }
}
