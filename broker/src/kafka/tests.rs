//! The listener as a whole.
