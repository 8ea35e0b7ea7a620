//! The code and the descriptors under `src/codec/grpc/generated` are what the files under `proto` make, so that a build needs
//! no compiler for them. `HOLDLINE_GENERATE=1 cargo test --test proto` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;

/// What is generated: the package of the file that prost makes, and the name that it has here. The two versions of reflection
/// differ in their package alone, so one set of types does for both.
const MODULES: [(&str, &str); 3] =
    [("holdline.v1", "edge.rs"), ("grpc.health.v1", "health.rs"), ("grpc.reflection.v1", "reflection.rs")];

const FILES: [&str; 4] = [
    "holdline/v1/edge.proto",
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Writes or compares.
fn settle(name: &str, made: &[u8]) {
    let path = root().join("src/codec/grpc/generated").join(name);
    if std::env::var_os("HOLDLINE_GENERATE").is_some() {
        fs::write(&path, made).unwrap();
    }
    let there = fs::read(&path).unwrap();
    assert!(there == made, "{name} is not what proto/ makes: HOLDLINE_GENERATE=1 cargo test --test proto");
}

#[test]
fn what_is_generated_is_what_the_files_make() {
    let mut descriptors = protox::compile(FILES, [root().join("proto")]).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("proto");
    fs::create_dir_all(&folder).unwrap();
    prost_build::Config::new().out_dir(&folder).compile_fds(descriptors.clone()).unwrap();
    for (package, name) in MODULES {
        settle(name, &fs::read(folder.join(format!("{package}.rs"))).unwrap());
    }
    // Comments and places in the text are of no use to those who ask for descriptors.
    descriptors.file.iter_mut().for_each(|file| file.source_code_info = None);
    settle("descriptors.bin", &descriptors.encode_to_vec());
}
