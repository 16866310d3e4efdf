//! A member says that it is alive.

use super::{Group, Phase};
use crate::error::Error;
use crate::group::message::Identity;

impl Group {
    /// # Errors
    /// What the member has to do: join again, or as a new member, or stop.
    pub(in crate::group) fn heartbeat(
        &mut self,
        identity: &Identity,
        generation: i32,
        now_ms: i64,
    ) -> Result<(), Error> {
        self.known(identity)?;
        if generation != self.generation {
            return Err(self.wrong_generation(generation));
        }
        self.touch(&identity.member, now_ms);
        match self.phase {
            Phase::Completing | Phase::Stable => Ok(()),
            Phase::Empty | Phase::Preparing | Phase::Announcing => Err(self.rebalancing()),
        }
    }

    /// A member was heard of.
    pub(in crate::group) fn touch(&mut self, id: &str, now_ms: i64) {
        if let Some(member) = self.members.get_mut(id) {
            member.touch(now_ms);
        }
    }
}
