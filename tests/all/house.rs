//! The rules of the house: which crate may use which, no cycles among files, unsafe code in one crate alone, a map that
//! matches the tree, and files and functions of a length that can be read.

mod modules;
mod source;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The crates in the order of the packet path. A crate may use those before it.
const ORDER: [&str; 23] = [
    "sys",
    "base",
    "formats",
    "decode",
    "evidence",
    "processes",
    "filter",
    "capture",
    "engine",
    "spool",
    "streams",
    "protocols",
    "hunt",
    "objects",
    "query",
    "sessionlog",
    "api",
    "page",
    "serve",
    "daemon",
    "retrocap",
    "agent",
    "archive",
];

/// Crates of others that only these of ours may name.
const RESERVED: [(&str, &[&str]); 14] = [
    ("parquet", &["sessionlog"]),
    ("object_store", &["archive"]),
    ("tokio", &["serve", "daemon", "retrocap", "agent", "archive"]),
    ("axum", &["serve"]),
    ("hyper", &["serve", "retrocap", "agent"]),
    ("tokio-rustls", &["serve", "daemon", "retrocap", "archive"]),
    ("clap", &["retrocap", "agent", "archive"]),
    ("anyhow", &["daemon", "retrocap", "agent", "archive"]),
    ("pcap", &["filter"]),
    ("landlock", &["daemon"]),
    ("seccompiler", &["daemon"]),
    ("libc", &["sys", "capture", "serve", "daemon", "retrocap"]),
    (
        "rustix",
        &["sys", "processes", "capture", "spool", "sessionlog", "serve", "daemon", "retrocap", "agent", "archive"],
    ),
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
fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn name(source: &source::Source) -> String {
    relative(&source.path)
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
        let lib = std::fs::read_to_string(crate_root(name)).unwrap();
        assert!(lib.contains("#![forbid(unsafe_code)]"), "{name} does not forbid unsafe code");
    }
}

/// The root file of a crate: of a program without a library, its main file.
fn crate_root(name: &str) -> PathBuf {
    let source = root().join("crates").join(name).join("src");
    let lib = source.join("lib.rs");
    if lib.exists() { lib } else { source.join("main.rs") }
}

/// The root files of all crates, tests and benchmarks.
fn crate_roots() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = ORDER.iter().map(|name| crate_root(name)).collect();
    for folder in ["tests", "benches"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let main = path.join("main.rs");
            if main.exists() {
                roots.push(main);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                roots.push(path);
            }
        }
    }
    roots.sort();
    roots
}

#[test]
fn no_cycle_leads_from_file_to_file() {
    let mut report = String::new();
    for file in crate_roots() {
        let uses = modules::Crate::read(&file).uses();
        for cycle in modules::cycles(&uses) {
            report += "a cycle:\n";
            for (by, of) in cycle.iter().zip(cycle.iter().cycle().skip(1)) {
                let line = uses[&(by.clone(), of.clone())];
                writeln!(report, "  {}:{line} uses {}", relative(by), relative(of)).unwrap();
            }
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn cycles_are_found_in_imports_paths_macros_and_methods() {
    for (files, expected) in [
        // An import and a path; the re-export leads to the file of the item.
        (
            &["mod a; mod b; pub use a::A;", "pub struct A; fn f() { crate::b::g() }", "use crate::A; pub fn g() {}"][..],
            1,
        ),
        // A parent that uses its child, which uses an item of the parent.
        (&["mod a; mod b; use a::f; pub struct S;", "use super::S; pub fn f() { b() }", ""], 1),
        // In a macro.
        (
            &[
                "mod a; mod b; pub struct S;",
                "pub fn f() { println!(\"{}\", crate::b::g()) }",
                "pub fn g() { super::a::f() }",
            ],
            1,
        ),
        // A method that a child adds to its parent's type.
        (&["mod a; mod b; struct S; impl S { fn f(&self) { self.g() } }", "impl super::S { fn g(&self) {} }", ""], 1),
        // A declaration, a re-export and the import of a module are no use.
        (&["mod a; mod b; pub use a::A; pub struct S;", "use super::{S, b}; pub struct A;", "pub struct B;"], 0),
        // What only tests use.
        (
            &[
                "mod a; mod b; #[cfg(test)] mod tests { use super::a::A; } pub struct S;",
                "use super::S; pub struct A;",
                "",
            ],
            0,
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in ["lib.rs", "a.rs", "b.rs"].iter().zip(files) {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let uses = modules::Crate::read(&folder.path().join("lib.rs")).uses();
        assert_eq!(modules::cycles(&uses).len(), expected, "{files:?}: {uses:?}");
    }
}

/// Lines of the longest file and of the longest function.
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 80;

#[test]
fn files_and_functions_are_short() {
    for source in sources() {
        let mut report = String::new();
        let lines = std::fs::read_to_string(&source.path).unwrap().lines().count();
        if lines > FILE_LINES_MAX {
            writeln!(report, "{}: {lines} lines", name(&source)).unwrap();
        }
        for (function, at, lines) in source::functions(&source) {
            if lines > FUNCTION_LINES_MAX {
                writeln!(report, "{}:{at}: {function} has {lines} lines", name(&source)).unwrap();
            }
        }
        assert!(report.is_empty(), "at most {FILE_LINES_MAX} and {FUNCTION_LINES_MAX} lines:\n{report}");
    }
}
