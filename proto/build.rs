//! Generates the gRPC code without `protoc`: protox compiles the descriptions in Rust.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["common", "client", "admin", "groups", "peer"].map(|name| format!("baton/v1/{name}.proto"));
    let descriptors = protox::compile(&files, ["proto"])?;
    tonic_prost_build::configure().bytes(".").out_dir(PathBuf::from(env::var("OUT_DIR")?)).compile_fds(descriptors)?;
    Ok(())
}
