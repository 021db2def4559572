//! Any bytes as the kernel's messages about interfaces, whose names and addresses others choose: reading ends, and
//! the table never has more entries than there is room for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use retrocap::capture::interfaces::{addresses, reports};
use retrocap::capture::monitor::apply;
use retrocap::capture::selection::InterfaceSelection;
use retrocap::interface::Interfaces;

fuzz_target!(|datagram: &[u8]| {
    for (interface, _) in reports(datagram) {
        assert!(!interface.name.is_empty() && !interface.name.contains('\0') && interface.name.len() <= 3 * datagram.len());
    }
    for (_, _, prefix) in addresses(datagram) {
        let _ = prefix;
    }
    assert!(reports(datagram).count() + addresses(datagram).count() <= datagram.len() / 16);
    let (all, one) = (InterfaceSelection::new(&[]), InterfaceSelection::new(&["eth0".to_owned()]));
    for selection in [&all, &one] {
        let interfaces = Interfaces::default();
        apply(datagram, selection, &interfaces);
        assert!(interfaces.snapshot().len() <= Interfaces::CAPACITY);
    }
    for link in one.links().iter().filter(|link| one.contains(link.index)) {
        assert_eq!(link.name, "eth0");
    }
});
