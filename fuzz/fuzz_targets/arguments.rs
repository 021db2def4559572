//! Any arguments from a shell, a script or Wireshark's dialog. They become at most one request, whatever they
//! contain.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use libfuzzer_sys::fuzz_target;
use retrocap::untrusted::arguments;
use retrocap::api::parameters::{Clock, FlowQuery, PacketQuery};
use retrocap::time::Timestamp;

fuzz_target!(|bytes: &[u8]| {
    let now = Timestamp::from_unix(1_795_341_600, 0);
    let words = bytes.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec()));
    let words = std::iter::once("retrocap".into()).chain(words).collect();
    match arguments(words, now) {
        Ok(Some(target)) => {
            assert!(target.bytes().all(|byte| byte.is_ascii_graphic()), "{target}");
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            // The service understands what the command line sends, even if it then rejects the query.
            let clock = Clock { now, newest: None };
            let error = match path {
                "/v1/packets" => PacketQuery::read(query, clock).err(),
                "/v1/flows" => FlowQuery::read(query, clock).err(),
                other => panic!("{other}"),
            };
            assert!(error.is_none_or(|error| !error.to_string().contains("no key")), "{target}");
        }
        Ok(None) => {}
        Err(error) => assert!(!error.is_empty()),
    }
});
