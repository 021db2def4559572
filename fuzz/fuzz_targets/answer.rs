//! Any text as the answer of a recorder, which may be hostile. No output moves the terminal's cursor, and no cell of
//! a spreadsheet begins a formula.
#![no_main]

use libfuzzer_sys::fuzz_target;
use retrocap::untrusted;
use retrocap::time::Timestamp;

/// The selections that the client asked for.
const ASKED: usize = 3;

fn is_plain(shown: &str) {
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
}

fuzz_target!(|answer: &str| {
    let now = Timestamp::from_unix(1_795_341_600, 0);
    for shown in [untrusted::status(answer, now), untrusted::pins(answer)].into_iter().flatten() {
        is_plain(&shown);
    }
    is_plain(&untrusted::refusal(answer));
    let [sessions, sessions_csv, sums, sums_csv] = untrusted::listing(answer);
    is_plain(&sessions);
    is_plain(&sums);
    for csv in [sessions_csv, sums_csv] {
        for line in csv.split_terminator("\r\n").skip(1) {
            assert!(!line.starts_with(['=', '+', '-', '@']), "{line}");
        }
    }
    if let Ok(file) = untrusted::selections(answer.as_bytes(), ASKED) {
        assert!(file.len() <= answer.len(), "base64 does not grow when it is read");
    }
});
