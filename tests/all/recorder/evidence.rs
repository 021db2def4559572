//! Evidence from end to end: what an export states, what a seal proves, and the chain of the audit log.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::running::{PROGRAM, Recorder, directory, eventually, have, reply};
use crate::generate;

const PACKETS: u64 = 400;

/// A recorder with a key, and a folder with the key of ann, who reads.
struct Case {
    recorder: Recorder,
    folder: TempDir,
}

impl Case {
    fn new(arguments: &[&str]) -> Self {
        let (folder, of_recorder) = (directory(), directory());
        key(folder.path(), "ann");
        key(of_recorder.path(), "recorder");
        let line = |name: &str, folder: &Path| {
            let public = std::fs::read_to_string(folder.join(format!("{name}.pub"))).unwrap();
            format!("{name}@example.org {public}")
        };
        let signers = line("ann", folder.path()) + &line("recorder", of_recorder.path());
        std::fs::write(folder.path().join("allowed_signers"), signers).unwrap();
        let capture = of_recorder.path().join("capture.pcap");
        let mut bytes = generate::header();
        for number in 0..PACKETS {
            generate::packet(&mut bytes, number * 1000, u32::try_from(number % 5).unwrap(), true, 100);
        }
        std::fs::write(&capture, bytes).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["run", "-m", "40M", "--speed", "max", "--evidence-key"]).arg(of_recorder.path().join("recorder"));
        command.args(arguments).arg("--replay").arg(capture);
        let recorder = Recorder::start(command, of_recorder);
        recorder.arrived(PACKETS);
        Self { recorder, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Exports everything, sealed with ann's key.
    fn export(&self) {
        let (file, key) = (self.text("case.pcapng"), self.text("ann"));
        let reply = self.recorder.ask(&["get", "-w", &file, "--seal", &key]);
        assert_eq!(reply.code, 0, "{reply:?}");
    }

    fn evidence(&self, arguments: &[&str]) -> super::running::Reply {
        let mut command = Command::new(PROGRAM);
        reply(&command.arg("evidence").args(arguments).current_dir(self.folder.path()).output().unwrap())
    }

    fn verify(&self) -> super::running::Reply {
        self.evidence(&["verify", "case.pcapng.evidence.json", "--signers", "allowed_signers"])
    }
}

fn key(folder: &Path, name: &str) {
    let arguments = ["-q", "-t", "ed25519", "-N", "", "-f", name];
    assert!(Command::new("ssh-keygen").args(arguments).current_dir(folder).status().unwrap().success());
}

#[test]
fn an_export_states_what_it_is_and_its_seal_finds_every_change() {
    if !have("evidence", &["ssh-keygen", "capinfos"]) {
        return;
    }
    let case = Case::new(&[]);
    case.export();
    let holds = case.verify();
    assert!(holds.code == 0 && holds.stdout.contains("everything that can be checked holds"), "{holds:?}");
    for says in ["that key belongs to ann@example.org", "that key belongs to recorder@example.org", "400 packets in 5"]
    {
        assert!(holds.stdout.contains(says), "{says}: {holds:?}");
    }
    assert!(holds.stdout.contains("cannot be known: when the manifest was made"), "{holds:?}");

    let manifest: Value =
        serde_json::from_slice(&std::fs::read(case.path("case.pcapng.evidence.json")).unwrap()).unwrap();
    let statement = &manifest["files"][0]["statements"][0];
    assert_eq!(statement["window"]["packets"], PACKETS);
    assert_eq!(statement["window"]["first"], "2026-11-22T10:00:00.000000000Z");
    assert_eq!(statement["reader"]["who"]["uid"], rustix::process::getuid().as_raw());
    assert_eq!(statement["question"]["words"], "everything");
    assert!(statement["question"]["audit_id"].as_str().is_some_and(|id| !id.is_empty()), "{statement}");
    assert!(statement["clock"]["at_export"]["synchronised"].is_boolean(), "{statement}");
    assert_eq!(statement["recorder"]["live"], false);
    assert!(statement["recorder"]["key"].as_str().unwrap().starts_with("SHA256:"));
    let comments = Command::new("capinfos").arg(case.path("case.pcapng")).output().unwrap();
    let comments = String::from_utf8_lossy(&comments.stdout).into_owned();
    assert!(comments.contains("Packet size limit") && !comments.contains("appears to"), "{comments}");

    for name in
        ["case.pcapng", "case.pcapng.evidence.json", "case.pcapng.recorder.json", "case.pcapng.evidence.json.sig"]
    {
        let whole = std::fs::read(case.path(name)).unwrap();
        for at in [0, whole.len() / 3, whole.len() / 2, whole.len() - 3] {
            let mut changed = whole.clone();
            changed[at] ^= 4;
            std::fs::write(case.path(name), &changed).unwrap();
            let found = case.verify();
            assert!(matches!(found.code, 1 | 2), "{name} at {at}: {found:?}");
        }
        std::fs::write(case.path(name), &whole).unwrap();
    }
    assert_eq!(case.verify().code, 0);
    std::fs::remove_file(case.path("case.pcapng.recorder.json.sig")).unwrap();
    assert_eq!(case.verify().code, 1);
    assert_eq!(case.evidence(&["verify", "nothing.json"]).code, 2);
    assert_eq!(case.evidence(&["verify", "allowed_signers"]).code, 2);
}

#[test]
fn one_session_is_handed_over_with_its_proof_alone() {
    if !have("evidence", &["ssh-keygen"]) {
        return;
    }
    let case = Case::new(&[]);
    case.export();
    let flows = case.recorder.ask(&["flows", "--json"]);
    let flow: Value = serde_json::from_str(flows.stdout.lines().next().unwrap()).unwrap();
    let end = |side: &str| format!("{}:{}", flow[side]["ip"].as_str().unwrap(), flow[side]["port"]);
    let session = format!("{} {} {}", end("originator"), end("responder"), flow["proto"].as_str().unwrap());
    let taken = case.evidence(&["session", "case.pcapng", "--flow", &session, "-w", "one.pcapng"]);
    assert_eq!(taken.code, 0, "{taken:?}");
    assert_eq!(generate::read(&case.path("one.pcapng")).0.len() as u64, PACKETS / 5);
    std::fs::remove_file(case.path("case.pcapng")).unwrap();
    let verify = || case.evidence(&["verify", "case.pcapng.evidence.json", "--session", "one.pcapng"]);
    let holds = verify();
    assert!(holds.code == 0 && holds.stdout.contains("one.pcapng is the whole session"), "{holds:?}");
    let mut changed = std::fs::read(case.path("one.pcapng")).unwrap();
    let payload = changed.len() / 2;
    changed[payload] ^= 1;
    std::fs::write(case.path("one.pcapng"), changed).unwrap();
    assert_eq!(verify().code, 1);
}

/// The commands of `docs/evidence.md`, on files that this program sealed.
#[test]
fn the_documented_recipe_checks_a_seal_without_this_program() {
    if !have("evidence", &["ssh-keygen", "openssl", "sha256sum", "awk"]) {
        return;
    }
    let case = Case::new(&[]);
    let (file, output, key) = (case.text("case.pcapng"), case.text("case.json"), case.text("ann"));
    assert_eq!(case.recorder.ask(&["get", "-w", &file]).code, 0);
    let sealed = case.evidence(&["seal", &file, "-o", &output, "--key", &key, "--time-stamp-request"]);
    assert_eq!(sealed.code, 0, "{sealed:?}");
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        reply(&command.args(["-euc", script]).current_dir(case.folder.path()).output().unwrap())
    };
    let stamped = shell(AUTHORITY);
    assert_eq!(stamped.code, 0, "{stamped:?}");
    case.recorder.signal("-TERM");
    eventually("the log is signed", || {
        std::fs::read_to_string(case.recorder.path("audit.log")).is_ok_and(|log| log.contains("\"event\":\"head\""))
    });
    std::fs::copy(case.recorder.path("audit.log"), case.path("audit.log")).unwrap();

    let page = include_str!("../../../docs/evidence.md");
    let recipes: Vec<_> =
        page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect();
    assert_eq!(recipes.len(), 2);
    for recipe in &recipes {
        let checked = shell(recipe);
        assert_eq!(checked.code, 0, "{recipe}\n{checked:?}");
    }
    let program = case.evidence(&["verify", "case.json", "--signers", "allowed_signers", "--tsa-ca", "tsa-ca.pem"]);
    assert!(program.code == 0 && program.stdout.contains("by the time stamp of CN=Test authority"), "{program:?}");

    let mut changed = std::fs::read(case.path("case.pcapng")).unwrap();
    let last = changed.len() - 1;
    changed[last / 2] ^= 1;
    std::fs::write(case.path("case.pcapng"), changed).unwrap();
    assert_ne!(shell(&recipes[0]).code, 0, "sha256sum finds it too");
    let log = std::fs::read_to_string(case.path("audit.log")).unwrap();
    std::fs::write(case.path("audit.log"), log.replacen("\"uid\"", "\"UID\"", 1)).unwrap();
    assert_ne!(shell(&recipes[1]).code, 0);
}

/// A time-stamp authority made with openssl, which stamps the manifest.
const AUTHORITY: &str = r"
printf '[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\n[stamp]\nextendedKeyUsage=critical,timeStamping\n[tsa]\ndefault_tsa=t\n[t]\nserial=serial\nsigner_digest=sha256\ndefault_policy=1.2.3.4\ndigests=sha256\ness_cert_id_alg=sha256\n' > ts.cnf
echo 01 > serial
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out tsa-ca.pem -subj '/CN=Test root' -days 9 -config ts.cnf -extensions ca
openssl req -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.csr -subj '/CN=Test authority' -config ts.cnf
openssl x509 -req -in tsa.csr -CA tsa-ca.pem -CAkey ca.key -CAcreateserial -out tsa.pem -days 9 -extfile ts.cnf -extensions stamp
openssl ts -reply -config ts.cnf -queryfile case.json.tsq -signer tsa.pem -inkey tsa.key -out case.json.tsr
";

#[test]
fn the_chain_of_the_audit_log_spans_restarts_and_rotation_and_finds_every_removed_line() {
    if !have("evidence", &["ssh-keygen"]) {
        return;
    }
    let case = Case::new(&["--audit-log-size", "4K", "--audit-log-keep", "30"]);
    for _ in 0..12 {
        assert_eq!(case.recorder.ask(&["flows"]).code, 0);
    }
    let log = case.recorder.path("audit.log");
    let audit = |log: &Path| case.evidence(&["audit", log.to_str().unwrap(), "--signers", "allowed_signers"]);
    let unsigned = audit(&log);
    assert!(unsigned.code == 1 && unsigned.stdout.contains("no head of the log is signed"), "{unsigned:?}");
    case.recorder.signal("-TERM");
    let signed = || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("\"event\":\"head\""));
    eventually("the head is signed when the recorder stops", signed);
    let holds = audit(&log);
    assert!(holds.code == 0 && holds.stdout.contains("no line of "), "{holds:?}");
    assert!(holds.stdout.contains("recorder@example.org"), "{holds:?}");

    // All files of the log as one, from which one line after the other is missing.
    let mut files: Vec<_> = (1..30).map(|number| log.with_extension(format!("log.{number}"))).collect();
    files.retain(|file| file.exists());
    assert!(files.len() >= 2, "it was rotated");
    files.reverse();
    files.push(log);
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.len() > 20);
    let copy = case.path("copy.log");
    for missing in 1..lines.len() - 1 {
        let rest: Vec<_> = lines.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, line)| *line).collect();
        std::fs::write(&copy, rest.join("\n") + "\n").unwrap();
        let found = audit(&copy);
        assert!(found.code == 1 && found.stdout.contains("REMOVED"), "{missing}: {found:?}");
    }
}

/// A later export is what was recorded at that time: the root of its minute was in the log before.
#[test]
fn an_export_is_proven_to_be_what_was_sealed_minute_by_minute() {
    if !have("evidence", &["ssh-keygen"]) {
        return;
    }
    let case = Case::new(&[]);
    let log = case.recorder.path("audit.log.record");
    assert!(!std::fs::read_to_string(&log).unwrap().contains("\"sealed\""), "no minute is over");
    case.export();
    let sealed = std::fs::read_to_string(&log).unwrap();
    let minute = sealed.lines().find(|line| line.contains("\"sealed\"")).unwrap();
    let minute: Value = serde_json::from_str(minute).unwrap();
    assert_eq!((&minute["event"], &minute["packets"]), (&"sealed".into(), &PACKETS.into()));
    assert!(case.recorder.log().contains(minute["root"].as_str().unwrap()), "the head is in the log of the service");
    let verify = |log: &str| case.evidence(&["verify", "case.pcapng.evidence.json", "--record-log", log]);
    let holds = verify(log.to_str().unwrap());
    let says = format!("{PACKETS} of {PACKETS} packets of case.pcapng were recorded when the recorder sealed them");
    assert!(holds.code == 0 && holds.stdout.contains(&says), "{holds:?}");

    // A packet that was never recorded is put into the export, and everything is sealed again.
    let mut packets = std::fs::read(case.path("case.pcapng")).unwrap();
    let payload = packets.len() / 3;
    packets[payload] ^= 1;
    std::fs::write(case.path("case.pcapng"), &packets).unwrap();
    let (file, output) = (case.text("case.pcapng"), case.text("case.pcapng.evidence.json"));
    assert_eq!(case.evidence(&["seal", &file, "-o", &output, "--key", "ann"]).code, 0);
    let found = verify(log.to_str().unwrap());
    let rest = format!("{} of {PACKETS} packets", PACKETS - 1);
    assert!(found.stdout.contains(&rest) && found.stdout.contains("no sealed minute"), "{found:?}");
    // The log of another record proves nothing, and a log that was changed is refused.
    std::fs::write(case.path("other.record"), sealed.replacen("sealed", "sealeD", 1)).unwrap();
    assert_ne!(verify("other.record").code, 0);
}

/// A stop in order has sealed every packet and every file, and says so last.
fn everything_is_sealed(record: &Path, spool: &Path) {
    let log = std::fs::read_to_string(record).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    let sealed: u64 = of("sealed").iter().map(|line| line["packets"].as_u64().unwrap()).sum();
    assert_eq!(sealed, PACKETS, "{log}");
    let stopped = of("stopped");
    assert_eq!(
        (stopped.len(), &stopped[0]["unsealed"], &stopped[0]["unsealed_files"]),
        (1, &0.into(), &0.into()),
        "{log}"
    );
    let last: Vec<_> = lines.iter().rev().take(2).map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(last, ["head", "stopped"], "{log}");
    let names = std::fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let complete: Vec<_> = names.filter(|name| name.ends_with(".pcapng")).collect();
    assert!(!complete.is_empty() && complete.iter().all(|name| log.contains(name)), "{complete:?}: {log}");
}

#[test]
fn files_that_were_cut_from_the_spool_are_known_by_hash_over_restarts() {
    if !have("evidence of the spool", &["ssh-keygen", "sha256sum"]) {
        return;
    }
    let folder = directory();
    key(folder.path(), "recorder");
    let capture = folder.path().join("capture.pcap");
    let mut bytes = generate::header();
    for number in 0..PACKETS {
        generate::packet(&mut bytes, number * 1000, u32::try_from(number % 5).unwrap(), true, 100);
    }
    std::fs::write(&capture, bytes).unwrap();
    let spool = folder.path().join("spool");
    let start = |directory: TempDir| {
        let mut command = Command::new(PROGRAM);
        command.args(["run", "-m", "40M", "--speed", "max", "--spool-size", "64M", "--evidence-key"]);
        command.arg(folder.path().join("recorder")).arg("--spool").arg(&spool).arg("--replay").arg(&capture);
        let recorder = Recorder::start(command, directory);
        recorder.arrived(PACKETS);
        recorder
    };
    // Stops in order, and keeps the folder with the logs.
    let stop = |mut recorder: Recorder| {
        recorder.signal("-TERM");
        recorder.child.wait().unwrap();
        std::mem::replace(&mut recorder.directory, directory())
    };
    let audit = |recorder: &Recorder| {
        let mut command = Command::new(PROGRAM);
        reply(&command.args(["evidence", "audit"]).arg(recorder.path("audit.log.record")).output().unwrap())
    };
    let logs = stop(start(directory()));
    everything_is_sealed(&logs.path().join("audit.log.record"), &spool);
    let recorder = start(logs);
    eventually("the files of the first run are sealed", || audit(&recorder).stdout.contains("of the spool"));
    let sealed = audit(&recorder);
    assert!(sealed.code == 0 && sealed.stdout.contains("ended in order before each further start"), "{sealed:?}");
    let files = || {
        let files = std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.is_file() && path.metadata().unwrap().len() > 0).collect::<Vec<_>>()
    };
    let log = std::fs::read_to_string(recorder.path("audit.log.record")).unwrap();
    let hash = |path: &Path| {
        let output = Command::new("sha256sum").arg(path).output().unwrap();
        String::from_utf8_lossy(&output.stdout)[..64].to_owned()
    };
    // sha256sum alone agrees.
    let (victim, its_hash) = files()
        .into_iter()
        .map(|path| (path.clone(), hash(&path)))
        .find(|(_, hash)| log.contains(hash))
        .unwrap_or_else(|| panic!("{:?}: {log}", files()));
    // Somebody removes it while no recorder runs, and the next recorder is killed.
    let logs = stop(recorder);
    std::fs::remove_file(&victim).unwrap();
    let mut recorder = start(logs);
    eventually("the third run has sealed its files", || {
        let found = audit(&recorder);
        found.stdout.contains("was removed from the spool") && found.stdout.contains(&its_hash)
    });
    assert!(audit(&recorder).stdout.contains("cannot be known: when"), "{:?}", audit(&recorder));
    recorder.child.kill().unwrap();
    recorder.child.wait().unwrap();
    let logs = std::mem::replace(&mut recorder.directory, directory());
    let recorder = start(logs);
    eventually("the break is told", || audit(&recorder).stdout.contains("without a stop in order"));
    assert_eq!(audit(&recorder).code, 0, "nothing was removed from the log");
}
