//! The same endpoints on two VLANs are two sessions, also on the page.

use etherparse::{PacketBuilder, VlanId};

use super::Opened;
use crate::generate;

#[test]
fn a_session_shows_the_packets_of_its_own_vlan() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vlans.pcap");
    let mut file = generate::header();
    for number in 0..6u16 {
        let vlan = VlanId::try_new(10 + 10 * (number % 2)).unwrap();
        let packet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).single_vlan(vlan);
        let packet = packet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(5000, 6000);
        let mut frame = Vec::new();
        packet.write(&mut frame, format!("this is vlan {}", vlan.value()).as_bytes()).unwrap();
        let length = u32::try_from(frame.len()).unwrap();
        for field in [1_700_000_000, u32::from(number) * 1_000_000, length, length] {
            file.extend(field.to_le_bytes());
        }
        file.extend(frame);
    }
    std::fs::write(&path, file).unwrap();
    let page = Opened::of(&path, &[], 3600);
    super::browser::passes("a_session_shows_the_packets_of_its_own_vlan", "vlans.mjs", &page.recorder);
}
