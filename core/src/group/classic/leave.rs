//! Members go, or are sent away.

use super::{Group, Phase, fenced};
use crate::error::{Error, ErrorCode};
use crate::group::message::{Answer, Identity, RequestId};
use crate::group::out::Out;

impl Group {
    pub(in crate::group) fn leave(&mut self, request: RequestId, members: Vec<Identity>, out: &mut Out<'_>) {
        let before = self.members.len();
        let answers = members.into_iter().map(|identity| {
            let result = self.leave_one(&identity, out);
            (identity, result)
        });
        let answers = answers.collect();
        out.answer(request, Answer::Leave(answers));
        if self.members.len() < before {
            self.rebalance(out);
        } else if self.phase == Phase::Preparing {
            self.complete_join_if_all(out);
        }
    }

    fn leave_one(&mut self, identity: &Identity, out: &mut Out<'_>) -> Result<(), Error> {
        if self.promised.remove(&identity.member).is_some() {
            return Ok(());
        }
        let id = match &identity.instance {
            // An operator names a static member by its instance only.
            Some(instance) if identity.member.is_empty() => {
                self.instances.get(instance).cloned().ok_or_else(|| self.unknown(instance))?
            }
            Some(instance) if self.instances.get(instance).is_some_and(|id| *id != identity.member) => {
                return Err(fenced(instance));
            }
            _ => self.known(identity)?.id.clone(),
        };
        let cause = format!("member {id:?} has left group {}", self.name);
        self.take_out(&id, &Error::new(ErrorCode::UnknownMember, cause), out);
        Ok(())
    }
}
