//! What coordinators of groups and of transactions share: each is a pure state machine whose
//! records live in one partition of an internal topic, and which this broker hosts while it
//! leads that partition.
//!
//! | module | what it does |
//! |---|---|
//! | [`append`] | puts records into the partition; tells the machine of outcomes in order |
//! | [`creation`] | makes an internal topic when it is first needed |
//! | [`time`] | the coordinators' clock |
//! | [`replay`] | builds the machine anew out of what earlier coordinators left |

pub(crate) mod append;
pub(crate) mod creation;
pub(crate) mod replay;
pub(crate) mod time;

use baton_core::Epoch;
use baton_core::replica::RoleView;

use crate::shard::PartitionStatus;

/// Whether a coordinator may serve here, in this leader epoch. A leader that hands over takes
/// nothing any more.
pub(crate) fn serves(status: &PartitionStatus, epoch: Epoch) -> bool {
    status.role == RoleView::Leader { resigning: false } && status.epoch == epoch
}
