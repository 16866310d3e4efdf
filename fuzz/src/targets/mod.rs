//! One function for each target.

pub mod batch;
pub mod disk;
pub mod kafka;
pub mod recovery;
pub mod text;
pub mod wire;
pub mod znodes;
