//! Copies: incremental, interrupted, several at once.

use std::time::Duration;

use crate::{Place, Spool, places};

#[test]
fn archive_19_4_a_copy_has_every_file_once_and_the_next_one_copies_what_is_new() {
    let Some(spool) = Spool::recorded("archive: copy") else { return };
    for (place, _server) in places(spool.folder.path()) {
        let files = spool.files().len();
        let (code, first, said) = place.copy(&spool, &[]);
        assert_eq!((code, &first["copied"], &first["present"]), (Some(0), &files.into(), &0.into()), "{first} {said}");
        place.assert_has(&spool);
        let (code, again, _) = place.copy(&spool, &[]);
        assert_eq!((code, &again["copied"], &again["present"]), (Some(0), &0.into(), &files.into()), "{again}");
        place.assert_has(&spool);
    }
    // A recorder adds files, and a copy takes these alone.
    let place = Place::directory(&spool.path("archive"));
    let before = spool.files().len();
    spool.record(&["--spool-compression", "1"]);
    let added = spool.files().len() - before;
    assert!(added > 5 && spool.files().keys().any(|name| name.ends_with(".gz")), "{added} {:?}", spool.files().keys());
    let (code, more, _) = place.copy(&spool, &[]);
    assert_eq!((code, &more["copied"], &more["present"]), (Some(0), &added.into(), &before.into()), "{more}");
    place.assert_has(&spool);
}

#[test]
fn archive_19_4_a_copy_that_is_killed_anywhere_is_repeated_without_loss_or_double() {
    let Some(spool) = Spool::recorded("archive: killed copies") else { return };
    for (place, _server) in places(spool.folder.path()) {
        let mut kills = 0;
        // Later each time; a run that is not killed has copied the rest.
        for step in 0..500_u64 {
            let mut child = place.copy_command(&spool, &["--parallel", "3"]).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(3 + step * 2 % 97));
            let ended = child.try_wait().unwrap();
            let _ = child.kill();
            child.wait().unwrap();
            if ended.is_some_and(|status| status.success()) {
                break;
            }
            kills += 1;
            // What is there is right at every moment, whatever is still missing.
            for (name, bytes) in place.data().into_iter().filter(|(name, _)| !is_staged(name)) {
                assert!(spool.files().values().any(|file| *file == bytes), "{name} is torn");
            }
        }
        assert!(kills > 3, "{} copied at once", place.url);
        eprintln!("{}: {kills} copies were killed", place.url);
        let (code, last, said) = place.copy(&spool, &[]);
        assert_eq!(code, Some(0), "{last} {said}");
        // A directory can have parts of files under names that no reader takes for an object.
        for name in place.data().into_keys().filter(|name| is_staged(name)) {
            std::fs::remove_file(place.objects.join(name)).unwrap();
        }
        place.assert_has(&spool);
    }
}

/// A name that object_store gives a file of a directory while it is written.
fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[test]
fn archive_19_4_several_copies_at_once_store_each_file_once() {
    let Some(spool) = Spool::recorded("archive: several copies") else { return };
    for (place, _server) in places(spool.folder.path()) {
        let copies: Vec<_> = (0..4).map(|_| place.copy_command(&spool, &[]).spawn().unwrap()).collect();
        let (mut stored, mut said) = (0, String::new());
        for copy in copies {
            let output = copy.wait_with_output().unwrap();
            said += &crate::text(&output.stderr);
            let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(output.status.success(), "{document} {said}");
            stored += document["copied"].as_u64().unwrap();
        }
        // This server looks for the object before it writes it, not in one step as S3 does: two can write the same bytes.
        let files = spool.files().len() as u64;
        assert!(stored == files || !place.environment.is_empty() && stored > files, "{stored} of {files}");
        place.assert_has(&spool);
    }
}

#[test]
fn archive_19_4_files_that_are_not_whole_are_not_copied() {
    let Some(spool) = Spool::recorded("archive: unfinished files") else { return };
    let place = Place::directory(&spool.path("archive"));
    let names: Vec<String> = spool.files().into_keys().collect();
    let log = names.iter().find(|name| name.ends_with(".parquet")).unwrap();
    let (unfinished, damaged) = (&names[0], log);
    let file = |name: &str| spool.directory().join(name);
    let bytes = std::fs::read(file(unfinished)).unwrap();
    std::fs::write(file(unfinished), &bytes[..bytes.len() - 7]).unwrap();
    let mut changed = std::fs::read(file(damaged)).unwrap();
    changed[100] ^= 1;
    std::fs::write(file(damaged), changed).unwrap();
    // Another program's file, and a link out of the spool.
    std::fs::write(spool.directory().join("notes.txt"), "x").unwrap();
    let (code, report, said) = place.copy(&spool, &[]);
    assert_eq!((code, &report["unfinished"]), (Some(1), &1.into()), "{report}");
    assert!(said.contains(damaged.as_str()) && said.contains("changed while it was read, or is damaged"), "{said}");
    assert_eq!(place.data().len(), names.len() - 2);
}
