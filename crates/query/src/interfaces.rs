//! Interface queries: which table entries retained packets still need, and when an interface was not recorded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{History, Request};
use base::counters::Volume;
use base::foreign::Foreign;
use base::interface::{GapReason, InterfaceGap, Interfaces};
use base::time::Timestamp;

/// Table entries are freed for reuse while fewer than this number are unused or free.
const SLOTS_LEFT_MIN: usize = Interfaces::CAPACITY / 4;
/// Maximum number of gaps that the status lists.
const STATUS_GAPS_MAX: usize = 100;
/// Maximum number of gaps that an export lists.
const EXPORT_GAPS_MAX: usize = 32;

/// Packets of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceStatus {
    /// Name of the interface.
    pub name: Foreign,
    /// Index in the operating system; 0 for an interface of a capture file.
    pub index: u32,
    /// Link type, as tcpdump -L names it.
    pub link_type: Foreign,
    /// Packets received from the interface.
    pub packets: u64,
    /// Captured bytes received from the interface.
    pub bytes: u64,
    /// Whether the interface is up.
    pub up: bool,
    /// Time at which the interface was removed or renamed; null while it exists.
    #[schemars(extend("format" = "date-time"))]
    #[serde(default)]
    pub gone: Option<Foreign>,
}

/// A period in which nothing could be recorded from an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceGapStatus {
    /// Name of the interface.
    pub interface: Foreign,
    /// Index of the interface in the operating system.
    pub index: u32,
    /// Start of the gap.
    #[schemars(extend("format" = "date-time"))]
    pub from: Foreign,
    /// End of the gap; null while it lasts.
    #[schemars(extend("format" = "date-time"))]
    pub until: Option<Foreign>,
    /// Reason for the gap.
    #[schemars(extend("enum" = ["down", "gone", "renamed"]))]
    pub reason: Foreign,
    /// The new name of an interface that was renamed. Its packets are recorded under that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_to: Option<Foreign>,
}

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

    /// The status of each entry of the table, including interfaces that are gone.
    pub(super) fn interface_status(&self) -> Vec<InterfaceStatus> {
        let all = self.interfaces.snapshot();
        all.iter()
            .map(|interface| {
                let seen: Volume = self.workers.iter().map(|worker| worker.published.interface(interface.id)).sum();
                InterfaceStatus {
                    name: interface.name.clone().into(),
                    index: interface.index,
                    link_type: interface.link_type.to_string().into(),
                    packets: seen.packets,
                    bytes: seen.bytes,
                    up: interface.up,
                    gone: interface.gone.map(|gone| gone.to_rfc3339().into()),
                }
            })
            .collect()
    }

    /// The latest gaps of interfaces, and the number of all gaps.
    pub(super) fn interface_gap_status(&self) -> (Vec<InterfaceGapStatus>, u64) {
        let gaps = self.interfaces.gaps();
        let total = self.interfaces.gaps_dropped().saturating_add(gaps.len() as u64);
        let latest = &gaps[gaps.len().saturating_sub(STATUS_GAPS_MAX)..];
        (latest.iter().map(InterfaceGapStatus::from).collect(), total)
    }

    /// Describes the gaps of the request's interfaces within its window, one sentence each, for the comments of an
    /// export.
    pub fn describe_interface_gaps(&self, request: &Request) -> Vec<String> {
        let Ok((since, until)) = request.window() else { return Vec::new() };
        let gaps = self.gaps_within(request, since, until);
        let more = gaps.len().saturating_sub(EXPORT_GAPS_MAX);
        let mut sentences: Vec<String> = gaps[more..].iter().map(gap_sentence).collect();
        if more > 0 {
            sentences.push(format!("there were {more} such times before these"));
        }
        sentences
    }

    fn gaps_within(&self, request: &Request, since: Timestamp, until: Timestamp) -> Vec<InterfaceGap> {
        let mut gaps = self.interfaces.gaps();
        gaps.retain(|gap| {
            request.interface.as_ref().is_none_or(|name| *name == gap.name)
                && gap.from <= until
                && gap.until.is_none_or(|end| end >= since)
        });
        gaps
    }

    /// Describes the latest gap in recording of the request's interfaces within the window, and counts the others;
    /// `None` without gaps.
    pub(super) fn interface_gaps(&self, request: &Request, since: Timestamp, until: Timestamp) -> Option<String> {
        let gaps = self.gaps_within(request, since, until);
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

impl From<&InterfaceGap> for InterfaceGapStatus {
    fn from(gap: &InterfaceGap) -> Self {
        let (reason, renamed_to) = match &gap.reason {
            GapReason::Down => ("down", None),
            GapReason::Gone => ("gone", None),
            GapReason::Renamed(new) => ("renamed", Some(new.clone().into())),
        };
        Self {
            interface: gap.name.clone().into(),
            index: gap.index,
            from: gap.from.to_rfc3339().into(),
            until: gap.until.map(|until| until.to_rfc3339().into()),
            reason: reason.into(),
            renamed_to,
        }
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
