//! The rules of the house: which crate may use which, unsafe code in one crate alone, and a map that matches the tree.

mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The crates in the order of the packet path. A crate may use those before it.
const ORDER: [&str; 13] =
    ["sys", "base", "formats", "decode", "filter", "capture", "engine", "streams", "query", "api", "serve", "daemon", "retrocap"];

/// Crates of others that only these of ours may name.
const RESERVED: [(&str, &[&str]); 12] = [
    ("tokio", &["serve", "daemon", "retrocap"]),
    ("axum", &["serve"]),
    ("hyper", &["serve", "retrocap"]),
    ("tokio-rustls", &["serve", "daemon", "retrocap"]),
    ("clap", &["retrocap"]),
    ("anyhow", &["daemon", "retrocap"]),
    ("pcap", &["filter"]),
    ("landlock", &["daemon"]),
    ("seccompiler", &["daemon"]),
    ("libc", &["sys", "capture", "serve", "daemon", "retrocap"]),
    ("rustix", &["sys", "capture", "serve", "daemon", "retrocap"]),
    ("tempfile", &["serve", "daemon", "retrocap"]),
];

/// The one crate that contains unsafe code.
const UNSAFE: &str = "sys";

fn root() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).to_owned()
}

/// The names below `[dependencies]` in a crate's manifest, tests' dependencies left out.
fn dependencies(of: &str) -> BTreeSet<String> {
    let manifest = root().join("crates").join(of).join("Cargo.toml");
    let manifest: toml::Table = std::fs::read_to_string(&manifest).unwrap().parse().unwrap();
    let targets = manifest.get("target").and_then(|targets| targets.as_table()).into_iter().flatten();
    let tables = targets.map(|(_, table)| table.get("dependencies")).chain([manifest.get("dependencies")]);
    tables.flatten().flat_map(|table| table.as_table().unwrap().keys().cloned()).collect()
}

#[test]
fn crates_use_only_crates_before_them() {
    let there: BTreeSet<String> = std::fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected: BTreeSet<String> = ORDER.map(str::to_owned).into();
    assert_eq!(there, expected, "a crate is missing in the order above, or the order names one that is gone");
    for (place, name) in ORDER.iter().enumerate() {
        for used in dependencies(name) {
            if let Some(of_used) = ORDER.iter().position(|one| *one == used) {
                assert!(of_used < place, "{name} uses {used}, which comes after it on the packet path");
            }
            if let Some((_, may)) = RESERVED.iter().find(|(reserved, _)| *reserved == used) {
                assert!(may.contains(name), "{name} uses {used}, which only {may:?} may");
            }
        }
    }
}

#[test]
fn the_map_matches_the_tree() {
    let document = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let map = document.split("## The map").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = map.lines().filter(|line| line.starts_with("| `"));
    let named: BTreeSet<&str> =
        rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect();
    for place in &named {
        assert!(root().join(place).exists(), "the map names {place}, which is not there");
    }
    for name in ORDER {
        let folder = format!("crates/{name}/");
        assert!(named.contains(folder.as_str()), "the map lacks {folder}");
    }
}

/// A file's path as the repository knows it.
fn name(source: &source::Source) -> String {
    source.path.strip_prefix(root()).unwrap().display().to_string()
}

/// All Rust files of this project.
fn sources() -> Vec<source::Source> {
    let sources: Vec<_> =
        ["crates", "tests", "benches", "fuzz"].iter().flat_map(|folder| source::below(&root().join(folder))).collect();
    assert!(sources.len() > 200, "{} files", sources.len());
    sources
}

#[test]
fn unsafe_code_is_in_one_crate() {
    for source in sources() {
        let home = root().join("crates").join(UNSAFE);
        assert!(source.path.starts_with(&home) || !source::says_unsafe(&source), "{}", name(&source));
    }
    for name in ORDER.iter().filter(|name| **name != UNSAFE) {
        let lib = std::fs::read_to_string(root().join("crates").join(name).join("src/lib.rs")).unwrap();
        assert!(lib.contains("#![forbid(unsafe_code)]"), "{name} does not forbid unsafe code");
    }
}
