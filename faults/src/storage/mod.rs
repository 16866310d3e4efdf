//! Rounds that hurt the storage of real brokers: power cuts of all of them at once, and damage
//! at rest. Each round is a line of a ledger, as in a campaign.
//!
//! | module | what |
//! |---|---|
//! | [`site`] | three brokers, load, and what was promised |
//! | [`ballast`] | records that stay: what is damaged has to be worth something |
//! | [`power`] | the power of all brokers is cut at once, under load |
//! | [`rot`] | a bit or a block goes bad while a broker is stopped |

pub mod ballast;
pub mod power;
pub mod rot;
pub mod site;

use std::time::Duration;

/// The generous deadline within which everything has to come back by itself.
pub const COME_BACK: Duration = Duration::from_secs(60);
