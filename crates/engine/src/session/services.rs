//! Guesses the server side of a session whose opening packets were not seen.
//!
//! The server is the side with a known service port, otherwise the side that was the server in other sessions, otherwise
//! the side with the lower port.

use std::cmp::Ordering;

use super::servers::Servers;
use super::summary::{PerSide, Session, TCP, flag};

pub(super) const UDP: u8 = 17;

/// Registered ports above 1023 of common services (IANA service names and port numbers), sorted.
const SERVICES: [u16; 66] = [
    1194, 1433, 1521, 1701, 1723, 1812, 1813, 1883, 2049, 2181, 2222, 2375, 2376, 2379, 2404, 3128, 3268, 3306, 3389,
    3478, 4369, 4500, 4840, 5060, 5061, 5222, 5353, 5355, 5432, 5601, 5671, 5672, 5900, 5985, 5986, 6379, 6443, 6514,
    6667, 7547, 8000, 8008, 8080, 8081, 8086, 8123, 8333, 8443, 8500, 8530, 8883, 8888, 9000, 9042, 9090, 9092, 9100,
    9200, 9300, 10_250, 11_211, 20_000, 27_017, 44_818, 47_808, 51_820,
];
/// The system ports of RFC 6335 are below this one.
const SYSTEM_PORTS_END: u16 = 1024;

/// Whether servers usually listen on this port.
pub fn is_service(port: u16) -> bool {
    (1..SYSTEM_PORTS_END).contains(&port) || SERVICES.binary_search(&port).is_ok()
}

impl Session {
    /// The session with its sides swapped where its ports, or other sessions, show that the recorded originator is the
    /// server.
    ///
    /// The recorder counts by who spoke first and keeps doing so, as the accounting of a flood must not depend on ports
    /// that a sender chooses. Only readers see swapped sides.
    pub(super) fn with_likely_responder(mut self, servers: &Servers) -> Self {
        let originator = self.originator_is();
        let (from, to) = (self.key.port(originator), self.key.port(originator.other()));
        let protocol = self.key.protocol();
        let answered = |side| servers.sessions_of(self.key.address(side), self.key.port(side), protocol);
        let compared = || answered(originator).cmp(&answered(originator.other()));
        let turned = match (protocol, is_service(from), is_service(to)) {
            // A SYN or SYN-ACK shows which side opened the connection.
            (TCP, ..) if self.flags & (flag::SYN | flag::SYN_ACK) != 0 => false,
            (TCP | UDP, true, false) => true,
            (TCP | UDP, false, true) => false,
            (TCP, ..) => match compared() {
                Ordering::Equal => from < to,
                more => more == Ordering::Greater,
            },
            // Otherwise the first sender is the client.
            (UDP, false, false) => compared() == Ordering::Greater,
            _ => false,
        };
        if turned {
            let swap = |sides: PerSide| PerSide { originator: sides.responder, responder: sides.originator };
            (self.packets, self.bytes) = (swap(self.packets), swap(self.bytes));
            self.flags ^= flag::ORIGINATOR_IS_HIGH;
            let fins = self.flags & (flag::FIN_ORIGINATOR | flag::FIN_RESPONDER);
            if fins == flag::FIN_ORIGINATOR || fins == flag::FIN_RESPONDER {
                self.flags ^= flag::FIN_ORIGINATOR | flag::FIN_RESPONDER;
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_sorted_and_known() {
        assert!(SERVICES.is_sorted());
        for (port, service) in [(0, false), (22, true), (443, true), (3306, true), (3307, false), (40_000, false)] {
            assert_eq!(is_service(port), service, "{port}");
        }
    }
}
