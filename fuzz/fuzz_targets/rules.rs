//! Any text as the rules of a search: an attack, a list of indicators, a regular expression, bytes. Errors are short.
#![no_main]

use libfuzzer_sys::fuzz_target;
use retrocap::hunt::attack::Attack;
use retrocap::hunt::check;
use retrocap::hunt::indicators::Indicators;
use retrocap::hunt::patterns::{Builder, Pattern};
use retrocap::hunt::Kind;

const ERROR_BYTES_MAX: usize = 16 << 10;

fuzz_target!(|text: &str| {
    match Attack::read(text) {
        Ok(attack) => {
            let _ = check::check(&attack);
        }
        // An error shows the line, which may be all of the text, and a marker below it.
        Err(error) => assert!(error.to_string().len() <= 4 * text.len() + ERROR_BYTES_MAX),
    }
    let mut indicators = Indicators::default();
    indicators.read(text);
    assert!(indicators.len() <= text.len());
    let mut patterns = Builder::default().with_regex_bytes_max(1 << 20);
    let _ = patterns.hex(Pattern::new("bytes", Kind::Text), text);
    let _ = patterns.regex(Pattern::new("regex", Kind::Text), text);
    if let Ok(patterns) = patterns.build() {
        patterns.find(text.as_bytes(), |_| 0, |_, _, from, to| assert!(from <= to && to <= text.len()));
    }
});
