//! Any text as the query string of a request: parsing ends without a panic, and what was parsed can be asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use retrocap::api::parameters::{Clock, FlowQuery, PacketQuery};
use retrocap::time::Timestamp;

fuzz_target!(|query: &str| {
    let clock = Clock { now: Timestamp::from_unix(1_795_341_600, 0), newest: None };
    match PacketQuery::read(query, clock) {
        Ok(read) => {
            assert!(read.request.since.is_none_or(|since| since <= clock.now));
            assert_ne!(read.request.limit, Some(0));
        }
        Err(error) => assert!(error.to_string().len() < 2000, "{error}"),
    }
    if let Err(error) = FlowQuery::read(query, clock) {
        assert!(error.to_string().len() < 2000, "{error}");
    }
});
