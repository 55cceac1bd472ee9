//! Compiles the `.proto` files with protox, so that no `protoc` is needed.

use std::path::PathBuf;

use prost::Message as _;

/// Messages that hold a secret get a hand-written `Debug` in `redact.rs`.
const SECRET: [&str; 11] = [
    "flotilla.v1.CreateEnvironmentRequest",
    "flotilla.v1.UpdateEnvironmentRequest",
    "flotilla.v1.RotateSdkKeyRequest",
    "flotilla.v1.EnvironmentEntry",
    "flotilla.v1.StoreEntry",
    "flotilla.v1.Assignment",
    "flotilla.v1.ProveKey",
    "flotilla.v1.CreateStoreRequest",
    "flotilla.v1.UpdateStoreRequest",
    "flotilla.v1.StoreLogin",
    "flotilla.v1.ProbeStore",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("proto");
    let files = ["audit", "environment", "event", "fleet", "data", "store", "worker"]
        .map(|name| root.join(format!("flotilla/v1/{name}.proto")));
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("flotilla.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .btree_map(".")
        .skip_debug(SECRET)
        .codec_path("crate::codec::BoundedCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
