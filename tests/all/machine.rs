//! What this machine offers the tests, and what they must skip without it.

use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

/// Prints that a test, or a part of one, is skipped. The line goes past the test harness, which hides what passing tests
/// print.
pub(crate) fn skipped(what: &str, why: impl Display) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}: {why}");
}

/// Whether a program is installed; prints when it is not.
pub(crate) fn have(what: &str, program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        skipped(what, format_args!("{program} is not installed"));
    }
    there
}

fn captures_folder() -> PathBuf {
    std::env::var_os("RETROCAP_CAPTURES").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("../shared/captures"),
        PathBuf::from,
    )
}

/// Every capture of the shared folder, in the order of their names; empty, with a message, when there is none.
pub(crate) fn captures(what: &str) -> Vec<PathBuf> {
    let folder = captures_folder();
    let entries = std::fs::read_dir(&folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcap" || extension == "pcapng"))
        .collect();
    files.sort();
    if files.is_empty() {
        skipped(
            what,
            format_args!("there are no captures in {}; set RETROCAP_CAPTURES to a folder of some", folder.display()),
        );
    }
    files
}

/// One capture of the shared folder; `None`, with a message, when it is not there.
pub(crate) fn capture(what: &str, name: &str) -> Option<PathBuf> {
    let path = captures_folder().join(name);
    let there = path.is_file();
    if !there {
        skipped(what, format_args!("there is no {}; set RETROCAP_CAPTURES to the folder that has it", path.display()));
    }
    there.then_some(path)
}
