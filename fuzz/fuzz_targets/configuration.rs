//! Any text as a configuration: it is accepted, or each mistake names a line that exists.
#![no_main]

use libfuzzer_sys::fuzz_target;
use retrocap::untrusted::configuration;
use retrocap::judge::Classes;

fuzz_target!(|text: &str| {
    match configuration(text) {
        Ok(classes) => {
            // libpcap's compiler has a target of its own.
            if classes.iter().all(|class| class.filter.len() < 40) {
                let _ = Classes::new(&classes, 1 << 20);
            }
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            let lines = text.split('\n').count();
            for (line, mistake) in mistakes {
                assert!((1..=lines).contains(&line) && !mistake.is_empty(), "line {line} of {lines}: {mistake}");
            }
        }
    }
});
