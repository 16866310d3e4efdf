mod bench;
mod lifecycle;
mod partitions;
mod records;
mod walk;
mod world;
