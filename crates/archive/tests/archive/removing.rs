//! What goes: by age, and on purpose.

use std::process::Command;

use serde_json::Value;

use crate::{Place, Spool, places, text};

#[test]
fn archive_19_4_each_class_expires_at_its_time_and_what_expired_stays_known() {
    let Some(spool) = Spool::recorded("archive: expire") else { return };
    for (place, _server) in places(spool.folder.path()) {
        place.copy(&spool, &[]);
        let before = place.data();
        let expire = |arguments: &[&str]| {
            let output = place.run("expire", arguments);
            let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            (output.status.code(), report, text(&output.stderr))
        };
        // The packets are of another year, and were stored a moment ago: nothing is old enough.
        let (code, report, _) = expire(&["--keep", "starts=400d,bulk=1h"]);
        assert_eq!((code, report["objects"].as_array().unwrap().len()), (Some(0), 0));
        // Without --delete, nothing goes.
        let (code, report, said) = expire(&["--keep", "starts=400d,bulk=0s"]);
        let due = report["objects"].as_array().unwrap().len();
        assert!(code == Some(0) && due > 3 && place.data() == before, "{report} {said}");
        let (code, report, _) = expire(&["--keep", "starts=400d,bulk=0s", "--delete"]);
        assert_eq!((code, report["objects"].as_array().unwrap().len()), (Some(0), due));
        assert!(
            place.data().keys().all(|name| !name.contains("class=bulk")) && place.data().len() == before.len() - due
        );
        let (code, lines, said) = place.get(&spool, &[]);
        assert!(code == Some(0) && lines.lines().count() > 100, "{said}");
        assert!(said.contains(&format!("lacks {due} objects of this window ({due} bulk): expired before")), "{said}");
        // It is not copied again, and the archive is whole.
        assert_eq!(place.copy(&spool, &[]).1["copied"], 0);
        assert_eq!(place.run("verify", &[]).status.code(), Some(0));
        for wrong in [
            &["--keep", "starts"][..],
            &["--keep", "other=1d"],
            &["--keep", "bulk=soon"],
            &["--keep", "bulk=1d,bulk=2d"],
        ] {
            assert!(matches!(expire(wrong).0, Some(1 | 2)), "{wrong:?}");
        }
    }
}

#[test]
fn archive_19_4_packets_that_were_removed_on_purpose_leave_the_archive() {
    let Some(spool) = Spool::recorded("archive: removal") else { return };
    for (place, _server) in places(spool.folder.path()) {
        // The same spool for each archive.
        let copy = Spool { folder: tempfile::tempdir().unwrap(), recorder: spool.recorder.clone() };
        let copied = Command::new("cp").arg("-r").arg(spool.directory()).arg(copy.directory()).status().unwrap();
        assert!(copied.success());
        place.copy(&copy, &[]);
        let host = ["host", "10.0.0.3"];
        assert!(place.get(&copy, &host).1.lines().count() > 500);
        let mut drop = Command::new(&copy.recorder);
        drop.args(["spool", "drop", "--before", "2027-01-01", "--spool"]).arg(copy.directory()).args(host);
        let dropped = drop.output().unwrap();
        assert!(dropped.status.success(), "{}", text(&dropped.stderr));
        let (code, report, said) = place.copy(&copy, &[]);
        assert!(code == Some(0) && report["removed"].as_u64().unwrap() > 10, "{report} {said}");
        let (code, lines, said) = place.get(&copy, &host);
        assert_eq!((code, &*lines), (Some(1), ""), "{said}");
        assert!(said.contains("removed on purpose"), "{said}");
        let (code, lines, _) = place.get(&copy, &[]);
        assert_eq!((code, lines), (Some(0), copy.lines(&[])));
        // Not even in an object that no answer names, and not by the next copy.
        let has = place.data().values().any(|bytes| bytes.windows(8).any(|at| at == [10, 0, 0, 3, 192, 0, 2, 3]));
        assert!(!has, "packets of 10.0.0.3 are still in the archive");
        let (code, again, _) = place.copy(&copy, &[]);
        assert_eq!((code, &again["removed"], &again["copied"]), (Some(0), &0.into(), &0.into()));
        assert_eq!(place.run("verify", &[]).status.code(), Some(0));
    }
}

#[test]
fn archive_19_4_two_recorders_share_an_archive() {
    let Some(spool) = Spool::recorded("archive: two recorders") else { return };
    let place = Place::directory(&spool.path("archive"));
    for host in ["one.example", "two"] {
        assert_eq!(place.copy(&spool, &["--host", host]).0, Some(2), "a host is named once");
        let mut command = place.command(crate::PROGRAM);
        command.args(["copy", &place.url, "--host", host, "--spool"]).arg(spool.directory());
        assert!(command.output().unwrap().status.success());
    }
    let (code, _, said) = place.get(&spool, &[]);
    assert!(code == Some(1) && said.contains("choose one with --archive-host: one.example, two"), "{said}");
    let (code, lines, said) = place.get(&spool, &["--archive-host", "two"]);
    assert_eq!((code, &lines), (Some(0), &spool.lines(&[])), "{said}");
    let hosts: Value = serde_json::from_slice(&place.run("list", &[]).stdout).unwrap();
    assert_eq!(hosts.as_array().unwrap().len(), 8, "{hosts}");
}
