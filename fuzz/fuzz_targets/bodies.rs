//! Any bytes as the body of a request, for a pin or for the packets of many selections. What is parsed can be carried
//! out, and each error is one sentence.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use retrocap::serve::parameters::Clock;
use retrocap::serve::{pins, selections};
use retrocap::time::Timestamp;

fuzz_target!(|body: &[u8]| {
    match pins::understand(body) {
        Ok((filter, duration)) => {
            assert!(!filter.trim().is_empty());
            assert!(duration <= Duration::from_secs(31 * 86_400));
        }
        Err(why) => assert!(!why.is_empty()),
    }
    let clock = Clock { now: Timestamp::from_unix(1_795_341_600, 0), newest: None };
    match selections::understand(body, clock) {
        Ok(selectors) => {
            assert!(!selectors.is_empty() && selectors.len() < body.len());
            assert!(selectors.iter().all(|selector| selector.since <= selector.until));
        }
        Err(why) => assert!(!why.is_empty()),
    }
});
