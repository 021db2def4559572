use super::*;

fn log(lines: usize) -> Vec<String> {
    let mut head = None;
    (0..lines)
        .map(|number| {
            let (line, next) = link(&format!("{{\"time\":\"2026-11-22\",\"event\":\"end\",\"id\":{number}}}"), head);
            head = Some(next);
            line
        })
        .collect()
}

fn checked(lines: &[String]) -> Report {
    check([lines.concat().as_bytes()]).unwrap()
}

#[test]
fn a_log_that_nobody_touched_holds_and_its_lines_stay_json() {
    let lines = log(20);
    let report = checked(&lines);
    assert!(report.holds(), "{report:?}");
    assert_eq!((report.lines, report.head.unwrap().number), (20, 19));
    for line in &lines {
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["event"], "end");
    }
    // Files of one log, as rotation leaves them.
    let (old, new) = lines.split_at(7);
    let report = check([old.concat().as_bytes(), new.concat().as_bytes()]).unwrap();
    assert!(report.holds() && report.lines == 20, "{report:?}");
    // The oldest file is gone.
    let report = checked(new);
    assert!(report.holds() && report.first.unwrap().0 == 7, "{report:?}");
}

#[test]
fn each_line_that_is_removed_moved_or_repeated_is_found() {
    let lines = log(12);
    for at in 0..lines.len() {
        let mut removed = lines.clone();
        removed.remove(at);
        // Without what follows, a log that ends earlier looks whole; without what precedes, it begins later.
        let is_end = at == 0 || at == lines.len() - 1;
        assert_eq!(checked(&removed).holds(), is_end, "{at} removed");
        let mut repeated = lines.clone();
        repeated.insert(at, lines[at].clone());
        assert!(!checked(&repeated).holds(), "{at} repeated");
        for to in (0..lines.len()).filter(|&to| to != at) {
            let mut moved = lines.clone();
            moved.swap(at, to);
            assert!(!checked(&moved).holds(), "{at} and {to} swapped");
        }
    }
    assert_eq!(checked(&[lines[3].clone(), lines[7].clone()]).breaks[0].1, ChainBreak::Gap { expected: 4, found: 6 });
}

#[test]
fn each_changed_byte_is_found() {
    let whole = log(4).concat().into_bytes();
    let last_newline = whole.len() - 1;
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[at] ^= 1 << bit;
            let report = check([&changed[..]]).unwrap();
            assert!(!report.holds(), "byte {at}, bit {bit} of {last_newline}: {report:?}");
        }
    }
}

#[test]
fn a_line_that_is_no_object_is_linked_as_text() {
    for line in ["", "{}", "x", "[1]", "{", "{\"a\":1"] {
        let (linked, head) = link(line, None);
        assert_eq!(read_link(linked.as_bytes()).unwrap().0, head, "{line}");
        assert!(checked(&[linked]).holds());
    }
}

#[test]
fn a_signed_head_shows_that_a_chain_was_made_again() {
    let key = signature::Key::read(crate::tests::KEY).unwrap();
    let mut lines = log(5);
    let head = read_link(lines[4].as_bytes()).unwrap().0;
    let signed = SignedHead { retrocap_log_head: 1, time: "2026-11-22T00:00:00Z".to_owned(), head };
    let text = serde_json::to_string(&signed).unwrap();
    let line = serde_json::json!({ "event": "head", "signed": text, "signature": key.sign(text.as_bytes()).unwrap() });
    lines.push(link(&line.to_string(), Some(head)).0);
    let report = checked(&lines);
    assert!(report.holds(), "{report:?}");
    let [signed] = &report.signed[..] else { panic!("{report:?}") };
    assert_eq!((signed.number, &signed.signer.fingerprint), (4, &key.fingerprint()));
    // Somebody removes a line and makes the chain again, but has no key.
    let mut head = None;
    let forged: Vec<_> = [0, 1, 3, 4, 5]
        .map(|at: usize| {
            let value: Value = serde_json::from_str(&lines[at]).unwrap();
            let mut object = value.as_object().unwrap().clone();
            object.remove("link");
            object.remove("hash");
            let (line, next) = link(&Value::Object(object).to_string(), head);
            head = Some(next);
            line
        })
        .into();
    let report = checked(&forged);
    assert!(matches!(report.breaks[..], [(5, ChainBreak::Head(_))]), "{report:?}");
}
