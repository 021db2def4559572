//! Servers that refuse, fail, lie or answer by halves.

use std::sync::atomic::Ordering;

use crate::server::{COPIER, Fault, S3, SECRET};
use crate::{Spool, text};

#[test]
fn archive_19_4_a_server_that_fails_for_a_while_costs_nothing() {
    let Some(spool) = Spool::recorded("archive: a failing server") else { return };
    for (at, fault) in [
        Fault::Status("PUT", 500, "InternalError", 4),
        Fault::Status("PUT", 503, "SlowDown", 4),
        Fault::HalfAnswer("PUT", 10, 3),
        Fault::HalfAnswer("GET", 300, 3),
        Fault::LostAnswer("PUT", 3),
        Fault::LostAnswer("GET", 2),
    ]
    .into_iter()
    .enumerate()
    {
        let server = S3::start(&spool.path(&format!("s3-{at}")));
        let (place, _proxy) = server.behind(fault);
        let (code, report, said) = place.copy(&spool, &["--read-back"]);
        assert_eq!(code, Some(0), "{fault:?}: {report} {said}");
        server.place().assert_has(&spool);
    }
}

#[test]
fn archive_19_4_a_server_that_refuses_is_quoted_and_the_next_copy_goes_on() {
    let Some(spool) = Spool::recorded("archive: a refusing server") else { return };
    let server = S3::start(&spool.path("s3"));
    let (place, proxy) = server.behind(Fault::None);
    for (fault, expected) in [
        (
            Fault::Status("PUT", 403, "AccessDenied", u32::MAX),
            "AccessDenied: made by a test: these credentials may not do that",
        ),
        (Fault::Status("PUT", 403, "RequestTimeTooSkewed", u32::MAX), "set the clock of this machine"),
        (Fault::Status("GET", 404, "NoSuchBucket", u32::MAX), "NoSuchBucket"),
        (Fault::Flip("PUT", u32::MAX), "cannot put packets/class=starts"),
    ] {
        proxy.set(fault);
        let (code, report, said) = place.copy(&spool, &["--only", "starts"]);
        assert_eq!(code, Some(1), "{fault:?}: {report}");
        assert!(said.contains(expected), "{fault:?}: {said}");
        assert!(server.place().data().is_empty(), "{fault:?}: nothing damaged is stored");
    }
    // It does not try every file for hours.
    proxy.set(Fault::Status("PUT", 403, "AccessDenied", u32::MAX));
    let (code, report, said) = place.copy(&spool, &[]);
    let untried = report["untried"].as_u64().unwrap();
    assert!(code == Some(1) && untried > 3 && said.contains("gave up after"), "{report} {said}");
    proxy.set(Fault::None);
    assert_eq!(place.copy(&spool, &[]).0, Some(0));
    server.place().assert_has(&spool);
    // What a refused reader gets is no answer.
    proxy.set(Fault::Status("GET", 403, "AccessDenied", u32::MAX));
    for verb in ["list", "verify"] {
        let output = place.run(verb, &[]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{verb}");
    }
    let (code, lines, said) = place.get(&spool, &[]);
    assert_eq!((code, &*lines), (Some(1), ""), "{said}");
    assert!(said.contains("AccessDenied"), "{said}");
    assert!(proxy.requests.load(Ordering::Relaxed) > 20);
}

#[test]
fn archive_19_4_credentials_are_those_of_aws_tools_and_are_never_printed() {
    let Some(spool) = Spool::recorded("archive: credentials") else { return };
    let server = S3::start(&spool.path("s3"));
    let mut place = server.place();
    let secrets = |place: &mut crate::Place, set: &[(&str, &str)]| {
        place
            .environment
            .retain(|(name, _)| !name.contains("KEY") && !name.contains("FILE") && !name.contains("PROFILE"));
        place.environment.extend(set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    };
    let wrong = "wrong-secret-that-must-not-be-printed";
    for (set, expected) in [
        (vec![("AWS_ACCESS_KEY_ID", "AKIDTEST"), ("AWS_SECRET_ACCESS_KEY", wrong)], "SignatureDoesNotMatch"),
        (vec![("AWS_ACCESS_KEY_ID", "AKIDNOBODY"), ("AWS_SECRET_ACCESS_KEY", wrong)], "NotSignedUp"),
        (vec![("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")], "cannot read the credentials in /nonexistent"),
    ] {
        secrets(&mut place, &set);
        let (code, _, said) = place.copy(&spool, &[]);
        assert_eq!(code, Some(1), "{set:?}");
        assert!(said.contains(expected), "{set:?}: {said}");
        assert!(!said.contains(wrong) && !said.contains("AKID"), "{said}");
    }
    let file = spool.path("credentials");
    let profiles = format!(
        "[default]\naws_access_key_id = X\naws_secret_access_key = X\n[sensors]\naws_access_key_id = {COPIER}\naws_secret_access_key = {SECRET}\n"
    );
    std::fs::write(&file, profiles).unwrap();
    secrets(&mut place, &[("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap()), ("AWS_PROFILE", "sensors")]);
    let (code, _, said) = place.copy(&spool, &[]);
    assert_eq!(code, Some(0), "{said}");
    place.assert_has(&spool);
    // No TLS is for this machine alone.
    place.environment.push(("AWS_ENDPOINT_URL".to_owned(), "http://192.0.2.1:9000".to_owned()));
    let output = place.run("list", &[]);
    assert!(text(&output.stderr).contains("has no TLS"), "{}", text(&output.stderr));
}

#[test]
fn archive_19_4_who_may_not_delete_can_copy_and_not_expire() {
    let Some(spool) = Spool::recorded("archive: fewer rights") else { return };
    let server = S3::start(&spool.path("s3"));
    let mut place = server.place();
    place.environment.push(("AWS_ACCESS_KEY_ID".to_owned(), COPIER.to_owned()));
    assert_eq!(place.copy(&spool, &[]).0, Some(0));
    let output = place.run("expire", &["--keep", "bulk=0s,starts=0s", "--delete"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("AccessDenied"), "{}", text(&output.stderr));
    // It was noted before, and is not done: that is told, and done by who may.
    assert_eq!(server.place().data().len(), spool.files().len());
    let output = place.run("verify", &[]);
    assert!(text(&output.stderr).contains("but is still there"), "{}", text(&output.stderr));
    assert_eq!(server.place().run("expire", &["--keep", "bulk=0s,starts=0s", "--delete"]).status.code(), Some(0));
    assert!(server.place().data().keys().all(|name| name.contains("class=middle") || name.starts_with("sessions/")));
    assert_eq!(server.place().run("verify", &[]).status.code(), Some(0));
}
