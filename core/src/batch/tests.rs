//! What holds for batches as a whole; each file names what it attacks.

mod codec;
mod damage;
mod rules;
mod stamping;
