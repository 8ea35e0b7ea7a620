//! What a build says of itself: which commit, which compiler, for what. None of it is needed to build, and git is not
//! either: the commit is read from its files, or taken from `HOLDLINE_COMMIT`, or unknown.
//!
//! Only release builds look at the repository, so that a commit does not have everything built again while one works.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=HOLDLINE_COMMIT");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let is_release = variable("PROFILE") == "release";
    let given = Some(variable("HOLDLINE_COMMIT")).filter(|commit| !commit.is_empty());
    let found = || is_release.then(|| commit(Path::new(&variable("CARGO_MANIFEST_DIR")))).flatten();
    let commit = given.or_else(found).unwrap_or_else(|| "unknown".to_owned());
    let features: Vec<String> = std::env::vars()
        .filter_map(|(name, _)| {
            name.strip_prefix("CARGO_FEATURE_").map(|feature| feature.to_lowercase().replace('_', "-"))
        })
        .filter(|feature| feature != "default")
        .collect();
    for (name, value) in [
        ("COMMIT", commit.get(..12).unwrap_or(&commit)),
        ("RUSTC", &compiler(&variable("RUSTC")).unwrap_or_else(|| "unknown".to_owned())),
        ("FEATURES", &features.join(" ")),
        ("PROFILE", if is_release { "release" } else { "debug" }),
        ("TARGET", &variable("TARGET")),
    ] {
        println!("cargo::rustc-env=BUILT_WITH_{name}={}", value.replace('\n', " "));
    }
}

/// `1.90.0` of `rustc 1.90.0 (1159e78c4 2025-09-14)`.
fn compiler(rustc: &str) -> Option<String> {
    let output = Command::new(rustc).arg("--version").output().ok()?;
    String::from_utf8(output.stdout).ok()?.split(' ').nth(1).map(str::to_owned)
}

/// The commit that the repository around this package is at. A package inside of somebody else's has none.
fn commit(package: &Path) -> Option<String> {
    let dot = package.join(".git");
    // In a second working tree it is a file that says where the rest is.
    let directory = match fs::read_to_string(&dot) {
        Ok(text) => package.join(text.strip_prefix("gitdir:")?.trim()),
        Err(_) => dot,
    };
    let common = fs::read_to_string(directory.join("commondir"));
    let common = common.map_or_else(|_| directory.clone(), |text| directory.join(text.trim()));
    let head = watched(directory.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref:").map(str::trim) else { return Some(head) };
    let packed = || {
        let packed = watched(common.join("packed-refs"))?;
        packed.lines().find_map(|line| line.strip_suffix(name)?.strip_suffix(' ').map(str::to_owned))
    };
    watched(common.join(name)).or_else(packed)
}

/// A small file without its last line break; the build runs again when it changes.
fn watched(path: PathBuf) -> Option<String> {
    let text = fs::read_to_string(&path).ok()?;
    println!("cargo::rerun-if-changed={}", path.display());
    Some(text.trim_end().to_owned())
}
