//! Starting where people run it: containers with few capabilities, user namespaces, cgroups, users that appear later.
//!
//! Each test is named after the number that it holds.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::running::{MIB, PROGRAM, Recorder, Reply, Sender, datagram, directory, eventually, have, reply};
use crate::generate;
use crate::namespaces::{Namespace, available};
use crate::service::asking::get;

/// A copy of `/etc`, for a mount namespace in which users and groups come and go.
fn etc(at: &Path) -> PathBuf {
    let copy = at.join("etc");
    std::fs::create_dir(&copy).unwrap();
    for name in ["passwd", "group", "shadow", "gshadow", "login.defs", "nsswitch.conf", "services", "protocols"] {
        if let Ok(text) = std::fs::read(Path::new("/etc").join(name)) {
            std::fs::write(copy.join(name), text).unwrap();
        }
    }
    copy
}

fn add_line(file: &Path, line: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, format!("{}\n{line}\n", text.trim_end())).unwrap();
}

/// The words that run a command with another `/etc`.
fn with_etc(etc: &Path) -> Vec<String> {
    let script = "mount --bind \"$0\" /etc && exec \"$@\"";
    ["unshare", "-m", "sh", "-c", script, etc.to_str().unwrap()].map(str::to_owned).into()
}

const ONLY_NET_RAW: [&str; 4] =
    ["setpriv", "--bounding-set=-all,+net_raw", "--inh-caps=-all,+net_raw", "--ambient-caps=-all"];

fn sandbox_reason(recorder: &Recorder) -> Option<String> {
    let health: Value = serde_json::from_slice(&get(recorder.socket(), "/v1/health").body).unwrap();
    let reasons = health["reasons"].as_array().unwrap();
    let reason = reasons.iter().find(|reason| reason["code"] == "sandbox");
    reason.map(|reason| reason["detail"].as_str().unwrap().to_owned())
}

/// `check --json` in the same surroundings: whether it is ok, and what it found about one thing.
fn check(mut command: Command, check: &str, directory: &Path) -> (bool, String, String) {
    command.args(["--json", "--config"]).arg(directory.join("check.toml"));
    let socket = directory.join("unused/socket");
    std::fs::write(directory.join("check.toml"), format!("socket = {socket:?}\nmemory = \"32M\"\n")).unwrap();
    let output = command.output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let finding = document["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == check);
    let finding = finding.unwrap_or_else(|| panic!("{document}"));
    let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    (document["ok"].as_bool().unwrap(), text("result"), format!("{} -> {}", text("found"), text("advice")))
}

#[test]
fn honest_13_09_root_with_net_raw_alone_records_and_reports_what_it_keeps() {
    if !available("CAP_NET_RAW alone") || !have("CAP_NET_RAW alone", &["setpriv", "unshare"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    let folder = directory();
    for (user, files) in [(false, true), (true, true), (false, false)] {
        let etc = etc(tempfile::tempdir_in(folder.path()).unwrap().keep().as_path());
        if !files {
            // As in an image that holds the program alone.
            std::fs::remove_file(etc.join("passwd")).unwrap();
            std::fs::remove_file(etc.join("group")).unwrap();
        }
        if user {
            add_line(&etc.join("passwd"), "retrocap:x:61234:61234::/:/usr/sbin/nologin");
            add_line(&etc.join("group"), "retrocap:x:61234:");
        }
        let mut before = with_etc(&etc);
        before.extend(ONLY_NET_RAW.map(str::to_owned));
        let words: Vec<&str> = before.iter().map(String::as_str).collect();
        let recorder = Recorder::live_under(&far, &words, &["-m", "32M", "-i", "far"]);
        let mut frame = Vec::new();
        datagram(1, 100, &mut frame);
        Sender::new(&near, "near").send(&frame);
        recorder.arrived(1);
        let sandbox = recorder.status().sandbox.unwrap();
        assert_eq!((sandbox.uid, sandbox.capabilities.untrusted().trim_start_matches('0')), (0, ""), "{sandbox:?}");
        let log = recorder.log();
        let kept = format!("{:?}", sandbox.kept_privileges);
        let target = if user { "the user retrocap" } else { "another user" };
        assert!(kept.contains(&format!("switch to {target}: that needs CAP_SETUID and CAP_SETGID")), "{kept}");
        assert!(log.contains(sandbox.kept_privileges[0].untrusted()), "{log}");
        assert!(sandbox_reason(&recorder).unwrap().contains(sandbox.kept_privileges[0].untrusted()));

        let checking = || {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &far.name]).args(&before).args([PROGRAM, "check"]);
            command
        };
        let (ok, result, text) = check(checking(), "user", folder.path());
        assert!(ok && result == "warning", "{result}: {text}");
        assert!(text.contains("CAP_SETUID and CAP_SETGID") && text.contains("-> give the container"), "{text}");
        assert!(!text.contains("useradd"), "{text}");

        if !files {
            continue;
        }
        // Somebody who asks for the user does not get another one.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &far.name]).args(&before).args([PROGRAM, "run", "-m", "32M"]);
        command.args(["--user", "nobody", "--audit", "off", "--socket"]).arg(folder.path().join("refused"));
        let refused = reply(&command.output().unwrap());
        assert!(refused.code == 1 && refused.stderr.contains("leave --user out"), "{refused:?}");
    }
}

#[test]
fn honest_13_09_a_user_namespace_records_and_reports_what_it_keeps() {
    if !available("a user namespace") || !have("a user namespace", &["unshare"]) {
        return;
    }
    if !Command::new("unshare").args(["-Urn", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a user namespace: this machine does not permit one");
        return;
    }
    for user in [true, false] {
        records_in_a_user_namespace(user);
    }
}

fn records_in_a_user_namespace(user: bool) {
    let folder = directory();
    let etc = etc(folder.path());
    if user {
        add_line(&etc.join("passwd"), "retrocap:x:61234:61234::/:/usr/sbin/nologin");
        add_line(&etc.join("group"), "retrocap:x:61234:");
    }
    // A bounded number of packets for itself, as nobody else is in its network namespace.
    let script = "ip link set lo up; (for i in 1 2 3 4 5 6 7 8; do sleep 0.5; ping -c 1 -W 1 127.0.0.1; done) >&2 & \
                  mount --bind \"$0\" /etc && exec \"$@\"";
    let inside = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-Urnm", "sh", "-c", script]).arg(&etc).arg(PROGRAM).args(words);
        command
    };
    let recorder = Recorder::start(inside(&["run", "-m", "32M"]), directory());
    eventually("packets of the namespace", || recorder.status().packets.received > 0);
    let sandbox = recorder.status().sandbox.unwrap();
    assert_eq!(sandbox.capabilities.untrusted().trim_start_matches('0'), "", "{sandbox:?}");
    let kept = format!("{:?}", sandbox.kept_privileges);
    let expected = match user {
        true => "uid 61234 or gid 61234 does not exist in this user namespace",
        false => "this user namespace has no other user",
    };
    assert!(kept.contains(expected), "{kept}");
    assert!(sandbox_reason(&recorder).unwrap().contains(sandbox.kept_privileges[0].untrusted()));
    let (ok, result, text) = check(inside(&["check"]), "user", folder.path());
    assert!(ok && result == "warning" && text.contains(expected) && text.contains("newuidmap"), "{result}: {text}");
    assert!(!text.contains("useradd"), "{text}");
}

/// A memory cgroup of either version, removed at the end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(limit_bytes: u64) -> Option<Self> {
        let name = format!("retrocap-{}-{limit_bytes}", std::process::id());
        let (v1, v2) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        let (root, file) = if v1.join("memory.limit_in_bytes").exists() {
            (v1, "memory.limit_in_bytes")
        } else if std::fs::read_to_string(v2.join("cgroup.subtree_control")).is_ok_and(|all| all.contains("memory")) {
            (v2, "memory.max")
        } else {
            eprintln!("SKIPPED: a cgroup's limit: there is no memory controller here");
            return None;
        };
        let cgroup = Self(root.join(name));
        let made = std::fs::create_dir(&cgroup.0).and_then(|()| std::fs::create_dir(cgroup.0.join("inner")));
        if let Err(error) = made.and_then(|()| std::fs::write(cgroup.0.join(file), limit_bytes.to_string())) {
            eprintln!("SKIPPED: a cgroup's limit: it cannot be made here: {error}");
            return None;
        }
        Some(cgroup)
    }

    /// A command in a cgroup below the limited one.
    fn run(&self, words: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.0.join("inner/cgroup.procs"));
        command.arg(PROGRAM).args(words);
        command
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for directory in [self.0.join("inner"), self.0.clone()] {
            // The kernel takes a moment after its last process has ended.
            for _ in 0..100 {
                if std::fs::remove_dir(&directory).is_ok() || !directory.exists() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}

#[test]
fn honest_13_10_a_cgroups_limit_is_what_a_share_is_taken_of() {
    if !available("a cgroup's limit") {
        return;
    }
    let Some(cgroup) = Cgroup::new(128 * MIB) else { return };
    let folder = directory();
    let capture = folder.path().join("in.pcap");
    std::fs::write(&capture, generate::traffic(200 << 20, 7)).unwrap();
    let replay = ["run", "--replay", capture.to_str().unwrap(), "--speed", "max"];

    // By default it takes 1 %, at least 16 MiB, and is not killed when that is full.
    let recorder = Recorder::start(cgroup.run(&replay), directory());
    assert_eq!(recorder.status().memory.budget_bytes, 16 * MIB);
    eventually("the capture is read", || recorder.log().contains("replayed to its end"));
    assert!(recorder.status().packets.evicted > 0, "the budget was full");
    // There is room for a search of contents beside it.
    let question = "/v1/hunt?text=never-there&bytes=00112233445566";
    let searched = get(recorder.socket(), question);
    assert!(searched.status == 404 && searched.text().contains("nothing matched"), "{}", searched.text());
    drop(recorder);

    // What does not fit is refused, with a number that works.
    let too_much = reply(&cgroup.run(&[&replay[..], &["-m", "120M", "--socket", "unused"]].concat()).output().unwrap());
    assert_eq!(too_much.code, 2, "{too_much:?}");
    assert!(too_much.stderr.contains("the cgroup's memory limit is 128 MiB"), "{}", too_much.stderr);
    let works = too_much.stderr.trim().rsplit("-m ").next().unwrap().to_owned();
    let mut recorder = Recorder::start(cgroup.run(&[&replay[..], &["-m", &works]].concat()), directory());
    eventually("the capture is read", || recorder.log().contains("replayed to its end"));
    assert!(recorder.status().packets.evicted > 0, "the budget was full");
    // A search of contents would get the recorder killed.
    for path in [question, "/v1/files"] {
        let refused = get(recorder.socket(), path);
        assert!(refused.status == 503 && refused.text().contains("cgroup is 128 MiB"), "{}", refused.text());
    }
    assert!(recorder.child.try_wait().unwrap().is_none(), "{}", recorder.log());

    // `check` shows both.
    let output = reply(&cgroup.run(&["check"]).output().unwrap());
    assert!(output.stdout.contains("out of the 128 MiB that the cgroup may use (the machine has"), "{}", output.stdout);
    assert!(output.stdout.contains("and the cgroup may use 128 MiB"), "{}", output.stdout);
}

#[test]
fn honest_13_12_the_audit_log_follows_its_user() {
    if !available("the owner of the audit log") {
        return;
    }
    let folder = directory();
    let capture = folder.path().join("in.pcap");
    std::fs::write(&capture, generate::traffic(100_000, 7)).unwrap();
    std::fs::set_permissions(&capture, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let log = folder.path().join("log/audit.log");
    // As at first, with a user then, and after the user is gone.
    for arguments in [&[][..], &["--user", "nobody"], &[]] {
        let mut command = Command::new(PROGRAM);
        command.args(["run", "-m", "16M", "--speed", "max", "--replay"]).arg(&capture).args(arguments);
        let socket = folder.path().join("socket");
        command.arg("--audit-log").arg(&log).arg("--socket").arg(&socket).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        eventually("it listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        let ask = Command::new(PROGRAM).args(["get", "-c", "1", "--socket"]).arg(&socket).output().unwrap();
        let status = Command::new("kill").arg(child.id().to_string()).status();
        child.wait().unwrap();
        assert!(status.unwrap().success());
        let Reply { code, stderr, .. } = reply(&ask);
        assert_eq!(code, 0, "{arguments:?}: {stderr}");
    }
    let lines = std::fs::read_to_string(&log).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains("\"end\"")).count(), 3, "{lines}");
}

#[test]
fn honest_13_13_what_does_not_fit_or_is_no_socket_is_refused() {
    let folder = directory();
    let (file, config) = (folder.path().join("file"), folder.path().join("retrocap.toml"));
    std::fs::write(&file, "precious").unwrap();
    std::fs::write(&config, "[[class]]\nname = \"plc\"\nfilter = \"port 502\"\nreserve = \"20M\"\n").unwrap();
    let run = |words: &[&str]| {
        let common = ["run", "--replay", "/dev/null", "--audit", "off", "--no-drop-privileges"];
        reply(&Command::new(PROGRAM).args(common).args(words).stdin(Stdio::null()).output().unwrap())
    };
    let refused = run(&["-m", "16M", "--socket", file.to_str().unwrap()]);
    assert!(refused.code == 1 && refused.stderr.contains("is not a socket, so it was left untouched"), "{refused:?}");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    assert!(!folder.path().join("file.lock").exists(), "nothing is left beside it");
    for path in [file.as_path(), folder.path()] {
        let status = reply(&Command::new(PROGRAM).args(["status", "--socket"]).arg(path).output().unwrap());
        assert!(status.code == 2 && status.stderr.contains("is not a socket"), "{status:?}");
    }
    let socket = folder.path().join("socket");
    let refused = run(&["-m", "16M", "--config", config.to_str().unwrap(), "--socket", socket.to_str().unwrap()]);
    assert!(refused.code == 2 && refused.stderr.contains("too small for the classes"), "{refused:?}");
    let refused = run(&["-m", "5M", "--socket", socket.to_str().unwrap()]);
    assert!(refused.code == 2 && refused.stderr.contains("try -m 16M"), "{refused:?}");
    assert!(!socket.exists());
}

/// The advice for somebody who is refused, followed word by word.
#[test]
fn honest_13_16_the_advice_about_the_group_works() {
    let tools = ["setpriv", "unshare", "groupadd", "usermod"];
    let there = |tool: &&str| Command::new(tool).arg("--help").output().is_ok();
    if !available("the group") {
        return;
    }
    if let Some(tool) = tools.iter().find(|tool| !there(tool)) {
        eprintln!("SKIPPED: the advice about the group: there is no {tool} here");
        return;
    }
    let folder = directory();
    let etc = etc(folder.path());
    // Without the group, and with a user who may not read yet.
    let groups = std::fs::read_to_string(etc.join("group")).unwrap();
    let groups: String =
        groups.lines().filter(|line| !line.starts_with("retrocap:")).map(|line| format!("{line}\n")).collect();
    std::fs::write(etc.join("group"), groups).unwrap();
    add_line(&etc.join("passwd"), "analyst:x:61235:61235::/:/bin/sh");
    add_line(&etc.join("group"), "analyst:x:61235:");
    let inside = |words: &[&str]| {
        let before = with_etc(&etc);
        let mut command = Command::new(&before[0]);
        command.args(&before[1..]).args(words);
        command
    };
    let start = || {
        let words = [PROGRAM, "run", "-m", "16M", "--replay", "/dev/null"];
        Recorder::start(inside(&words), directory())
    };
    // The test's program may be in a folder of root's.
    let program = folder.path().join("retrocap");
    std::fs::copy(PROGRAM, &program).unwrap();
    let ask = |recorder: &Recorder| {
        let socket = recorder.socket();
        let words = ["setpriv", "--reuid=analyst", "--regid=analyst", "--init-groups", program.to_str().unwrap()];
        reply(&inside(&[&words[..], &["status", "--socket", socket.to_str().unwrap()]].concat()).output().unwrap())
    };
    let recorder = start();
    let refused = ask(&recorder);
    assert!(refused.code == 1 && refused.stderr.contains("restart the recorder, and log in again"), "{refused:?}");
    let advice = refused.stderr.split('`').nth(1).unwrap().replace("sudo ", "");
    let done = inside(&["env", "USER=analyst", "sh", "-c", &advice]).output().unwrap();
    assert!(done.status.success(), "{advice}: {}", String::from_utf8_lossy(&done.stderr));
    drop(recorder);
    let recorder = start();
    let answer = ask(&recorder);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
}
