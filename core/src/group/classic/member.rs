//! One member of a group.

use bytes::Bytes;

use crate::connection::LatestConnection;
use crate::group::message::{Join, Protocol, RequestId};
use crate::group::record::MemberMetadata;

#[derive(Clone, Debug)]
pub struct Member {
    pub id: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_ms: u32,
    pub rebalance_ms: u32,
    pub protocols: Vec<Protocol>,
    /// What the leader gave it; opaque.
    pub assignment: Bytes,
    /// Waits for the generation to begin.
    pub join: Option<RequestId>,
    /// Waits for its part.
    pub sync: Option<RequestId>,
    /// When it is taken for dead unless it is heard of before, or waits for an answer.
    pub deadline_ms: i64,
    /// Has not had an answer to its first join: it may be gone, and nobody would know.
    pub is_new: bool,
    /// Where it commits offsets.
    pub commits_on: LatestConnection,
}

impl Member {
    pub fn new(id: String, join: &Join) -> Self {
        Self {
            id,
            instance: join.identity.instance.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            session_ms: join.session_ms,
            rebalance_ms: join.rebalance_ms,
            protocols: join.protocols.clone(),
            assignment: Bytes::new(),
            join: None,
            sync: None,
            deadline_ms: 0,
            is_new: true,
            commits_on: LatestConnection::default(),
        }
    }

    /// A member of a generation that another coordinator began. Its session begins anew: that
    /// it was not heard of meanwhile is not its fault.
    pub fn restored(metadata: &MemberMetadata, now_ms: i64) -> Self {
        Self {
            id: metadata.id.clone(),
            instance: metadata.instance.clone(),
            client_id: metadata.client_id.clone(),
            client_host: metadata.client_host.clone(),
            session_ms: metadata.session_ms,
            rebalance_ms: metadata.rebalance_ms,
            protocols: metadata.protocols.clone(),
            assignment: metadata.assignment.clone(),
            join: None,
            sync: None,
            deadline_ms: now_ms + i64::from(metadata.session_ms),
            is_new: false,
            commits_on: LatestConnection::default(),
        }
    }

    pub fn metadata(&self) -> MemberMetadata {
        MemberMetadata {
            id: self.id.clone(),
            instance: self.instance.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            session_ms: self.session_ms,
            rebalance_ms: self.rebalance_ms,
            assignment: self.assignment.clone(),
            protocols: self.protocols.clone(),
        }
    }

    /// Takes over what a repeated join says.
    pub fn update(&mut self, join: &Join) {
        self.client_id.clone_from(&join.client_id);
        self.client_host.clone_from(&join.client_host);
        self.session_ms = join.session_ms;
        self.rebalance_ms = join.rebalance_ms;
        self.protocols.clone_from(&join.protocols);
    }

    /// It was heard of.
    pub fn touch(&mut self, now_ms: i64) {
        self.deadline_ms = now_ms + i64::from(self.session_ms);
    }

    /// When it has to be heard of; none while it waits for us.
    pub fn deadline(&self) -> Option<i64> {
        let waits = self.join.is_some() || self.sync.is_some();
        (self.is_new || !waits).then_some(self.deadline_ms)
    }

    pub fn knows(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|known| known.name == protocol)
    }

    /// What it said about itself for a protocol.
    pub fn metadata_for(&self, protocol: &str) -> Bytes {
        let known = self.protocols.iter().find(|known| known.name == protocol);
        known.map(|known| known.metadata.clone()).unwrap_or_default()
    }

    /// Its own choice among the candidates: the one that it named first.
    pub fn vote<'a>(&self, candidates: &[&'a str]) -> Option<&'a str> {
        let first = self.protocols.iter().find(|known| candidates.contains(&known.name.as_str()))?;
        candidates.iter().copied().find(|candidate| *candidate == first.name)
    }

    /// About what its record will have, in bytes.
    pub fn weight(&self) -> usize {
        let protocols: usize = self.protocols.iter().map(|p| p.name.len() + p.metadata.len() + 8).sum();
        let instance = self.instance.as_ref().map_or(0, String::len);
        self.id.len()
            + instance
            + self.client_id.len()
            + self.client_host.len()
            + self.assignment.len()
            + protocols
            + 64
    }
}
