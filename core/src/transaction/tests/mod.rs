mod bench;
mod late;
mod lifecycle;
mod partitions;
mod records;
mod walk;
mod world;
