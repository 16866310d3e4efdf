mod bench;
mod lifecycle;
mod offsets;
mod records;
mod statics;
mod walk;
