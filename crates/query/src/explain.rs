//! Explains why a query found nothing, or only a part. Causes include eviction, the capture filter, restarts and kernel
//! drops.

use std::net::IpAddr;

use super::interfaces::gap_sentence;
use super::matching::probe;
use super::search::{Search, SearchTarget, Selector, SessionTotals};
use super::selectors::Flow;
use super::session_selectors::SessionSelectors;
use super::unopened::Thoroughness;
use super::{History, QueryError, Request, SearchNotes, UnopenedPackets};
use base::counted::counted;
use base::time::Timestamp;
use decode::Network;
use engine::handover::Gap;
use engine::session::Session;
use filter::{Endpoints, Outcome, SessionProbe};

/// Why a query found nothing, or not everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Stable code for scripts: `nothing_recorded`, `before_horizon`, `after_newest`, `in_future`, `cut`, `filtered`,
    /// `dropped`, `too_many`, `not_recorded`, `not_opened`, `encrypted`, `cut_headers`, `quoted`, `encapsulated`,
    /// `fragment`, `undecided` or `never_seen`.
    pub code: &'static str,
    /// Sentence for people.
    pub sentence: String,
    /// Time of the oldest retained packet, if eviction is the cause.
    pub horizon: Option<Timestamp>,
    /// Packets that were not opened, whatever the cause.
    pub unopened: UnopenedPackets,
}

impl Cause {
    /// A cause without a horizon.
    pub fn new(code: &'static str, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into(), horizon: None, unopened: UnopenedPackets::default() }
    }

    /// Adds the packets that were not opened. They are the cause if everything else was looked at.
    fn with_unopened(mut self, unopened: UnopenedPackets) -> Self {
        if let Some(sentence) = unopened.sentence() {
            if self.code == "never_seen" {
                self = Self::new(unopened.code(), format!("no packet that matches was found, but {sentence}"));
            } else {
                self.sentence = format!("{}; {sentence}", self.sentence);
            }
            self.unopened = unopened;
        }
        self
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
    /// Packets that were not opened, in the window of all searches.
    unopened: UnopenedPackets,
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
            unopened: UnopenedPackets::default(),
            gaps: self.restart.gaps.clone(),
        }
    }

    /// As [`reach`](Self::reach), with the packets of a window that were not opened.
    ///
    /// # Errors
    ///
    /// When the window ends before it begins.
    pub fn reach_of(&self, since: Timestamp, until: Timestamp) -> Result<HistoryExtent, QueryError> {
        let window = Request { since: Some(since), until: Some(until), ..Request::default() };
        Ok(HistoryExtent { unopened: self.unopened(&window)?, ..self.reach() })
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
        if request.names_content() {
            cause = cause.with_unopened(self.unopened_beside(
                request,
                notes.unwrap_or(&SearchNotes::default()),
                Thoroughness::Inside,
            )?);
        }
        if let Some(sentence) = self.interface_gaps(request, since, until) {
            cause.sentence = format!("{}; {sentence}", cause.sentence);
        }
        Ok(cause)
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
            missing.extend(self.unopened_beside(request, notes, Thoroughness::Kept)?.sentence());
        }
        missing.extend(self.not_recorded(since, until));
        missing.extend(self.interface_gaps(request, since, until));
        let dropped = notes.dropped_within(since, until);
        missing.extend((dropped > 0).then(|| dropped_within(dropped)));
        Ok((!missing.is_empty()).then(|| missing.join("; ")))
    }

    /// Explains what is missing from an answer with the whole sessions of the packets that `request` matches; `None` if
    /// nothing is missing. `known` are their totals, and `search` found them.
    ///
    /// # Errors
    ///
    /// The same as for the request itself.
    pub fn explain_missing_whole(&self, request: &Request, search: &Search) -> Result<Option<String>, QueryError> {
        let found = search.known.first().copied().unwrap_or_default();
        let mut missing = Vec::new();
        missing.extend(found.is_cut().then(|| cut(&found)));
        let undecided_sessions = self.known_beside(request, &search.notes)?.undecided;
        missing.extend((undecided_sessions > 0).then(|| undecided(undecided_sessions)));
        missing.extend(self.remainder(request, &search.notes)?.beside_whole_sessions());
        if request.names_content() {
            missing.extend(self.unopened_beside(request, &search.notes, Thoroughness::Kept)?.sentence());
        }
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
        self.known_beside(request, &SearchNotes::default())
    }

    /// As [`known`](Self::known), without the sessions in which packets were found.
    fn known_beside(&self, request: &Request, found: &SearchNotes) -> Result<SessionTotals, QueryError> {
        let (since, until) = request.window()?;
        let selectors = SessionSelectors::new(request, self)?;
        let mut probe = probe(request)?;
        let mut known = SessionTotals::default();
        if self.is_whole_since(since) {
            return Ok(known);
        }
        let workers = self.workers.iter().enumerate();
        let cut = workers.flat_map(|(number, worker)| worker.sessions.cut(since, until).map(move |cut| (number, cut)));
        for (number, session) in cut {
            // What a session has lost, it had lost at that time.
            let lost_before = session.cut_at.is_some_and(|at| at < since);
            if lost_before || !selectors.interface(session.key.interface()) || !selectors.session(&session.key) {
                continue;
            }
            if !session.is_past() && found.found_of(number, &session).is_some() {
                continue;
            }
            match probe.as_mut().map_or(Outcome::Matches, |probe| ask(probe, &session)) {
                Outcome::Matches => known.add(&session),
                Outcome::Unknown => known.undecided += 1,
                Outcome::Rejects => {}
            }
        }
        Ok(known)
    }
}

/// Whether a packet that a session has lost matches an expression.
fn ask(probe: &mut SessionProbe, session: &Session) -> Outcome {
    match session.key.tunnel() {
        0 => probe.ask(&Endpoints::from(&session.key)),
        // An expression does not look into tunnels, and the packets that are left have the same headers around them.
        _ if session.kept_packets > 0 => Outcome::Rejects,
        _ => Outcome::Unknown,
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
        Self { since: Some(selector.since), until: Some(selector.until), endpoints, known, dropped }
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
        self.never_seen(since).with_unopened(self.unopened.clone())
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
        match (cause, self.unopened.sentence()) {
            (Some(cause), _) => Some(cause.with_unopened(self.unopened.clone())),
            (None, Some(sentence)) => {
                Some(Cause { unopened: self.unopened.clone(), ..Cause::new(self.unopened.code(), sentence) })
            }
            (None, None) => None,
        }
    }

    fn nothing_recorded(&self) -> Cause {
        let kept_out = self.filtered;
        if kept_out > 0 {
            let filter = self.filter.as_ref().map_or("", |(_, text)| text);
            let sentence = format!(
                "nothing is recorded: the capture filter {filter:?} kept {} out so far, which is all",
                counted(kept_out, "packet", "packets")
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
        Cause { horizon: Some(oldest), ..Cause::new("before_horizon", sentence) }
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
    let SessionTotals { sessions, packets, bytes, kept_packets, kept_bytes, cut, .. } = known;
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
        _ if cut < sessions => {
            let were = if *cut == 1 { "was" } else { "were" };
            format!("{cut} of the {sessions} sessions that match {were} cut: {kept_bytes} of {bytes} bytes, {left}")
        }
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
