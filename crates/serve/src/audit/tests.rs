use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::*;
use api::{Role, Roles};

fn config(path: &Path) -> Config {
    Config { policy: Policy::Required, path: path.to_owned(), size_max: 2000, keep: 2, record: false }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

fn refusals(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".refusals");
    path.into()
}

fn peer() -> Peer {
    let from: SocketAddr = "10.0.0.5:1234".parse().unwrap();
    Peer::of_certificate("laptop".to_owned().into(), "0a".to_owned(), from, Roles::from_iter([Role::Packets]))
}

#[test]
fn a_read_has_a_beginning_and_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/audit.log");
    let audit = Audit::open(config(&path), None).unwrap();
    let mut entry = audit.begin(&peer(), Action::Packets, json!({"expression": "port 53"})).unwrap();
    assert_eq!(lines(&path).len(), 1, "written before anything is read");
    entry.packet(100);
    entry.packet(50);
    entry.end("complete");
    drop(audit.begin(&peer(), Action::Flows, json!({})).unwrap());
    audit.refused(&peer(), Action::Pin, json!({}), "may not");
    let refused = self::lines(&refusals(&path));
    assert_eq!(
        (refused.len(), &refused[0]["event"], &refused[0]["outcome"]),
        (1, &json!("refused"), &json!("may not"))
    );
    let lines = lines(&path);
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["begin", "end", "begin", "end"]);
    let end = &lines[1];
    assert_eq!((&end["packets"], &end["bytes"], &end["outcome"]), (&json!(2), &json!(150), &json!("complete")));
    assert_eq!(
        (&end["id"], &end["from"], &end["query"]["expression"]),
        (&lines[0]["id"], &json!("10.0.0.5:1234"), &json!("port 53"))
    );
    assert_eq!(end["who"], json!({"certificate": "laptop", "serial": "0a", "roles": ["status", "flows", "packets"]}));
    assert_eq!(lines[3]["outcome"], "broken off by the client");
    assert_ne!(lines[2]["id"], lines[1]["id"]);
    assert_eq!(audit.counts(), (5, 0));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
}

#[test]
fn old_files_are_put_aside_and_the_oldest_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let audit = Audit::open(config(&path), None).unwrap();
    for _ in 0..30 {
        audit.begin(&peer(), Action::Packets, json!({})).unwrap().end("complete");
    }
    let mut names: Vec<_> = directory.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["audit.log", "audit.log.1", "audit.log.2", "audit.log.refusals"]);
    let mut kept = Vec::new();
    for number in ["audit.log.2", "audit.log.1", "audit.log"] {
        let file = directory.path().join(number);
        assert!(std::fs::metadata(&file).unwrap().len() <= 2000);
        kept.extend(lines(&file));
    }
    assert_eq!(audit.counts(), (60, 0));
    // The log says what is missing: nothing lies between what was removed last and what is left.
    let removed: Vec<_> = kept.iter().filter(|line| line["event"] == "removed").map(|line| &line["removed"]).collect();
    let reads = kept.iter().filter(|line| line["event"] != "removed").count();
    assert_eq!(removed.len(), 3, "one at the head of each file that is left");
    assert!(reads < 60);
    assert!(removed.iter().all(|removed| removed["file"] == "audit.log.2" && removed["lines"].as_u64().unwrap() > 0));
    assert!(removed[2]["last"].as_str().unwrap() <= kept[0]["time"].as_str().unwrap());
}

#[test]
fn a_flood_of_refusals_displaces_no_read_and_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let audit = Audit::open(Config { size_max: 8000, ..config(&path) }, None).unwrap();
    audit.begin(&peer(), Action::Packets, json!({})).unwrap().end("complete");
    for _ in 0..100_000 {
        audit.refused(&peer(), Action::Packets, json!({ "target": "/v1/packets" }), "may not");
    }
    assert_eq!(lines(&path).len(), 2, "the read is there");
    assert_eq!(lines(&refusals(&path)).len(), 5);
    audit.summarize_refusals(true);
    let summary = lines(&refusals(&path)).pop().unwrap();
    assert_eq!((&summary["event"], &summary["refused"]), (&json!("refused-more"), &json!(99_995)));
    assert_eq!((&summary["who"]["certificate"], &summary["outcome"]), (&json!("laptop"), &json!("may not")));
}

#[test]
fn no_line_has_a_character_that_deceives() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let audit = Audit::open(config(&path), None).unwrap();
    let hostile = "\u{1b}[2J\u{9b}\u{7f}\u{202e}\u{2028}\u{200b}\u{e0041}\n";
    let peer = Peer::of_certificate(
        hostile.to_owned().into(),
        "0a".to_owned(),
        "10.0.0.5:1".parse().unwrap(),
        Roles::from_iter([Role::Packets]),
    );
    audit.begin(&peer, Action::Packets, json!({ "expression": hostile })).unwrap().end(hostile);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains(|c| base::foreign::is_deceptive(c) && c != '\n'), "{text:?}");
    let lines = lines(&path);
    assert_eq!(lines.len(), 2);
    for value in [&lines[0]["who"]["certificate"], &lines[0]["query"]["expression"], &lines[1]["outcome"]] {
        assert_eq!(value, hostile, "nothing is lost");
    }
}

#[test]
fn a_file_that_was_moved_away_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let audit = Audit::open(config(&path), None).unwrap();
    audit.begin(&peer(), Action::Packets, json!({})).unwrap().end("complete");
    std::fs::rename(&path, directory.path().join("moved")).unwrap();
    audit.begin(&peer(), Action::Packets, json!({})).unwrap().end("complete");
    assert_eq!((lines(&path).len(), lines(&directory.path().join("moved")).len()), (2, 2));
    // Where it cannot be made anew nothing is read.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let problem = audit.begin(&peer(), Action::Packets, json!({})).unwrap_err();
    assert!(problem.status == 503 && problem.detail.untrusted().contains("cannot be written"), "{problem:?}");
    assert!(audit.failing().unwrap().contains("nothing can be read"));
    std::fs::remove_dir(&path).unwrap();
    audit.begin(&peer(), Action::Packets, json!({})).unwrap().end("complete");
    assert_eq!((audit.failing(), audit.counts()), (None, (6, 1)));
}

#[test]
fn nothing_of_somebody_elses_is_taken_for_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("audit.log"), directory.path().join("other"));
    std::fs::write(&other, "precious").unwrap();
    symlink(&other, &path).unwrap();
    assert!(Audit::open(config(&path), None).unwrap_err().to_string().contains("--audit-log"));
    std::fs::remove_file(&path).unwrap();
    std::fs::hard_link(&other, &path).unwrap();
    assert!(Audit::open(config(&path), None).unwrap_err().to_string().contains("cannot trust"));
    assert_eq!(std::fs::read(&other).unwrap(), b"precious");

    let lax = Config { policy: Policy::BestEffort, ..config(&directory.path().join("other/audit.log")) };
    let audit = Audit::open(lax, None).unwrap();
    audit.begin(&peer(), Action::Packets, json!({})).unwrap().end("complete");
    assert_eq!(audit.counts(), (0, 2));
    assert!(audit.failing().unwrap().contains("leave no trace"));
}

/// Who runs the recorder first and who runs it later, in each order: the log and its directory belong to the later one.
#[test]
fn honest_13_12_the_log_belongs_to_whoever_writes_it_next() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: the owner of the audit log: needs root");
        return;
    }
    let (root, user, other) = (Some((0, 0)), Some((65_533, 65_532)), Some((65_531, 65_530)));
    for order in [[None, user], [user, None], [root, user], [user, other], [user, root], [user, user], [None, None]] {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("retrocap/audit.log");
        for owner in order {
            File::new(log.clone(), 1 << 20, 2).open_for(owner).unwrap();
            std::fs::write(log.with_extension("log.1"), "").unwrap();
            std::fs::write(log.with_extension("log.refusals.1"), "").unwrap();
            let expected = owner.unwrap_or((0, 0));
            for path in [&log, log.parent().unwrap()] {
                let found = std::fs::metadata(path).unwrap();
                assert_eq!((found.uid(), found.gid()), expected, "{order:?}: {}", path.display());
                assert_eq!(found.permissions().mode() & 0o077, 0, "{order:?}: {}", path.display());
            }
        }
    }
    // A directory with other files in it is nobody's to give away, and the message says what to do.
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("precious"), "").unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let log = directory.path().join("audit.log");
    let error = File::new(log.clone(), 1 << 20, 2).open_for(user).unwrap_err().to_string();
    assert!(error.contains("belongs to uid 0 (mode 700), and the recorder runs as uid 65533"), "{error}");
    let advice = format!("chown -R 65533:65532 {}", directory.path().display());
    assert!(error.contains(&advice), "{error}");
    assert_eq!(std::fs::metadata(directory.path()).unwrap().uid(), 0);
    let words: Vec<_> = advice.split(' ').collect();
    assert!(std::process::Command::new(words[0]).args(&words[1..]).status().unwrap().success());
    File::new(log, 1 << 20, 2).open_for(user).unwrap();
}
