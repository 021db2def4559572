//! Windows that are read back: the same answer as the spool gives, and what it lacks.

use std::process::Stdio;

use serde_json::Value;

use crate::{PROGRAM, Place, SESSIONS, Spool, eventually, places, text};

#[test]
fn archive_19_4_get_reads_a_window_back_through_the_same_question() {
    let Some(spool) = Spool::recorded("archive: get") else { return };
    for (place, _server) in places(spool.folder.path()) {
        assert_eq!(place.copy(&spool, &[]).0, Some(0));
        for question in [
            &[][..],
            &["host", "10.0.0.3"],
            &["--since", "2026-11-22T10:30:00Z", "--until", "2026-11-22T10:40:00Z"],
            &["--around", "2026-11-22T11:00:00Z", "--window", "1m", "port", "5555"],
            &["--flow", "10.0.0.1:40000 192.0.2.1:5555"],
        ] {
            let (code, lines, said) = place.get(&spool, question);
            assert_eq!((code, &lines), (Some(0), &spool.lines(question)), "{question:?}: {said}");
            assert!(lines.lines().count() > 50, "{question:?}");
        }
        let (code, lines, said) = place.get(&spool, &["--since", "2026-12-24", "--until", "2026-12-25"]);
        assert_eq!((code, &*lines), (Some(1), ""));
        assert!(
            said.contains("has sensor from 2026-11-22 to 2026-11-22") && said.contains("has nothing of sensor"),
            "{said}"
        );
        // Relative times count from now.
        let (code, _, said) = place.get(&spool, &["--until", "2000 days ago"]);
        assert!(code == Some(1) && said.contains("has nothing of sensor in this window"), "{said}");
    }
}

#[test]
fn archive_19_4_only_objects_of_the_window_and_depth_are_fetched() {
    let Some(spool) = Spool::recorded("archive: fetch") else { return };
    let place = Place::directory(&spool.path("archive"));
    place.copy(&spool, &[]);
    let fetched = |arguments: &[&str]| {
        let to = tempfile::tempdir().unwrap();
        let arguments = [&["--to", to.path().to_str().unwrap()], arguments].concat();
        let output = place.run("fetch", &arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        crate::tree(to.path()).into_keys().collect::<Vec<_>>()
    };
    let all = fetched(&[]);
    assert_eq!(all.len(), spool.files().len());
    let starts = fetched(&["--only", "starts"]);
    assert!(
        !starts.is_empty() && starts.iter().all(|name| name.contains("-band0") || name.contains("-band1")),
        "{starts:?}"
    );
    let window = fetched(&["--since", "2026-11-22T10:00:00Z", "--until", "2026-11-22T10:03:00Z", "--only", "bulk"]);
    assert!(!window.is_empty() && window.len() < 3, "{window:?}");
    // Beyond the limit, nothing is fetched.
    let output = place.run("fetch", &["--to", spool.path("big").to_str().unwrap(), "--limit", "1M"]);
    assert!(!output.status.success() && text(&output.stderr).contains("more than the limit of 1.0 MiB"));
    assert!(!spool.path("big").exists());
}

#[test]
fn archive_19_4_an_answer_names_what_the_archive_lacks() {
    let Some(spool) = Spool::recorded("archive: lacking") else { return };
    for (place, _server) in places(spool.folder.path()) {
        place.copy(&spool, &[]);
        let whole = place.get(&spool, &[]).1;
        let names: Vec<String> = place.data().into_keys().filter(|name| name.contains("class=bulk")).collect();
        let (missing, damaged, torn) = (&names[0], &names[1], &names[2]);
        std::fs::remove_file(place.objects.join(missing)).unwrap();
        let mut bytes = std::fs::read(place.objects.join(damaged)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(place.objects.join(damaged), &bytes).unwrap();
        std::fs::write(place.objects.join(torn), &bytes[..middle]).unwrap();

        let (code, lines, said) = place.get(&spool, &[]);
        assert_eq!(code, Some(3), "{said}");
        assert!(lines.lines().count() > 1000 && lines.lines().count() < whole.lines().count());
        assert!(said.contains("lacks 1 object of this window (1 bulk): missing from the archive"), "{said}");
        assert!(said.contains("lacks 2 objects of this window (2 bulk): damaged"), "{said}");
        let last = |name: &str| name.rsplit('/').next().unwrap().to_owned();
        assert!([missing, damaged, torn].iter().all(|name| said.contains(&last(name))), "{said}");
        // A question beside them is whole.
        assert_eq!(place.get(&spool, &["--archive-only", "starts"]).0, Some(0));
        let output = place.run("verify", &[]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), report["problems"].as_array().unwrap().len()), (Some(1), 3), "{report}");
        // A copy repairs nothing in silence: it neither overwrites nor deletes.
        let (_, report, _) = place.copy(&spool, &[]);
        assert_eq!(report["copied"], 0);
    }
}

#[test]
fn archive_19_4_flows_are_those_of_the_log_and_hunts_find_what_is_in_packets() {
    let Some(spool) = Spool::recorded("archive: flows") else { return };
    let place = Place::directory(&spool.path("archive"));
    place.copy(&spool, &[]);
    let ask = |arguments: &[&str]| {
        let mut command = place.command(&spool.recorder);
        command.args(arguments).args(["--archive", &place.url]).env("TMPDIR", spool.folder.path());
        let output = command.output().unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, lines, said) = ask(&["flows", "--json"]);
    assert_eq!((code, lines.lines().count()), (Some(0), SESSIONS as usize), "{said}");
    let (code, lines, _) = ask(&["flows", "--json", "--address", "192.0.2.7"]);
    assert_eq!((code, lines.lines().count()), (Some(0), 5), "{lines}");
    let (code, _, said) = ask(&["hunt", "--text", "no such text"]);
    assert_eq!(code, Some(1), "{said}");
    let (code, _, said) = ask(&["get", "--follow"]);
    assert!(code == Some(2) && said.contains("an archive gets none here"), "{said}");
}

#[test]
fn archive_19_4_encrypted_packets_take_the_private_key() {
    let Some(spool) = Spool::recorded("archive: encryption") else { return };
    for (place, _server) in places(spool.folder.path()) {
        let key = spool.path(if place.url.starts_with("s3") { "key-s3" } else { "key" });
        let keygen = place.command(PROGRAM).arg("keygen").arg(&key).output().unwrap();
        let public = text(&keygen.stdout).trim().to_owned();
        assert!(public.starts_with("age1"), "{public}");
        // Copies that are killed leave objects that another run cannot encrypt in the same way.
        for wait in [20, 40, 60] {
            let mut child = place.copy_command(&spool, &["--recipient", &public]).spawn().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(wait));
            let _ = child.kill();
            child.wait().unwrap();
        }
        let (code, report, said) = place.copy(&spool, &["--recipient", &public]);
        assert_eq!(code, Some(0), "{report} {said}");
        let data: Vec<String> = place.data().into_keys().filter(|name| !name.contains('#')).collect();
        assert_eq!(data.len(), spool.files().len(), "{data:?}");
        assert!(data.iter().all(|name| name.ends_with(".age") == name.starts_with("packets/")), "{data:?}");
        let (code, lines, said) = place.get(&spool, &[]);
        assert_eq!((code, &*lines), (Some(1), ""), "{said}");
        assert!(said.contains("encrypted, and no key was given"), "{said}");
        let (code, lines, said) = place.get(&spool, &["--archive-key", key.to_str().unwrap()]);
        assert_eq!((code, &lines), (Some(0), &spool.lines(&[])), "{said}");
        let verify = |arguments: &[&str]| place.run("verify", arguments).status.code();
        assert_eq!((verify(&[]), verify(&["--identity", key.to_str().unwrap()])), (Some(0), Some(0)));
        let other = spool.path(if place.url.starts_with("s3") { "other-s3" } else { "other" });
        place.command(PROGRAM).arg("keygen").arg(&other).output().unwrap();
        assert_eq!(verify(&["--identity", other.to_str().unwrap()]), Some(1));
    }
}

#[test]
fn archive_19_4_nothing_is_left_on_disk_however_the_reader_ends() {
    let Some(spool) = Spool::recorded("archive: cleaning up") else { return };
    let place = Place::directory(&spool.path("archive"));
    place.copy(&spool, &[]);
    let temporary = spool.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let left = || {
        std::fs::read_dir(&temporary)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("retrocap-archive-"))
            .count()
    };
    let start = |arguments: &[&str]| {
        let mut command = place.command(&spool.recorder);
        command.args(["get", "--archive", &place.url]).args(arguments).env("TMPDIR", &temporary);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    assert!(start(&["-w", spool.path("out.pcapng").to_str().unwrap()]).wait().unwrap().success());
    eventually("the files are removed", || left() == 0);
    // Killed while it waits for a reader of its output.
    let mut child = start(&["-w", "-"]);
    eventually("files are fetched", || left() == 1 && crate::tree(&temporary).len() > 5);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the files are removed after a kill", || left() == 0);
}

#[test]
fn archive_19_4_a_missing_program_is_named() {
    let Some(spool) = Spool::recorded("archive: missing program") else { return };
    let alone = spool.path("retrocap");
    std::fs::copy(&spool.recorder, &alone).unwrap();
    let place = Place::directory(&spool.path("archive"));
    let mut command = place.command(&alone);
    command.args(["get", "--archive", &place.url]).env("PATH", "/nonexistent").env("TMPDIR", spool.folder.path());
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("needs the program retrocap-archive"), "{said}");
}

#[test]
fn archive_19_4_a_spool_that_its_recorder_encrypts_is_copied_as_it_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(spool) = Spool::recorded("archive: encrypted spool") else { return };
    std::fs::remove_dir_all(spool.directory()).unwrap();
    let key = spool.path("spool.key");
    std::fs::write(&key, format!("{}\n", "5a".repeat(32))).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let with_key = ["--spool-key", key.to_str().unwrap()];
    spool.record(&with_key);
    let files = crate::tree(&spool.directory()).into_keys().filter(|name| name.ends_with(".enc")).count();
    assert!(files > 12, "{files}");
    let place = Place::directory(&spool.path("archive"));
    let (code, _, said) = place.copy(&spool, &[]);
    assert!(code == Some(1) && place.data().keys().all(|name| name.starts_with("sessions/")), "{said}");
    let (code, report, said) = place.copy(&spool, &with_key);
    assert_eq!((code, place.data().len()), (Some(0), files), "{report} {said}");
    let (code, lines, said) = place.get(&spool, &with_key);
    assert_eq!((code, &lines), (Some(0), &spool.lines(&with_key)), "{said}");
    assert!(lines.lines().count() > 5000, "{}", lines.lines().count());
    assert_eq!(place.run("verify", &[]).status.code(), Some(0));
    let (code, lines, said) = place.get(&spool, &[]);
    assert!(code == Some(1) && lines.is_empty() && said.contains("--spool-key FILE"), "{said}");
}
