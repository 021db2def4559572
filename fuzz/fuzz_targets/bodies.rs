//! Any bytes as the body of a request, for a pin or for the packets of many selections. What is parsed can be carried
//! out, and each error is one sentence.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use retrocap::api::bodies::{NewPin, SelectionList};
use retrocap::api::parameters::Clock;
use retrocap::time::Timestamp;

fuzz_target!(|body: &[u8]| {
    match NewPin::read(body) {
        Ok(pin) => {
            assert!(!pin.filter.trim().is_empty());
            assert!(pin.duration() <= Duration::from_secs(31 * 86_400));
        }
        Err(problem) => assert!(!problem.detail.untrusted().is_empty()),
    }
    let clock = Clock { now: Timestamp::from_unix(1_795_341_600, 0), newest: None };
    match SelectionList::read(body).and_then(|list| list.selectors(clock)) {
        Ok(selectors) => {
            assert!(!selectors.is_empty() && selectors.len() < body.len());
            assert!(selectors.iter().all(|selector| selector.since <= selector.until));
        }
        Err(problem) => assert!(!problem.detail.untrusted().is_empty()),
    }
});
