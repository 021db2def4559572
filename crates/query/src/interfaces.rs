//! Interface queries: which table entries retained packets still need, and when an interface was not recorded.

use super::{History, Request};
use base::interface::{GapReason, InterfaceGap, Interfaces};
use base::time::Timestamp;

/// Table entries are freed for reuse while fewer than this number are unused or free.
const SLOTS_LEFT_MIN: usize = Interfaces::CAPACITY / 4;

impl History {
    /// Whether few table entries are left, and some belong to interfaces that are gone.
    pub fn interfaces_run_short(&self) -> bool {
        self.interfaces.slots_left() < SLOTS_LEFT_MIN && self.interfaces.gone() > 0
    }

    /// Frees the table entries of interfaces that are gone and have no retained packet, if few entries are left.
    /// Returns the number of freed entries.
    ///
    /// This reads the headers of all retained packets, which can take seconds.
    pub fn free_interfaces(&self, now: Timestamp) -> usize {
        if !self.interfaces_run_short() {
            return 0;
        }
        let mut in_use = vec![false; Interfaces::CAPACITY];
        let mut mark = |slot: u16| {
            if let Some(used) = in_use.get_mut(usize::from(slot)) {
                *used = true;
            }
        };
        for worker in &self.workers {
            for session in worker.sessions.sessions().filter(|session| session.kept_packets > 0) {
                mark(session.key.interface().0);
            }
            for view in worker.segments.views() {
                let mut cursor = worker.segments.cursor(view);
                // The loop ends early if the segment is evicted, because it then holds no packets.
                while let Ok(Some(record)) = worker.segments.next(&mut cursor) {
                    mark(record.header.interface.0);
                }
            }
        }
        let freed = self.interfaces.free(now, &in_use);
        for id in &freed {
            for worker in &self.workers {
                worker.published.reset_interface(*id);
            }
        }
        freed.len()
    }

    /// Describes the latest gap in recording of the request's interfaces within the window, and counts the others;
    /// `None` without gaps.
    pub(super) fn interface_gaps(&self, request: &Request, since: Timestamp, until: Timestamp) -> Option<String> {
        let gaps: Vec<InterfaceGap> = self
            .interfaces
            .gaps()
            .into_iter()
            .filter(|gap| request.interface.as_ref().is_none_or(|name| *name == gap.name))
            .filter(|gap| gap.from <= until && gap.until.is_none_or(|end| end >= since))
            .collect();
        let last = gaps.last()?;
        let more = match gaps.len() {
            1 => String::new(),
            count => format!(", and there were {} such times more", count - 1),
        };
        Some(format!("{}{more}", gap_sentence(last)))
    }

    /// The gap that covers the whole window for the interface of the request, if there is one.
    pub(super) fn gap_over(&self, request: &Request, since: Timestamp, until: Timestamp) -> Option<InterfaceGap> {
        let name = request.interface.as_ref()?;
        self.interfaces
            .gaps()
            .into_iter()
            .find(|gap| gap.name == *name && gap.from <= since && gap.until.is_none_or(|end| until <= end))
    }
}

/// Describes a gap.
pub(super) fn gap_sentence(gap: &InterfaceGap) -> String {
    let InterfaceGap { name, from, .. } = gap;
    let until = gap.until.map_or_else(|| "on".to_owned(), |until| format!("to {until}"));
    match &gap.reason {
        GapReason::Down => format!("nothing was recorded from {name} from {from} {until}: it was down"),
        GapReason::Gone => format!("nothing was recorded from {name} from {from} {until}: it was gone"),
        GapReason::Renamed(new) => {
            format!("nothing was recorded under the name {name} from {from} {until}: it was renamed to {new}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{history, udp};
    use super::*;
    use base::interface::LinkState;
    use base::packet::LinkType;

    #[test]
    fn honest_13_11_entries_whose_packets_are_gone_are_used_again() {
        let second = 1_000_000_000;
        let history = history(4 << 20, vec![(second, udp((1, 1000), (2, 53), 9))]);
        for index in 3..=4097 {
            history.interfaces.intern(&format!("veth{index}"), index, LinkType::ETHERNET).unwrap();
        }
        assert_eq!((history.interfaces.slots_left(), history.interfaces_run_short()), (0, false), "none is gone");
        // The first interface has a packet; the others have none.
        history.interfaces.set_link(2, "eth0", LinkState::Gone, Timestamp(2 * second));
        for index in 3..103 {
            history.interfaces.set_link(index, &format!("veth{index}"), LinkState::Gone, Timestamp(2 * second));
        }
        assert!(history.interfaces_run_short());
        assert_eq!(history.free_interfaces(Timestamp(3 * second)), 0, "gone for a second");
        assert_eq!(history.free_interfaces(Timestamp(60 * second)), 100);
        assert_eq!(history.interfaces.slots_left(), 100);
        for index in 5000..5100 {
            assert!(history.interfaces.intern(&format!("veth{index}"), index, LinkType::ETHERNET).is_some());
        }
        assert_eq!(history.interfaces.intern("more", 6000, LinkType::ETHERNET), None);
        let name = |id: u16| history.interfaces.interface(base::packet::InterfaceId(id)).unwrap().name.clone();
        assert_eq!(name(0), "eth0", "its packet is kept");
        let flow = history.flows(&Request::default(), crate::flows::Sort::Start).unwrap().next().unwrap();
        assert_eq!(flow.key.interface().0, 0);
    }
}
