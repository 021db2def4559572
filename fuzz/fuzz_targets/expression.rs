//! Any text as an expression, applied to the packet after it and to sessions: it compiles or is rejected with one
//! sentence, and gives the same result each time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use retrocap::decode::Network;
use retrocap::filter::{Endpoints, FilterSet, SessionProbe, USUAL_LINK_TYPES};

fuzz_target!(|input: &[u8]| {
    let (expression, packet) = input.split_at(input.iter().position(|byte| *byte == 0).unwrap_or(input.len()));
    let Ok(expression) = std::str::from_utf8(expression) else { return };
    // Resolving names would run the resolver's code, which can take as long as it likes.
    if expression.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word.len() > 12) {
        return;
    }
    let mut set = match FilterSet::new(expression) {
        Ok(set) => set,
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && text.len() < 4000, "{text}");
            return;
        }
    };
    let length = u32::try_from(packet.len()).unwrap();
    for link_type in USUAL_LINK_TYPES {
        let matches = set.matches(link_type, packet, length);
        assert_eq!(matches, set.matches(link_type, packet, length));
        assert!(matches || !set.is_match_all());
    }
    if let Ok(mut probe) = SessionProbe::new(expression) {
        for network in [Network::Link, Network::Ipv4, Network::Ipv6] {
            let there = Endpoints { network, protocol: 6, source: 1, destination: 2, source_port: 3, ..Endpoints::default() };
            let back = Endpoints { source: 2, destination: 1, destination_port: 3, source_port: 0, ..there };
            assert_eq!(probe.matches(&there), probe.matches(&back), "a session has two directions");
        }
    }
});
