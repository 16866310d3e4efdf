//! Configuration: one documented struct per daemon, read once and validated once.
//!
//! Three sources, each above the one before it: a TOML file, `BATON_*` variables, and the
//! values given by flags. A key is written once, in [`settings!`](crate::settings): its
//! type, its default and its documentation; the loader, the reference in the README and
//! `config print` all come from there.
//!
//! | module | what it does |
//! |---|---|
//! | [`keys`] | the macro, and the table of keys that it yields |
//! | [`load`](mod@load) | file + environment + flags → a validated struct |
//! | [`check`] | what is wrong with a value; addresses |
//! | [`reference`] | the table of keys as Markdown; a configuration as TOML |
//! | [`broker`] | the broker's keys |

pub mod broker;
pub mod check;
pub mod keys;
pub mod load;
pub mod reference;

pub use broker::{
    BrokerConfig, GroupsConfig, HttpConfig, KafkaConfig, LimitsConfig, ListenerConfig, LogConfig, PeerConfig, Protocol,
    RegistryConfig, TimingConfig, TransactionsConfig,
};
pub use check::Problems;
pub use keys::{Key, Kind, Section, Setting};
pub use load::{ConfigError, Settings, Sources, load};
pub use reference::{render_reference, to_toml};
