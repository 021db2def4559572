//! Any bytes as what comes with an export: a manifest, a signature, a list of signers, a chained log, time stamp authorities.
//! What is read says the same when it is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use retrocap::evidence::manifest::Manifest;
use retrocap::evidence::signers::AllowedSigners;
use retrocap::evidence::{chain, signature, timestamp};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::read(bytes) {
        let text = manifest.text();
        let again = Manifest::read(text.as_bytes()).expect("what was written can be read");
        assert_eq!(again.text(), text);
    }
    let _ = chain::read_link(bytes);
    let report = chain::check([bytes]).expect("memory can be read");
    let again = chain::check([bytes]).expect("memory can be read");
    assert_eq!(format!("{report:?}"), format!("{again:?}"));
    let _ = timestamp::read_authorities(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = AllowedSigners::read(text);
        assert!(signature::verify(text, b"a message that nobody signed").is_err());
    }
});
