//! The limits and times of a group coordinator.

/// Everything that an operator may set. The defaults are Kafka's where Kafka has the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// The shortest session that a member may ask for, in ms (`group.min.session.timeout.ms`).
    pub session_ms_min: u32,
    /// The longest (`group.max.session.timeout.ms`).
    pub session_ms_max: u32,
    /// How long the first rebalance of an empty group waits for more members, in ms
    /// (`group.initial.rebalance.delay.ms`).
    pub initial_delay_ms: u32,
    /// A member whose client may not know its id yet keeps its place for so long at least,
    /// in ms: the session has not begun for it.
    pub new_member_ms: u32,
    /// Offsets of a group without members are kept for so long, in ms
    /// (`offsets.retention.minutes`).
    pub offsets_retention_ms: i64,
    /// Text that a client may keep beside an offset, in bytes (`offset.metadata.max.bytes`).
    pub offset_metadata_bytes_max: usize,
    /// Members of one group (`group.max.size`).
    pub members_max: usize,
    /// Groups of one coordinator.
    pub groups_max: usize,
    /// Offsets of one group.
    pub offsets_max: usize,
    /// Changes of one coordinator that are on their way to the log.
    pub appends_max: usize,
    /// What a member may send about itself (all its protocols), and an assignment, in bytes.
    pub member_bytes_max: usize,
    /// What the record of a group may have in all, in bytes: it is one record of the log.
    pub group_bytes_max: usize,
    /// The rule that is switched off.
    #[cfg(any(test, feature = "mutations"))]
    pub mutation: Option<super::Mutation>,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            session_ms_min: 6_000,
            session_ms_max: 1_800_000,
            initial_delay_ms: 3_000,
            new_member_ms: 300_000,
            offsets_retention_ms: 7 * 24 * 3_600 * 1_000,
            offset_metadata_bytes_max: 4_096,
            members_max: 1_000,
            groups_max: 10_000,
            offsets_max: 100_000,
            appends_max: 10_000,
            member_bytes_max: 256 * 1_024,
            group_bytes_max: 8 * 1_024 * 1_024,
            #[cfg(any(test, feature = "mutations"))]
            mutation: None,
        }
    }
}
