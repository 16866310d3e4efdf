//! Baton's replication protocol under a model checker.
//!
//! The replicas and electors are the production ones of `baton-core`; this package has only
//! what surrounds them: disks, a network, the registry, faults, and the invariants. Within
//! its bounds a run visits every order in which things can happen.
//!
//! | module | what it has |
//! |---|---|
//! | [`bounds`] | how much may happen, and what may be delayed |
//! | [`action`], [`enabled`] | what can happen next |
//! | [`step`], [`faults`] | what becomes of it |
//! | [`checks`], [`heal`] | the invariants: safety after each step, and that nothing stands still |
//! | [`state`], [`names`], [`hasher`] | states, and when two of them are the same |
//! | [`node`], [`disk`], [`network`], [`registry`], [`records`] | the surroundings |
//! | [`presets`], [`mutants`] | the runs that are made, with every rule and without each |
//! | [`explore`], [`search`], [`visited`], [`walk`] | breadth or depth first, and random walks |
#![forbid(unsafe_code)]

pub mod action;
pub mod bounds;
pub mod checks;
pub mod disk;
pub mod enabled;
pub mod explore;
pub mod faults;
pub mod hasher;
pub mod heal;
pub mod model;
pub mod mutants;
pub mod names;
pub mod network;
pub mod node;
pub mod presets;
pub mod records;
pub mod registry;
pub mod search;
pub mod shared;
pub mod state;
pub mod step;
pub mod visited;
pub mod walk;
