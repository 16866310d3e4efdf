//! The order of a client's connections: what tells a request that comes late from one that is
//! repeated.
//!
//! A client that has no answer in time gives its connection up, and asks again on a new one. TCP
//! may deliver the first request after that: a network that comes back lets pass what was sent
//! before it went, by then behind what replaced it. Kafka's protocol has no number that tells
//! the two apart. An offset would be set back by a commit from before, and a producer be fenced
//! by its own first InitProducerId; but who speaks on a connection has given up all its earlier
//! ones, for one kind of request at least.

use crate::error::{Error, ErrorCode};

/// A connection that a broker accepted; a later one has a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The latest connection on which a client sent requests of one kind to this coordinator.
#[derive(Clone, Copy, Debug, Default)]
pub struct LatestConnection(Option<ConnectionId>);

impl LatestConnection {
    /// Takes note of a request; one without a connection is always in time.
    ///
    /// # Errors
    /// `CONNECTION_REPLACED`: a later connection was used before. A client that is still there
    /// gets through on a new one.
    pub fn admit(&mut self, connection: Option<ConnectionId>) -> Result<(), Error> {
        let Some(connection) = connection else { return Ok(()) };
        if self.0.is_some_and(|latest| connection < latest) {
            let cause = "the request came on a connection that its client has replaced by a later one";
            return Err(Error::new(ErrorCode::ConnectionReplaced, cause));
        }
        self.0 = Some(connection);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_connection_is_late_once_a_later_one_was_used() {
        let mut latest = LatestConnection::default();
        let mut at = |number: Option<u64>| latest.admit(number.map(ConnectionId)).map_err(|error| error.code);
        assert_eq!(at(Some(4)), Ok(()));
        assert_eq!(at(Some(4)), Ok(()));
        assert_eq!(at(Some(6)), Ok(()));
        assert_eq!(at(Some(5)), Err(ErrorCode::ConnectionReplaced));
        assert_eq!(at(None), Ok(()));
        assert_eq!(at(Some(6)), Ok(()));
    }
}
