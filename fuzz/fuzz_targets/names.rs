//! Any bytes as the first bytes of a session: no panic, and each name is printable and bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use retrocap::decode::names::{Parsed, dns_question, dns_question_in_stream, http_host, server_name};

const NAME_CHARS_MAX: usize = 4 * 255 + 1;

fn check(name: &str) {
    assert!(name.chars().all(|c| c.is_ascii_graphic() || c == '…'));
    assert!(name.chars().count() <= NAME_CHARS_MAX);
}

fuzz_target!(|data: &[u8]| {
    for parsed in [server_name(data), http_host(data)] {
        if let Parsed::Name(name) = parsed {
            check(&name);
        }
    }
    for parsed in [dns_question(data), dns_question_in_stream(data)] {
        if let Parsed::Name(question) = parsed {
            check(&question.name);
            check(&question.kind);
        }
    }
});
