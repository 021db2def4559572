//! Explains why a query found nothing, or only a part. Causes include eviction, the capture filter, restarts and kernel
//! drops.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::counted::counted;
use super::interfaces::gap_sentence;
use super::matching::probe;
use super::search::{SearchTarget, Selector, SessionTotals};
use super::selectors::Flow;
use super::session_selectors::SessionSelectors;
use super::{History, QueryError, Request, SearchNotes};
use base::packet::LinkType;
use base::time::Timestamp;
use decode::Network;
use engine::handover::Gap;
use filter::{Endpoints, Outcome, SessionProbe};

/// Why a query found nothing, or not everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Stable code for scripts: `nothing_recorded`, `before_horizon`, `after_newest`, `in_future`, `cut`, `filtered`,
    /// `dropped`, `too_many`, `not_recorded`, `not_opened`, `encapsulated`, `fragment`, `undecided` or `never_seen`.
    pub code: &'static str,
    /// Sentence for people.
    pub sentence: String,
    /// Time of the oldest retained packet, if eviction is the cause.
    pub horizon: Option<Timestamp>,
}

impl Cause {
    /// A cause without a horizon.
    pub fn new(code: &'static str, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into(), horizon: None }
    }
}

/// First words of the sentence if the search was complete.
const NEVER_SEEN: &str = "no packet that matches was seen";

/// A snapshot of the history that explains missing packets. One snapshot serves many searches.
#[derive(Clone, Debug)]
pub struct HistoryExtent {
    /// Times of the oldest and the newest retained packet.
    span: Option<(Timestamp, Timestamp)>,
    /// Sessions that ended before this time may be forgotten; `None` while all are known.
    remembered_since: Option<Timestamp>,
    /// The capture filter and its text. The filter tells whether it excludes a session.
    filter: Option<(SessionProbe, String)>,
    filtered: u64,
    whole_since: Option<Timestamp>,
    evicted: u64,
    dropped: u64,
    kernel_dropped: u64,
    /// Packets whose headers are not decoded, by link type.
    unopened: BTreeMap<LinkType, u64>,
    /// Periods in which nothing was recorded because of a restart.
    gaps: Vec<Gap>,
}

/// The properties of a query that explain why packets are missing.
#[derive(Clone, Debug, Default)]
pub struct Question {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    /// Set if the query names the addresses, ports and protocol of one session.
    endpoints: Option<Endpoints>,
    /// Totals of the sessions that match.
    known: SessionTotals,
    /// Packets that the kernel dropped within the window.
    dropped: u64,
    /// Whether packets that are not decoded count as a cause. Otherwise the caller looks for them.
    unopened_counts: bool,
}

impl History {
    /// Takes a snapshot of the history that explains missing packets.
    pub fn reach(&self) -> HistoryExtent {
        let totals = self.totals();
        let mut remembered_since = None;
        for worker in &self.workers {
            if worker.sessions.has_forgotten() {
                remembered_since = remembered_since.max(worker.sessions.earliest());
            }
        }
        let filter = self.capture_filter.get().and_then(|text| Some((SessionProbe::new(&text).ok()?, text)));
        HistoryExtent {
            span: self.span(),
            remembered_since,
            filter,
            filtered: totals.filtered.packets,
            whole_since: totals.lost_until.and_then(|_| self.whole_since()),
            evicted: totals.evicted.packets,
            dropped: totals.dropped.into_iter().map(|volume| volume.packets).sum(),
            kernel_dropped: totals.kernel_dropped,
            unopened: self.unopened_so_far(),
            gaps: self.restart.gaps.clone(),
        }
    }

    /// Packets received so far whose headers are not decoded.
    fn unopened_so_far(&self) -> BTreeMap<LinkType, u64> {
        let mut packets = BTreeMap::new();
        for interface in self.interfaces.snapshot().iter().filter(|interface| !decode::opens(interface.link_type)) {
            let received: u64 =
                self.workers.iter().map(|worker| worker.published.interface(interface.id).packets).sum();
            *packets.entry(interface.link_type).or_default() += received;
        }
        packets
    }

    /// Explains why `request` finds nothing. `notes` comes from the search for its packets.
    ///
    /// # Errors
    ///
    /// The same as for the request itself.
    pub fn explain_nothing(&self, request: &Request, notes: Option<&SearchNotes>) -> Result<Cause, QueryError> {
        let (since, until) = request.window()?;
        let question = Question {
            since: request.since,
            until: request.until,
            endpoints: request.flow.as_ref().and_then(endpoints),
            known: self.known(request)?,
            dropped: notes.map_or(0, |notes| notes.dropped_within(since, until)),
            unopened_counts: false,
        };
        let mut cause = self.reach().cause(&question);
        if matches!(cause.code, "never_seen" | "after_newest")
            && let Some(gap) = self.gap_over(request, since, until)
        {
            return Ok(Cause::new("not_recorded", gap_sentence(&gap)));
        }
        if cause.code == "never_seen"
            && let Some((code, sentence)) = self.remainder(request, notes.unwrap_or(&SearchNotes::default()))?.cause()
        {
            return Ok(Cause::new(code, format!("no packet matches the expression, but {sentence}")));
        }
        let undecided_sessions = question.known.undecided;
        if undecided_sessions > 0 {
            if cause.code == "never_seen" {
                cause.code = "undecided";
                cause.sentence = cause.sentence.replacen(NEVER_SEEN, "no packet that is kept matches", 1);
            }
            cause.sentence = format!("{}; {}", cause.sentence, undecided(undecided_sessions));
        }
        if request.names_content()
            && let Some(sentence) = self.not_opened(request)?
        {
            if cause.code == "never_seen" {
                cause = Cause::new("not_opened", format!("no packet that matches was found, but {sentence}"));
            } else {
                cause.sentence = format!("{}; {sentence}", cause.sentence);
            }
        }
        if let Some(sentence) = self.interface_gaps(request, since, until) {
            cause.sentence = format!("{}; {sentence}", cause.sentence);
        }
        Ok(cause)
    }

    /// Describes packets that the query could not check, by link type: their headers are not decoded, or the expression
    /// does not apply to their link type. Counts all packets of the sessions that overlap the window, on the interface that
    /// was asked for.
    ///
    /// # Errors
    ///
    /// The same as for the request itself.
    pub fn not_opened(&self, request: &Request) -> Result<Option<String>, QueryError> {
        let (since, until) = request.window()?;
        let interfaces = self.interfaces.snapshot();
        let mut filter = request.filter(&self.link_types())?;
        let mut packets: BTreeMap<LinkType, u64> = BTreeMap::new();
        let closed: Vec<bool> = interfaces
            .iter()
            .map(|interface| {
                let wanted = request.interface.as_ref().is_none_or(|name| *name == interface.name);
                let can_ask = filter.as_mut().is_none_or(|filter| filter.can_ask(interface.link_type));
                wanted && !(decode::opens(interface.link_type) && can_ask)
            })
            .collect();
        if !closed.contains(&true) {
            return Ok(None);
        }
        for session in self.workers.iter().flat_map(|worker| worker.sessions.known(since, until)).map(|known| known.1) {
            let at = usize::from(session.key.interface().0);
            if closed.get(at) == Some(&true)
                && let Some(interface) = interfaces.get(at)
            {
                *packets.entry(interface.link_type).or_default() += session.packets.sum();
            }
        }
        Ok(not_opened(&packets))
    }

    /// Explains what is missing from the answer to `request`, which found something; `None` if nothing is missing.
    ///
    /// # Errors
    ///
    /// The same as for the request itself.
    pub fn explain_missing(&self, request: &Request, notes: &SearchNotes) -> Result<Option<String>, QueryError> {
        let (since, until) = request.window()?;
        let mut missing = Vec::new();
        let known = self.known(request)?;
        missing.extend(known.is_cut().then(|| cut(&known)));
        missing.extend((known.undecided > 0).then(|| undecided(known.undecided)));
        missing.extend(self.remainder(request, notes)?.sentence());
        if request.names_content() {
            missing.extend(self.not_opened(request)?);
        }
        missing.extend(self.not_recorded(since, until));
        missing.extend(self.interface_gaps(request, since, until));
        let dropped = notes.dropped_within(since, until);
        missing.extend((dropped > 0).then(|| dropped_within(dropped)));
        Ok((!missing.is_empty()).then(|| missing.join("; ")))
    }

    /// Whether no packet was dropped before it was stored, and no packet with this time or a later one was evicted.
    fn is_whole_since(&self, since: Timestamp) -> bool {
        let totals = self.totals();
        let dropped: u64 = totals.dropped.iter().map(|volume| volume.packets).sum();
        dropped == 0 && totals.lost_until.is_none_or(|lost| lost < since)
    }

    /// Describes the restart gaps within the window, but none before the oldest retained packet.
    fn not_recorded(&self, since: Timestamp, until: Timestamp) -> Option<String> {
        if self.restart.gaps.is_empty() {
            return None;
        }
        let (oldest, _) = self.span()?;
        let since = since.max(oldest);
        let gaps =
            self.restart.gaps.iter().filter(|gap| gap.from <= until && gap.until >= since && gap.from < gap.until);
        let (count, seconds, last) = gaps.fold((0u32, 0.0, None), |(count, seconds, _), gap| {
            (count + 1, seconds + gap.until.since(gap.from).as_secs_f64(), Some(gap))
        });
        let last = last?;
        let times = if count == 1 { String::new() } else { format!(" {count} times, the last time") };
        Some(format!(
            "nothing was recorded{times} from {} to {} ({seconds:.1} s{}), while the recorder was restarted",
            last.from,
            last.until,
            if count == 1 { "" } else { " altogether" }
        ))
    }

    /// Totals of the matching sessions that lost packets and overlap the window. Empty if no packet since the start of
    /// the window was evicted or dropped.
    fn known(&self, request: &Request) -> Result<SessionTotals, QueryError> {
        let (since, until) = request.window()?;
        let selectors = SessionSelectors::new(request, self)?;
        let mut probe = probe(request)?;
        let mut known = SessionTotals::default();
        if self.is_whole_since(since) {
            return Ok(known);
        }
        for session in self.workers.iter().flat_map(|worker| worker.sessions.cut(since, until)) {
            if !selectors.interface(session.key.interface()) || !selectors.session(&session.key) {
                continue;
            }
            match probe.as_mut().map_or(Outcome::Matches, |probe| probe.ask(&Endpoints::from(&session.key))) {
                Outcome::Matches => known.add(&session),
                Outcome::Unknown => known.undecided += 1,
                Outcome::Rejects => {}
            }
        }
        Ok(known)
    }
}

impl Question {
    /// The question for one of many selectors.
    pub fn of(selector: &Selector, known: SessionTotals, notes: &SearchNotes) -> Self {
        let endpoints = match &selector.target {
            SearchTarget::Flow(flow) => endpoints(flow),
            SearchTarget::Host(_) | SearchTarget::CommunityId(_) => None,
        };
        let dropped = notes.dropped_within(selector.since, selector.until);
        Self {
            since: Some(selector.since),
            until: Some(selector.until),
            endpoints,
            known,
            dropped,
            unopened_counts: true,
        }
    }
}

impl HistoryExtent {
    /// Time of the oldest retained packet.
    pub fn horizon(&self) -> Option<Timestamp> {
        self.span.map(|(oldest, _)| oldest)
    }

    /// Explains why a query finds nothing.
    pub fn cause(&mut self, question: &Question) -> Cause {
        let Some((oldest, newest)) = self.span else { return self.nothing_recorded() };
        let since = question.since.unwrap_or(Timestamp::MIN);
        let until = question.until.unwrap_or(Timestamp::MAX);
        let forgotten = self.remembered_since.is_some_and(|remembered| until < remembered);
        if until < oldest || (question.known.sessions == 0 && forgotten) {
            return self.before_horizon(question, oldest);
        }
        if self.filtered > 0
            && question.known.sessions == 0
            && let (Some(endpoints), Some((filter, text))) = (&question.endpoints, &mut self.filter)
            && !filter.matches(endpoints)
        {
            return Cause::new(
                "filtered",
                format!(
                    "the capture filter {text:?} keeps such packets out: {} of all kinds so far, which are not recorded",
                    self.filtered
                ),
            );
        }
        if let Some(gap) = self.gaps.iter().find(|gap| gap.from <= since && until <= gap.until) {
            return Cause::new(
                "not_recorded",
                format!("nothing was recorded from {} to {}, while the recorder was restarted", gap.from, gap.until),
            );
        }
        if since > newest {
            return Cause::new("after_newest", format!("nothing is that new: the newest packet kept is from {newest}"));
        }
        if question.known.left_out > 0 && question.known.left_out == question.known.sessions {
            return Cause::new("too_many", left_out(question.known.left_out));
        }
        if question.known.is_cut() {
            let sentence = format!("{}, none of them in this window that match", cut(&question.known));
            return Cause { horizon: Some(oldest), ..Cause::new("cut", sentence) };
        }
        if question.dropped > 0 {
            let dropped = question.dropped;
            return Cause::new(
                "dropped",
                format!("no packet that matches was recorded, but {}", dropped_within(dropped)),
            );
        }
        if question.unopened_counts
            && let Some(sentence) = not_opened(&self.unopened)
        {
            return Cause::new("not_opened", format!("no packet that matches was found, but {sentence}"));
        }
        self.never_seen(since)
    }

    /// Explains what is missing from an answer that is not empty; `None` if nothing is known to be missing.
    pub fn missing(&self, question: &Question) -> Option<Cause> {
        let (known, dropped) = (&question.known, question.dropped);
        let cause = if known.left_out > 0 {
            Some(Cause::new("too_many", left_out(known.left_out)))
        } else if known.is_cut() {
            Some(Cause { horizon: self.horizon(), ..Cause::new("cut", cut(known)) })
        } else {
            (dropped > 0).then(|| Cause::new("dropped", format!("{}, of any session", dropped_within(dropped))))
        };
        match (cause, not_opened(&self.unopened)) {
            (Some(cause), Some(sentence)) => {
                Some(Cause { sentence: format!("{}; {sentence}", cause.sentence), ..cause })
            }
            (cause, sentence) => cause.or_else(|| sentence.map(|sentence| Cause::new("not_opened", sentence))),
        }
    }

    fn nothing_recorded(&self) -> Cause {
        let kept_out = self.filtered;
        if kept_out > 0 {
            let filter = self.filter.as_ref().map_or("", |(_, text)| text);
            let sentence = format!(
                "nothing is recorded: all {kept_out} packets so far were kept out by the capture filter {filter:?}"
            );
            return Cause::new("filtered", sentence);
        }
        Cause::new("nothing_recorded", "no packet has been recorded yet")
    }

    fn before_horizon(&self, question: &Question, oldest: Timestamp) -> Cause {
        let mut sentence = format!("that is before the horizon: the oldest packet kept is from {oldest}");
        if question.known.sessions > 0 {
            sentence.push_str(&format!("; {}", cut(&question.known)));
        } else if let Some(remembered) = self.remembered_since {
            sentence.push_str(&format!(", and not all sessions that ended before {remembered} are remembered"));
        }
        Cause { code: "before_horizon", sentence, horizon: Some(oldest) }
    }

    fn never_seen(&self, since: Timestamp) -> Cause {
        let mut sentence = NEVER_SEEN.to_owned();
        if let Some(whole) = self.whole_since.filter(|&whole| since < whole) {
            let evicted = self.evicted;
            sentence.push_str(&format!(
                "; before {whole} only the starts of sessions are kept, {}",
                counted(evicted, "packet has been evicted", "packets have been evicted")
            ));
        }
        if let Some((_, filter)) = &self.filter {
            sentence.push_str(&format!(
                "; the capture filter {filter:?} kept {} out",
                counted(self.filtered, "packet", "packets")
            ));
        }
        if self.kernel_dropped > 0 {
            sentence.push_str(&format!("; the kernel dropped {}", counted(self.kernel_dropped, "packet", "packets")));
        }
        if self.dropped > 0 {
            sentence.push_str(&format!(
                "; {}",
                counted(
                    self.dropped,
                    "packet was dropped before it was stored",
                    "packets were dropped before they were stored"
                )
            ));
        }
        Cause::new("never_seen", sentence)
    }
}

fn dropped_within(packets: u64) -> String {
    format!("the kernel dropped {} within that time", counted(packets, "packet", "packets"))
}

/// Describes what is left of sessions that were cut.
pub fn cut(known: &SessionTotals) -> String {
    let SessionTotals { sessions, packets, bytes, kept_packets, kept_bytes, .. } = known;
    let left = format!(
        "{kept_packets} of {} {} left",
        counted(*packets, "packet", "packets"),
        if *kept_packets == 1 { "is" } else { "are" }
    );
    match (sessions, kept_packets) {
        (1, 0) if *packets == 1 => {
            format!("a session that matches was seen, but its only packet ({bytes} bytes) is gone")
        }
        (1, 0) => format!("a session that matches was seen, but all of its {packets} packets ({bytes} bytes) are gone"),
        (1, _) => format!("a session that matches was cut after {kept_bytes} of {bytes} bytes: {left}"),
        _ => format!("{sessions} sessions that match were cut: {kept_bytes} of {bytes} bytes, {left}"),
    }
}

/// Describes cut sessions for which the lost packets would decide the expression.
pub(super) fn undecided(sessions: u64) -> String {
    match sessions {
        1 => "1 session that may match is cut, and what it lost cannot be searched".to_owned(),
        _ => format!("{sessions} sessions that may match are cut, and what they lost cannot be searched"),
    }
}

/// Describes packets whose headers are not decoded; `None` if there are none.
pub fn not_opened(packets: &BTreeMap<LinkType, u64>) -> Option<String> {
    let parts: Vec<String> = packets
        .iter()
        .filter(|(_, packets)| **packets > 0)
        .map(|(link_type, packets)| format!("{} of link type {link_type}", counted(*packets, "packet", "packets")))
        .collect();
    let were = if packets.values().sum::<u64>() == 1 { "was" } else { "were" };
    (!parts.is_empty()).then(|| format!("{} {were} not opened", parts.join(" and ")))
}

fn left_out(sessions: u64) -> String {
    format!(
        "{} left out: more match than fit into the memory for queries; narrow it down",
        counted(sessions, "session was", "sessions were")
    )
}

/// The endpoints of a flow, if it names its protocol and, for protocols with ports, both ports.
fn endpoints(flow: &Flow) -> Option<Endpoints> {
    let protocol = flow.protocol?;
    let has_ports = matches!(protocol, 6 | 17 | 132);
    if has_ports && (flow.a.1 == 0 || flow.b.1 == 0) {
        return None;
    }
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    Some(Endpoints {
        network: if flow.a.0.is_ipv4() { Network::Ipv4 } else { Network::Ipv6 },
        protocol,
        source: number(flow.a.0),
        destination: number(flow.b.0),
        source_port: flow.a.1,
        destination_port: flow.b.1,
        ..Endpoints::default()
    })
}
