//! Completions in the shells that they are for, and manual pages as `man` shows them.

use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_retrocap");

fn text(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether a shell is installed; prints when it is not.
fn have(shell: &str) -> bool {
    let there = Command::new(shell).args(["-c", "true"]).output().is_ok();
    if !there {
        crate::machine::skipped("completions", format_args!("{shell} is not installed"));
    }
    there
}

#[test]
fn bash_completes_verbs_and_flags() {
    let script = text(Command::new(PROGRAM).args(["completions", "bash"]));
    if !have("bash") {
        return;
    }
    // A file, as it is installed: one argument of a command has at most 128 KiB.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    for (words, expected) in [
        ("retrocap fl", "flows"),
        ("retrocap flows --so", "--sort --socket"),
        ("retrocap flows --by ", "host peer port"),
        ("retrocap completions ", "bash zsh fish"),
    ] {
        let last = words.split(' ').count() - 1;
        let ask = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={last}; COMPREPLY=(); \
             _retrocap retrocap \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{}]}}\"; echo \"${{COMPREPLY[*]}}\"",
            file.path().display(),
            last - 1
        );
        let answer = text(Command::new("bash").args(["--norc", "-c", &ask]));
        for word in expected.split(' ') {
            assert!(answer.split_whitespace().any(|there| there == word), "{words:?}: {answer}");
        }
    }
}

#[test]
fn zsh_and_fish_accept_their_completions() {
    for (shell, words) in [("zsh", "#compdef retrocap"), ("fish", "complete -c retrocap")] {
        let script = text(Command::new(PROGRAM).args(["completions", shell]));
        for verb in ["run", "get", "flows", "status", "pin", "replay", "interfaces"] {
            assert!(script.contains(verb) && script.contains(words), "{shell}: {verb}");
        }
        if have(shell) {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), script).unwrap();
            text(Command::new(shell).arg("-n").arg(file.path()));
        }
    }
}

#[test]
fn every_verb_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let man = directory.path().join("man/man1");
    text(Command::new(PROGRAM).arg("man").arg(&man));
    for verb in ["", "-run", "-get", "-flows", "-status", "-pin", "-replay", "-interfaces", "-completions", "-man"] {
        let page = man.join(format!("retrocap{verb}.1"));
        let source = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(source.contains("Examples:"), "{verb}");
        if Command::new("man").arg("--version").output().is_err() {
            crate::machine::skipped("manual pages, in part", "man is not installed");
            continue;
        }
        let mut command = Command::new("man");
        let shown =
            text(command.arg("-l").arg(&page).env("MANWIDTH", "100").env("MANPAGER", "cat").env("TERM", "dumb"));
        assert!(shown.contains("SYNOPSIS") && shown.contains("--socket"), "{verb}: {shown}");
        // The page has one example per line, like the help text.
        let examples = shown.lines().filter(|line| line.trim_start().starts_with("retrocap ")).count();
        assert!(
            examples + shown.matches("sudo retrocap ").count() + shown.matches("| retrocap ").count() >= 3,
            "{verb}: {shown}"
        );
    }
    let nowhere = Command::new(PROGRAM).args(["man", "/dev/null/man"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(nowhere.status.code() == Some(1) && stderr.contains("/dev/null/man"), "{stderr}");
}
