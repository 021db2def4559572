//! The recorder's reports on its own state: why it is degraded, and each layer of its sandbox.

use std::process::Command;

use super::running::{PROGRAM, Recorder, Sender, datagram, directory, eventually, have};
use crate::namespaces::{Namespace, available};
use crate::service::asking::get;

/// The reasons in `/v1/health`, each with its sentence.
fn reasons(recorder: &Recorder) -> Vec<(String, String)> {
    let health: serde_json::Value = serde_json::from_slice(&get(recorder.socket(), "/v1/health").body).unwrap();
    let reasons = health["reasons"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let reasons: Vec<_> = reasons.map(|reason| (text(&reason["code"]), text(&reason["detail"]))).collect();
    assert_eq!(health["status"], if reasons.is_empty() { "ready" } else { "degraded" });
    reasons
}

/// The lines of a metric: labels and value.
fn metric(recorder: &Recorder, name: &str) -> Vec<(String, f64)> {
    let text = get(recorder.socket(), "/metrics").text();
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let read = |line: &str| {
        let (labels, value) = line.rsplit_once(' ').unwrap();
        (labels.to_owned(), value.parse().unwrap())
    };
    lines.filter(|line| line.starts_with(['{', ' '])).map(read).collect()
}

#[test]
fn short_histories_and_full_pins_are_reported() {
    if !available("a horizon that is too short") {
        return;
    }
    let (near, far) = Namespace::pair();
    let directory = directory();
    let file = directory.path().join("retrocap.toml");
    std::fs::write(&file, "[health]\nstarts = \"6h\"\nwhole = \"1h\"\n").unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &far.name, PROGRAM, "run", "-m", "16M", "--compression-cpu", "0", "--config"]);
    let recorder = Recorder::start(
        {
            command.arg(&file);
            command
        },
        directory,
    );
    let mut sender = Sender::new(&near, "near");
    sender.send_paced(100, 10_000, |number, to| datagram(number % 7, 1000, to));
    recorder.arrived(100);
    assert!(reasons(&recorder).is_empty(), "as long as nothing had to go, it has just begun");
    assert_eq!(metric(&recorder, "retrocap_pins"), [(String::new(), 0.0)]);

    // Pin everything, and send more than the budget holds.
    assert_eq!(recorder.ask(&["pin", "--for", "1h", "udp"]).code, 0);
    sender.send_paced(30_000, 12_000, |number, to| datagram(number % 7, 1000, to));
    recorder.arrived(30_100);
    eventually("it says what is too short, and that pins are full", || {
        let reasons = reasons(&recorder);
        let said = |code: &str, words: &str| reasons.iter().any(|(it, detail)| it == code && detail.contains(words));
        said("horizon_short", "every packet reaches back")
            // All seven sessions keep their first packets.
            && !said("horizon_short", "[health] starts")
            && said("pins_full", "remove a pin")
    });
    let only = |name: &str| metric(&recorder, name)[0].1;
    let (bytes, limit) = (only("retrocap_pins_bytes"), only("retrocap_pins_limit_bytes"));
    assert!(bytes > limit / 2.0 && bytes <= limit, "{bytes} of {limit}");
    assert!(limit <= f64::from(16 << 20) / 4.0, "a quarter of the budget: {limit}");
    assert!(only("retrocap_pins") == 1.0 && only("retrocap_pins_refused_packets") > 0.0);
    assert_eq!(
        metric(&recorder, "retrocap_horizon_wanted_seconds"),
        [("{of=\"starts\"}".to_owned(), 21_600.0), ("{of=\"whole\"}".to_owned(), 3600.0)]
    );

    // The administrator sets the wanted horizon and can change it.
    std::fs::write(&file, "").unwrap();
    recorder.signal("-HUP");
    eventually("nothing is wanted any more", || !reasons(&recorder).iter().any(|(code, _)| code == "horizon_short"));
    assert!(recorder.log().contains("[health]"), "{}", recorder.log());
}

#[test]
fn each_layer_of_the_sandbox_is_reported() {
    if !available("layers of the sandbox") {
        return;
    }
    let far = Namespace::new();
    let enforced = |arguments: &[&str]| {
        let recorder = Recorder::live(&far, arguments);
        let layers = metric(&recorder, "retrocap_sandbox_enforced");
        (layers.into_iter().filter(|layer| layer.1 == 0.0).map(|layer| layer.0).collect::<Vec<_>>(), reasons(&recorder))
    };
    let (missing, why) = enforced(&["-m", "16M", "--user", "nobody"]);
    assert!(missing.is_empty() && why.is_empty(), "{missing:?} {why:?}");
    let (missing, why) = enforced(&["-m", "16M", "--user", "nobody", "--sandbox=off"]);
    let layer = |name: &str| format!("{{layer=\"{name}\"}}");
    assert_eq!(
        missing.iter().filter(|it| [layer("seccomp"), layer("landlock")].contains(it)).count(),
        2,
        "{missing:?}"
    );
    assert!(why.len() == 1 && why[0].0 == "sandbox" && why[0].1.contains("--sandbox=off"), "{why:?}");
    let (missing, why) = enforced(&["-m", "16M", "--no-drop-privileges"]);
    assert!(missing.contains(&layer("capabilities")) && missing.contains(&layer("user")), "{missing:?}");
    assert!(why.len() == 1 && why[0].1.contains("capabilities are kept"), "{why:?}");
}

/// Installs seccomp filters of this many instructions before it starts the recorder. The kernel allows 32,768 for
/// each thread.
const FILTERS_FIRST: &str = "
import ctypes, os, struct, sys
left = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('code', ctypes.c_void_p)]
while left > 4:
    # Each counts for four more than it has.
    length = min(left - 4, 4096)
    code = struct.pack('=HBBI', 0x00, 0, 0, 0) * (length - 1) + struct.pack('=HBBI', 0x06, 0, 0, 0x7fff0000)
    buffer = ctypes.create_string_buffer(code)
    program = Program(length, ctypes.cast(buffer, ctypes.c_void_p).value)
    assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, os.strerror(ctypes.get_errno())
    left -= length + 4
os.execvp(sys.argv[2], sys.argv[2:])
";

/// The kernel refuses a filter to a thread whose earlier filters are too long.
#[test]
fn threads_without_the_filter_of_their_role_are_counted_and_reported() {
    let test = "threads without the filter of their role";
    if !available(test) || !have(test, &["python3"]) {
        return;
    }
    let far = Namespace::new();
    // Search for the length that leaves room for the filters of the whole process, and hardly more.
    let (mut fits, mut too_many) = (30_000, 32_768);
    let start = |before: i32| {
        let before = before.to_string();
        Recorder::live_under(&far, &["python3", "-c", FILTERS_FIRST, &before], &["-m", "16M", "--user", "nobody"])
    };
    while too_many - fits > 16 {
        let middle = (fits + too_many) / 2;
        match start(middle).status().sandbox.unwrap().seccomp.enforced {
            true => fits = middle,
            false => too_many = middle,
        }
    }
    let recorder = start(fits);
    let sandbox = recorder.status().sandbox.unwrap();
    let unrestricted = sandbox.seccomp.unrestricted_threads;
    assert!(unrestricted >= 3, "workers, service, audit: {sandbox:?} {}", recorder.log());
    assert!(sandbox.missing.iter().any(|gap| gap.untrusted().contains("system calls of their role")), "{sandbox:?}");
    assert!(recorder.log().contains("is not restricted to it"), "{}", recorder.log());
    let count = metric(&recorder, "retrocap_sandbox_unrestricted_threads_total")[0].1;
    assert!(count >= 3.0, "{count}");
    let why = reasons(&recorder);
    assert!(why.iter().any(|(code, detail)| code == "sandbox" && detail.contains("of their role")), "{why:?}");
    let reply = recorder.ask(&["status"]);
    assert!(reply.stdout.contains("IN PART: ") && reply.stdout.contains("of their role"), "{reply:?}");
    // `--sandbox required` applies to every thread.
    let before = fits.to_string();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &far.name, "python3", "-c", FILTERS_FIRST, &before, PROGRAM, "run", "-m", "16M"]);
    let directory = directory();
    command.args(["--user", "nobody", "--sandbox", "required", "--socket"]).arg(directory.path().join("socket"));
    let output = command.arg("--audit-log").arg(directory.path().join("audit.log")).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && log.contains("cannot be restricted"), "{log}");
}
