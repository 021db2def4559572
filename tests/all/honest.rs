//! What users type and what they must be told: one test for each kind of mistake that was reported.

use std::process::Command;

/// Exit code and error text of `retrocap` with these arguments, and a socket where nobody listens.
fn ask(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_retrocap"))
        .args(["--socket", "/nonexistent/retrocap.sock"])
        .args(arguments)
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn honest_13_13_times_as_people_type_them() {
    // A time that is understood leads on to the socket, which is not there.
    for time in [
        "10m",
        "-5m",
        "@1795341600.5",
        "@10",
        "noon",
        "yesterday noon",
        "Nov 27 06:40:01",
        "3 days ago",
        "1795341600",
        "2013-05-02 20:20:40 UTC",
        "2013/05/02 20:20:40",
        "02/May/2013:20:20:40 +0200",
        "now-5m",
        "3:30 pm",
    ] {
        for verb in ["get", "flows"] {
            let (code, error) = ask(&[verb, "--since", time]);
            assert!(code == 1 && error.contains("/nonexistent/retrocap.sock"), "{verb} --since {time}: {code} {error}");
        }
    }
    for (time, expected) in [
        ("10", "the time \"10\" has no unit: try 10s, 10m or 10h for so long ago"),
        ("-10", "the time \"10\" has no unit"),
        ("11/12/2026", "can be read in two ways"),
        ("before 3h ago", "use --until \"3h ago\""),
        ("bananas", "cannot read the time \"bananas\""),
    ] {
        let (code, error) = ask(&["get", "--since", time]);
        assert!(code == 2 && error.contains(expected), "--since {time}: {code} {error}");
    }
}
