//! The order of a client's connections: what tells a request that comes late from one that is
//! repeated.
//!
//! A client that has no answer in time gives its connection up, and asks again on a new one. TCP
//! may deliver the first request after that: a network that comes back lets pass what was sent
//! before it went, by then behind what replaced it. Kafka's protocol has no number that tells
//! the two apart. An offset would be set back by a commit from before, and a producer be fenced
//! by its own first InitProducerId; but who speaks on a connection has given up all its earlier
//! ones, for one kind of request at least.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorCode};
use crate::ids::ProducerId;

/// How many producers are remembered, so that a group that many use keeps its size.
const PRODUCERS_MAX: usize = 1_024;

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

/// The latest connection of each producer that commits offsets of a group in its transactions. One
/// member may read for several of them, each with a connection of its own, so that the member
/// tells nothing; and not every client names it.
#[derive(Clone, Debug, Default)]
pub struct ProducerConnections(BTreeMap<ProducerId, LatestConnection>);

impl ProducerConnections {
    /// As [`LatestConnection::admit`], among the requests of one producer.
    ///
    /// # Errors
    /// `CONNECTION_REPLACED`: the producer used a later connection before.
    pub fn admit(&mut self, producer: ProducerId, connection: Option<ConnectionId>) -> Result<(), Error> {
        if connection.is_none() {
            return Ok(());
        }
        if !self.0.contains_key(&producer) && self.0.len() >= PRODUCERS_MAX {
            // Connections are numbered as they are made: this one is the least likely to be used.
            let oldest = self.0.iter().min_by_key(|(_, latest)| latest.0).map(|(producer, _)| *producer);
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
        self.0.entry(producer).or_default().admit(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_do_not_replace_the_connections_of_others() {
        let mut producers = ProducerConnections::default();
        let mut at = |producer, number| producers.admit(ProducerId(producer), Some(ConnectionId(number)));
        for _ in 0..2 {
            assert_eq!(at(1, 10), Ok(()));
            assert_eq!(at(2, 11), Ok(()));
        }
        assert_eq!(at(1, 12), Ok(()));
        assert_eq!(at(1, 10).map_err(|error| error.code), Err(ErrorCode::ConnectionReplaced));
        assert_eq!(at(2, 11), Ok(()));
    }

    #[test]
    fn the_producer_with_the_oldest_connection_is_forgotten() {
        let mut producers = ProducerConnections::default();
        for n in 0..=PRODUCERS_MAX as u64 {
            assert_eq!(producers.admit(ProducerId(n as i64), Some(ConnectionId(100 + n))), Ok(()));
        }
        assert_eq!(producers.0.len(), PRODUCERS_MAX);
        assert!(!producers.0.contains_key(&ProducerId(0)));
    }

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
