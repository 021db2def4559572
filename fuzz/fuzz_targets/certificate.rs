//! Any bytes as a peer's certificate: its description in the log is short and on one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use retrocap::serve::certificate::Certificate;

fuzz_target!(|der: &[u8]| {
    let Some(certificate) = Certificate::read(der) else { return };
    let name = certificate.name.untrusted();
    assert!(!name.is_empty() && name.chars().count() <= 80, "{certificate:?}");
    assert!(certificate.serial.len() <= 40 && certificate.serial.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let shown = certificate.to_string();
    assert!(!shown.chars().any(char::is_control) && shown.chars().count() < 4000, "{shown:?}");
});
