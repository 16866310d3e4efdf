//! The limits and times of a transaction coordinator.

/// Everything that an operator may set. The defaults are Kafka's where Kafka has the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionSettings {
    /// The longest time-out that a producer may ask for, in ms (`transaction.max.timeout.ms`).
    pub timeout_ms_max: u32,
    /// A transactional id that nobody used for so long is forgotten, in ms
    /// (`transactional.id.expiration.ms`).
    pub id_expiration_ms: i64,
    /// After so long, in ms, a marker that is not confirmed is asked for again, and so is a
    /// record that the log refused.
    pub retry_ms: i64,
    /// Transactional ids of one coordinator.
    pub ids_max: usize,
    /// The longest transactional id, in bytes.
    pub id_bytes_max: usize,
    /// Partitions of one transaction: all of them are in one record.
    pub partitions_max: usize,
    /// Requests of one transaction that wait for an append to be done.
    pub waiting_max: usize,
    /// Records of one coordinator that are on their way to the log.
    pub appends_max: usize,
    /// More producer ids are asked for when fewer than these are left.
    pub producer_ids_min: usize,
    /// The rule that is switched off.
    #[cfg(any(test, feature = "mutations"))]
    pub mutation: Option<super::Mutation>,
}

impl Default for TransactionSettings {
    fn default() -> Self {
        Self {
            timeout_ms_max: 15 * 60 * 1_000,
            id_expiration_ms: 7 * 24 * 3_600 * 1_000,
            retry_ms: 500,
            ids_max: 10_000,
            id_bytes_max: 1_024,
            partitions_max: 10_000,
            waiting_max: 1_000,
            appends_max: 10_000,
            producer_ids_min: 10,
            #[cfg(any(test, feature = "mutations"))]
            mutation: None,
        }
    }
}
