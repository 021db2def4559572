//! `GET /v1/hunt`: searches the packets of a selection, and sends matches as they are found.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::json;

use super::super::narrow::narrow;
use super::super::stream::{ClientGone, Sink, stream};
use super::super::{Answer, AnswerKind};
use super::{Lines, WAITING_BYTES, new_streams, object_limits};
use crate::audit::{Action, AuditEntry};
use crate::peer::Peer;
use crate::service::Service;
use ::hunt::indicators::Indicators;
use ::hunt::narrow::CandidateQuery;
use ::hunt::{Hunter, Match, MatchSink, Report, SearchScope};
use api::content::{MatchLine, MatchedObject};
use api::content_parameters::HuntQuery;
use api::{Problem, describe};
use base::interface::Interfaces;
use objects::{Collector, Object, ObjectSearch, ObjectSink};
use protocols::Protocols;
use streams::{Event, Session};

/// Bytes of one object that is searched.
const OBJECT_BYTES: usize = 4 << 20;
/// Bytes of all objects that are being put together.
const OBJECTS_BYTES: usize = 8 << 20;

/// Answers with the matches, or says that there are none and what could not be searched.
pub(crate) async fn hunt(service: Arc<Service>, peer: Peer, query: HuntQuery) -> Result<Answer, Problem> {
    tracing::debug!("{peer} searches contents: {}", describe::sentence(&query.request));
    let search = Search::new(&query)?;
    let (content, share) = service.content_query(&peer).await?;
    let asked = Arc::clone(&service);
    let answer = move |sink: Sink| {
        // Nobody else searches meanwhile.
        let _content = content;
        for rule in query.wanted.attacks.iter().filter(|_| query.is_own) {
            if let Err(error) = ::hunt::check::check(rule) {
                return sink.refuse(Problem::bad_query(error.to_string()));
            }
        }
        match asked.audit().begin(&peer, Action::Hunt, audited(&query)) {
            Ok(entry) => search.run(&asked, &query, sink, entry),
            Err(problem) => sink.refuse(problem),
        }
    };
    Ok(Answer { media: AnswerKind::Matches, body: stream(&service, share, answer).await? })
}

/// What was asked, for the audit log.
fn audited(query: &HuntQuery) -> serde_json::Value {
    let mut audited = describe::audit(&query.request);
    let attacks: Vec<&str> = query.wanted.attacks.iter().map(|attack| attack.name.as_str()).collect();
    audited["hunt"] = json!({
        "text": query.wanted.texts, "bytes": query.wanted.bytes, "regex": query.wanted.regexes,
        "ioc": query.indicators, "attack": attacks,
    });
    audited
}

/// Compiled rules.
struct Search {
    patterns: ::hunt::patterns::Patterns,
    indicators: Indicators,
    objects: Option<ObjectSearch>,
    /// What the search can be narrowed down to.
    narrowed: Option<CandidateQuery>,
}

impl Search {
    fn new(query: &HuntQuery) -> Result<Self, Problem> {
        let bad = |error: ::hunt::patterns::PatternError| Problem::bad_query(error.to_string());
        let indicators = || {
            let mut indicators = Indicators::default();
            indicators.read(&query.indicators.join("\n"));
            indicators
        };
        let known = indicators();
        if let Some((_, text)) = known.broken.first() {
            let sentence = format!("{text:?} is no indicator: an address, network, name, URL, JA3, JA4, HASSH or hash");
            return Err(Problem::bad_query(sentence));
        }
        let in_objects = query.scope == SearchScope::File;
        let objects = if in_objects || known.hashes().next().is_some() {
            let patterns = if in_objects { query.wanted.object_patterns().map_err(bad)? } else { Default::default() };
            Some(ObjectSearch { patterns, indicators: indicators() })
        } else {
            None
        };
        let narrowed = (!in_objects).then(|| CandidateQuery::of(&query.wanted, &known, Vec::new())).flatten();
        Ok(Self { patterns: query.wanted.stream_patterns().map_err(bad)?, indicators: known, objects, narrowed })
    }

    fn run(self, service: &Service, query: &HuntQuery, sink: Sink, mut entry: AuditEntry) -> Result<(), ClientGone> {
        let history = service.history();
        let mut packets = match history.packets(&query.request) {
            Ok(packets) => packets.interrupted_by(Arc::clone(&sink.gone)).interrupted_by(Arc::clone(&service.stopping)),
            Err(error) => {
                let problem: Problem = error.into();
                entry.end(problem.outcome());
                return sink.refuse(problem);
            }
        };
        let looked = self.narrowed.as_ref().and_then(|wanted| narrow(wanted, history, &mut packets));
        let lines = Rc::new(RefCell::new(Lines::new(sink, query.limit)));
        let matches = Matches { lines: Rc::clone(&lines), interfaces: &history.interfaces };
        let attacks = query.wanted.attacks.clone();
        let hunter = Hunter::new(self.patterns, query.scope, self.indicators, attacks, matches);
        let objects = self.objects.map(|search| {
            let limits =
                objects::ObjectLimits { object_bytes: OBJECT_BYTES, total_bytes: OBJECTS_BYTES, ..object_limits() };
            let found = ObjectMatches { search, lines: Rc::clone(&lines), interfaces: &history.interfaces };
            Protocols::new(Collector::new(limits, found)).with_waiting_bytes_max(WAITING_BYTES)
        });
        let mut both = Both { hunter: hunter.with_waiting_bytes_max(WAITING_BYTES), objects };
        let (mut streams, mut sequence) = (new_streams(), 0);
        while let Some(found) = packets.next() {
            sequence += 1;
            entry.packet(found.packet.data.len());
            streams.packet(&found.packet, sequence, &mut both);
            if lines.borrow().is_done() {
                break;
            }
        }
        let summary = packets.summary();
        drop(packets);
        if !lines.borrow().is_done() {
            streams.finish(&mut both);
            both.hunter.finish();
            if let Some(objects) = &mut both.objects {
                objects.sink.finish();
            }
        }
        let mut report = Report { overtaken: summary.overtaken, ..both.hunter.report() };
        let mut counts = streams.counts();
        if let Some(looked) = looked {
            report = report.with_looked_at(&looked.searched, looked.cut_sessions);
            counts.undecoded = looked.searched.undecoded;
        }
        let mut searched = report.sentence(counts);
        if let Ok(Some(sentence)) = history.unopened(&query.request).map(|packets| packets.sentence()) {
            searched.push_str(&format!("; {sentence}"));
        }
        drop(both);
        let Some(lines) = Rc::into_inner(lines) else { return Err(ClientGone) };
        lines.into_inner().end(
            service,
            entry,
            summary,
            &searched,
            "nothing matched in the bytes that could be searched",
        )
    }
}

/// Sends matches in streams and messages.
struct Matches<'a> {
    lines: Rc<RefCell<Lines>>,
    interfaces: &'a Interfaces,
}

impl MatchSink for Matches<'_> {
    fn found(&mut self, session: &Session, one: Match) {
        self.lines.borrow_mut().add(&MatchLine::new(session, &one, None, self.interfaces));
    }
}

/// Sends matches in objects.
struct ObjectMatches<'a> {
    search: ObjectSearch,
    lines: Rc<RefCell<Lines>>,
    interfaces: &'a Interfaces,
}

impl ObjectSink for ObjectMatches<'_> {
    fn object(&mut self, session: &Session, object: Object) {
        self.search.find(&object, |one| {
            self.lines.borrow_mut().add(&MatchLine::new(
                session,
                &one,
                Some(MatchedObject::new(&object)),
                self.interfaces,
            ));
        });
    }
}

/// The search of streams, and that of objects if it was asked for.
struct Both<'a> {
    hunter: Hunter<Matches<'a>>,
    objects: Option<Protocols<Collector<ObjectMatches<'a>>>>,
}

impl streams::Sink for Both<'_> {
    fn event(&mut self, session: &Session, event: Event<'_>) {
        self.hunter.event(session, event);
        if let Some(objects) = &mut self.objects {
            objects.event(session, event);
        }
    }
}
