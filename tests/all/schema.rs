//! The OpenAPI document compared with the running service by schemathesis (`pip install schemathesis`).

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use crate::cli::Recorder;
use crate::generate;

/// Forwards every connection to a TCP port to a Unix socket, because schemathesis knows only TCP. The listener lives
/// as long as the test program.
fn tcp_to(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let (Ok(tcp), Ok(unix)) = (tcp, UnixStream::connect(&socket)) else { return };
            let (tcp_too, unix_too) = (tcp.try_clone().unwrap(), unix.try_clone().unwrap());
            std::thread::spawn(move || {
                carry(&tcp, &unix);
                let _ = unix.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                carry(&unix_too, &tcp_too);
                let _ = TcpStream::shutdown(&tcp_too, Shutdown::Write);
            });
        }
    });
    port
}

fn carry(mut from: impl Read, mut to: impl Write) {
    let _ = std::io::copy(&mut from, &mut to);
}

/// Every answer is one that the document describes and has the right type, there is no server error, and what the
/// document forbids is refused. The document cannot express that all it allows is accepted: keys exclude each other,
/// and an expression is a language.
#[test]
fn the_service_conforms_to_its_openapi_document() {
    if Command::new("schemathesis").arg("--version").output().is_err() {
        let why = "schemathesis is not installed (pip install schemathesis)";
        crate::machine::skipped("the OpenAPI document against the service", why);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (capture, socket) = (directory.path().join("in.pcap"), directory.path().join("r.sock"));
    std::fs::write(&capture, generate::traffic(200_000, 7)).unwrap();
    let packets = generate::read(&capture).0.len() as u64;
    let _recorder = Recorder::start(capture.to_str().unwrap(), socket.to_str().unwrap(), packets);
    let document = format!("http://127.0.0.1:{}/v1/openapi.json", tcp_to(socket));
    // A follower's answer has no end, so it cannot be checked.
    std::fs::write(directory.path().join("schemathesis.toml"), "[parameters]\n\"query.follow\" = false\n").unwrap();
    let output = Command::new("schemathesis")
        .args(["run", &document, "--no-color", "--continue-on-failure", "--max-examples", "20", "--seed", "1"])
        .args(["--exclude-checks", "positive_data_acceptance", "--phases", "examples,coverage,fuzzing"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("generated") && text.contains("passed"), "{text}");
}
