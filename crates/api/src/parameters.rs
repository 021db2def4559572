//! The meaning of a query string: what a question asks of the history, at the time when it is asked.
//!
//! [`question`](super::question) has the keys. Nothing here panics, whatever the text.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

pub use super::error::ParameterError;
use super::error::wrong;
use super::question::{FlowsQuestion, PacketsQuestion, SelectionQuestion};
use super::value::{ParameterValue as _, Texts};
use base::time::{self, Timestamp};
use engine::session::community_id::CommunityId;
use formats::writer::{Format, Precision};
use protocols::AppFilter;
use query::Request;
use query::flows::Sort;
use query::listing::PageCursor;
use query::names::NameFilter;
use query::selectors::{Flow, FlowError, Subnet, SubnetError};
use query::sums::By;

/// How far the window reaches to each side of `around` by default.
pub const WINDOW_DEFAULT: Duration = Duration::from_secs(5);

/// Sessions that a listing can name.
const IDS_MAX: usize = 1024;

/// The time that a question refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The time that `10m` counts back from.
    pub now: Timestamp,
    /// The time of the newest packet kept; in a replayed capture it may be later than now.
    pub newest: Option<Timestamp>,
}

/// What `/v1/packets` is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketQuery {
    /// Which packets.
    pub request: Request,
    /// In which format.
    pub format: Format,
    /// With which resolution of times.
    pub precision: Precision,
    /// Whether the answer continues with packets that arrive later.
    pub follow: bool,
    /// The TCP connection that carries the answer on, the asking end first; it is not recorded meanwhile.
    pub carried_by: Option<(SocketAddr, SocketAddr)>,
    /// Whether the answer has all packets of the sessions that match.
    pub whole_sessions: bool,
    /// Of the packets that match, only those of this application.
    pub app: Option<AppFilter>,
    /// Whether the recorder signs what it sends.
    pub seal: bool,
}

/// What `/v1/flows` is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowQuery {
    /// Which sessions.
    pub request: Request,
    /// In which order.
    pub sort: Sort,
    /// Only sessions after this mark.
    pub after: Option<PageCursor>,
    /// Only sessions with such a name.
    pub name: Option<NameFilter>,
    /// Only sessions of this process: its number, name or path.
    pub process: Option<String>,
    /// Only sessions of processes in this container, pod or unit.
    pub container: Option<String>,
    /// Only sessions of this application.
    pub app: Option<AppFilter>,
    /// Sums in place of sessions.
    pub by: Option<By>,
    /// Only sessions with these identities.
    pub ids: Option<Arc<HashSet<u64>>>,
}

impl PacketQuery {
    /// Reads the query string of a URL, without its question mark.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn read(query: &str, clock: Clock) -> Result<Self, ParameterError> {
        Self::new(PacketsQuestion::read(query)?, clock)
    }

    /// What a question means at the time of `clock`.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn new(question: PacketsQuestion, clock: Clock) -> Result<Self, ParameterError> {
        let PacketsQuestion { mut selection, export } = question;
        let precision = match (export.precision, export.nano.unwrap_or(false), export.micro.unwrap_or(false)) {
            (_, true, true) => return Err(ParameterError::Exclusive("nano", "micro")),
            (Some(Precision::Micro), true, _) => return Err(ParameterError::Exclusive("precision", "nano")),
            (Some(Precision::Nano), _, true) => return Err(ParameterError::Exclusive("precision", "micro")),
            (Some(precision), ..) => precision,
            (None, _, true) => Precision::Micro,
            (None, _, false) => Precision::Nano,
        };
        let follow = export.follow.unwrap_or(false);
        let carried_by = export.carried_by.as_deref().map(connection).transpose()?;
        if carried_by.is_some() && !follow {
            return Err(ParameterError::Needs("carried-by", "follow"));
        }
        let whole_sessions = export.whole_sessions.unwrap_or(false);
        if whole_sessions && follow {
            return Err(ParameterError::Exclusive("whole-sessions", "follow"));
        }
        let dedup = export.dedup.unwrap_or(false);
        if let Some(other) = export.app.as_ref().and(follow.then_some("follow").or(dedup.then_some("dedup"))) {
            return Err(ParameterError::Exclusive("app", other));
        }
        if follow && selection.around.is_some() {
            return Err(ParameterError::Exclusive("around", "follow"));
        }
        let ahead = if follow { selection.until.take() } else { None };
        let ahead = ahead.map(|until| until_ahead(&until, clock)).transpose()?;
        let request = request(selection, clock)?;
        Ok(Self {
            request: Request { limit: export.count.map(Into::into), dedup, until: ahead.or(request.until), ..request },
            whole_sessions,
            app: export.app,
            seal: export.seal.unwrap_or(false),
            format: export.format.unwrap_or_default(),
            precision,
            follow,
            carried_by,
        })
    }
}

impl FlowQuery {
    /// Whether only sessions of a process or container are wanted.
    pub fn is_by_process(&self) -> bool {
        self.process.is_some() || self.container.is_some()
    }

    /// Reads the query string of a URL, without its question mark.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn read(query: &str, clock: Clock) -> Result<Self, ParameterError> {
        Self::new(FlowsQuestion::read(query)?, clock)
    }

    /// What a question means at the time of `clock`.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn new(question: FlowsQuestion, clock: Clock) -> Result<Self, ParameterError> {
        let FlowsQuestion { selection, listing } = question;
        match (listing.by, listing.sort, &listing.name) {
            (Some(_), Some(Sort::Duration), _) => {
                return Err(wrong("sort", "duration", "start, last, bytes, packets, out or in of sums"));
            }
            (Some(_), _, Some(_)) => return Err(ParameterError::Exclusive("by", "name")),
            (Some(_), ..) if listing.ids.is_some() => return Err(ParameterError::Exclusive("by", "id")),
            (_, _, Some(name)) if name.trim_matches('.').is_empty() => {
                return Err(wrong("name", name, "a part of a name, as in example.com or .example.com"));
            }
            _ => {}
        }
        if listing.app.is_some() {
            let other = listing.by.map(|_| "by").or(listing.after.map(|_| "after"));
            if let Some(other) = other {
                return Err(ParameterError::Exclusive("app", other));
            }
        }
        let by_process = listing.process.as_deref().map(|_| "process");
        if let Some(key) = by_process.or(listing.container.as_deref().map(|_| "container"))
            && listing.name.is_some()
        {
            return Err(ParameterError::Exclusive(key, "name"));
        }
        match listing.after {
            Some(_) if listing.by.is_some() => return Err(ParameterError::Exclusive("by", "after")),
            Some(after) if listing.sort.is_some_and(|sort| sort != after.sort()) => {
                return Err(wrong(
                    "sort",
                    &listing.sort.map(|sort| sort.write()).unwrap_or_default(),
                    "that of the page before",
                ));
            }
            _ => {}
        }
        let default = if listing.by.is_some() { Sort::Bytes } else { Sort::Newest };
        let sort = listing.after.map(|after| after.sort()).or(listing.sort).unwrap_or(default);
        let request = Request { limit: listing.limit.map(Into::into), ..request(selection, clock)? };
        let name = listing.name.as_deref().map(NameFilter::new);
        Ok(Self {
            request,
            sort,
            after: listing.after,
            name,
            process: listing.process,
            container: listing.container,
            app: listing.app,
            by: listing.by,
            ids: listing.ids.map(|ids| identities(&ids)).transpose()?,
        })
    }
}

fn identities(ids: &Texts) -> Result<Arc<HashSet<u64>>, ParameterError> {
    if ids.0.len() > IDS_MAX {
        return Err(ParameterError::TooMany("id", IDS_MAX));
    }
    let identity = |id: &String| {
        u64::from_str_radix(id, 16).map_err(|_| wrong("id", id, "the id of a session, as GET /v1/flows has it"))
    };
    Ok(Arc::new(ids.0.iter().map(identity).collect::<Result<_, _>>()?))
}

/// When a follower is to end: a span is counted from now on.
fn until_ahead(text: &str, clock: Clock) -> Result<Timestamp, ParameterError> {
    let until = time::parse_ahead(text, clock.now, &TimeZone::UTC);
    let until = until.map_err(|source| ParameterError::Time { key: "until", source })?;
    if until < clock.now { Err(ParameterError::Over { until, now: clock.now }) } else { Ok(until) }
}

/// The two ends of a TCP connection, with a space between them.
fn connection(text: &str) -> Result<(SocketAddr, SocketAddr), ParameterError> {
    let ends = text.split_once(' ').and_then(|(ours, theirs)| Some((ours.parse().ok()?, theirs.parse().ok()?)));
    ends.ok_or_else(|| wrong("carried-by", text, "two ends of a TCP connection, as in 10.0.0.1:40000 10.0.0.2:57012"))
}

pub(super) fn request(selection: SelectionQuestion, clock: Clock) -> Result<Request, ParameterError> {
    let (since, until) = window(&selection, clock)?;
    let community_id = |text: String| {
        // A plus sign that nobody escaped has become a space, which base64 does not have.
        CommunityId::parse(&text.replace(' ', "+"))
            .ok_or_else(|| wrong("community-id", &text, "a Community ID, as in 1:LQU9qZlK+B5F3KDmev6m5PMibrg="))
    };
    let flow = selection.flow.map(|text| text.parse::<Flow>()).transpose();
    let address = selection.address.map(|text| text.parse::<Subnet>()).transpose();
    Ok(Request {
        since,
        until,
        limit: None,
        dedup: false,
        interface: selection.interface,
        community_id: selection.community_id.map(community_id).transpose()?,
        community_id_seed: selection.community_id_seed,
        flow: flow.map_err(|error: FlowError| ParameterError::Flow(error.to_string()))?,
        address: address.map_err(|error: SubnetError| ParameterError::Address(error.to_string()))?,
        port: selection.port,
        expression: selection.filter.unwrap_or_default(),
        tier: selection.from,
    })
}

fn window(
    selection: &SelectionQuestion,
    clock: Clock,
) -> Result<(Option<Timestamp>, Option<Timestamp>), ParameterError> {
    let time = |key: &'static str, text: &Option<String>| {
        let time = text.as_deref().map(|text| time::parse(text, clock.now, &TimeZone::UTC));
        time.transpose().map_err(|source| ParameterError::Time { key, source })
    };
    let since = time("since", &selection.since)?;
    let until = time("until", &selection.until)?;
    let around = time("around", &selection.around)?;
    let window = selection.window.as_deref().map(time::parse_duration).transpose();
    let window = window.map_err(|source| ParameterError::Time { key: "window", source })?;
    let latest = clock.newest.map_or(clock.now, |newest| newest.max(clock.now));
    let (key, from, until) = match (around, window) {
        (None, None) => ("since", since, until),
        (None, Some(_)) => return Err(ParameterError::WindowAlone),
        (Some(_), _) if since.is_some() => return Err(ParameterError::Exclusive("around", "since")),
        (Some(_), _) if until.is_some() => return Err(ParameterError::Exclusive("around", "until")),
        (Some(around), window) => {
            let window = window.unwrap_or(WINDOW_DEFAULT);
            ("around", Some(around.saturating_sub(window)), Some(around.saturating_add(window)))
        }
    };
    match from {
        Some(time) if time > latest => Err(ParameterError::Future { key, time, now: clock.now }),
        _ => Ok((from, until)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock = Clock { now: Timestamp::from_unix(1_000_000, 0), newest: None };

    fn read(query: &str) -> Result<PacketQuery, String> {
        PacketQuery::read(query, CLOCK).map_err(|error| error.to_string())
    }

    #[test]
    fn the_flags_of_the_command_line() {
        let query = read(
            "filter=tcp+port%2080&since=10m&until=now&count=7&format=pcap&micro&interface=eth0\
             &community-id=1:LQU9qZlK+B5F3KDmev6m5PMibrg=&flow=10.0.0.1:80+10.0.0.2:81+tcp",
        )
        .unwrap();
        assert_eq!(query.request.expression, "tcp port 80");
        assert_eq!(query.request.since, Some(Timestamp::from_unix(999_400, 0)));
        assert_eq!(query.request.until, Some(CLOCK.now));
        assert_eq!(query.request.limit, Some(7));
        assert_eq!(query.request.interface.as_deref(), Some("eth0"));
        assert_eq!(query.request.community_id.unwrap().to_string(), "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        assert_eq!(query.request.flow.unwrap().to_string(), "10.0.0.1:80 10.0.0.2:81 6");
        assert_eq!((query.format, query.precision), (Format::Pcap, Precision::Micro));
        assert_eq!(read("").unwrap(), PacketQuery::default());
        assert_eq!(read("expr=udp&c=1&precision=micro&micro=1").unwrap().precision, Precision::Micro);

        let around = read("around=10m&window=1m").unwrap().request;
        assert_eq!(around.since, Some(Timestamp::from_unix(999_340, 0)));
        assert_eq!(around.until, Some(Timestamp::from_unix(999_460, 0)));
        assert!(read("around=now").is_ok(), "its window begins in the past");

        let follow = read("follow&until=5m&carried-by=10.0.0.1:4000+[::1]:57012").unwrap();
        assert!(follow.follow && !read("").unwrap().follow);
        assert_eq!(follow.request.until, Some(Timestamp::from_unix(1_000_300, 0)), "from now on");
        assert_eq!(follow.carried_by.unwrap().1, "[::1]:57012".parse().unwrap());

        let flows = FlowQuery::read("sort=bytes&limit=3&since=1h", CLOCK).unwrap();
        assert_eq!((flows.sort, flows.request.limit), (Sort::Bytes, Some(3)));
        let page = FlowQuery::read("after=3-1-2-3-4-0", CLOCK).unwrap();
        assert_eq!((page.sort, page.after.unwrap().to_string()), (Sort::Bytes, "3-1-2-3-4-0".to_owned()));
        assert_eq!(FlowQuery::read("", CLOCK).unwrap().sort, Sort::Newest);
        let flows = FlowQuery::read("by=host&address=10.0.0.0/8&port=443", CLOCK).unwrap();
        assert_eq!((flows.by, flows.sort, flows.request.port), (Some(By::Host), Sort::Bytes, Some(443.into())));
        for (query, says) in [
            ("by=colour", "host, peer, port, process or container"),
            ("by=host&sort=duration", "out or in of sums"),
            ("by=host&name=x", "exclude each other"),
            ("by=host&id=1", "exclude each other"),
            ("app=tls&by=host", "exclude each other"),
            ("app=telepathy", "a protocol that is known by content"),
            ("id=x", "the id of a session"),
            ("name=", "a part of a name"),
            ("name=.", "a part of a name"),
            ("after=yesterday", "the trailer retrocap-next"),
            ("after=0-1-2-3-4-0&sort=bytes", "that of the page before"),
            ("after=0-1-2-3-4-0&by=host", "exclude each other"),
        ] {
            let error = FlowQuery::read(query, CLOCK).unwrap_err().to_string();
            assert!(error.contains(says), "{query}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (query, says) in [
            ("sinec=10m", "did you mean \"since\"?"),
            ("Filter=tcp", "did you mean \"filter\"?"),
            ("limit=3", "There are: filter, expr, since"),
            ("since=1m&since=2m", "\"since\" is given twice"),
            ("filter=tcp&expr=udp", "\"expr\" is given twice"),
            ("since=yore", "\"since\": cannot read the time \"yore\": try 10m"),
            ("since=", "\"since\": cannot read the time"),
            ("since=@1000001", "is in the future"),
            ("around=@1000100", "\"around\" is in the future"),
            ("window=1m", "give \"around\" too"),
            ("around=1m&window=soon", "\"window\": cannot read the duration"),
            ("around=1m&until=1m", "\"around\" and \"until\" exclude each other"),
            ("count=0", "a whole number above 0"),
            ("c=-1", "\"count\" cannot be \"-1\""),
            ("format=csv", "pcapng or pcap"),
            ("precision=pico", "nano or micro"),
            ("nano&micro", "exclude each other"),
            ("precision=nano&micro", "exclude each other"),
            ("nano=maybe", "given without a value"),
            ("community-id=2:x", "a Community ID, as in 1:LQU9q"),
            ("flow=here", "\"flow\": cannot read the flow"),
            ("follow=maybe", "given without a value"),
            ("follow&until=1970-01-02", "\"until\" is over"),
            ("follow&until=soon", "\"until\": cannot read the time"),
            ("follow&around=1m", "\"around\" and \"follow\" exclude each other"),
            ("follow&app=tls", "\"app\" and \"follow\" exclude each other"),
            ("dedup&app=tls", "\"app\" and \"dedup\" exclude each other"),
            ("app=tls:", "one with a word, as in modbus:write"),
            ("follow&whole-sessions", "\"whole-sessions\" and \"follow\" exclude each other"),
            ("follow&since=@1000100", "is in the future"),
            ("carried-by=10.0.0.1:1+10.0.0.2:2", "\"carried-by\" is for \"follow\""),
            ("follow&carried-by=10.0.0.1+10.0.0.2", "two ends of a TCP connection"),
            ("address=10.0.0.0/33", "try 10.0.0.5, 10.0.0.0/8"),
            ("port=http", "a port from 0 to 65535"),
        ] {
            let error = read(query).unwrap_err();
            assert!(error.contains(says), "{query}: {error}");
        }
    }

    #[test]
    fn packets_of_a_capture_from_the_future_can_be_asked_for() {
        let clock = Clock { newest: Some(Timestamp::from_unix(2_000_000, 0)), ..CLOCK };
        assert!(PacketQuery::read("since=@1900000", clock).is_ok());
        assert!(PacketQuery::read("since=@2000001", clock).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "\\PC{0,60}", key in "[a-z]{0,8}", value in "[ -~]{0,40}") {
            let _ = (PacketQuery::read(&text, CLOCK), FlowQuery::read(&text, CLOCK));
            let _ = PacketQuery::read(&format!("{key}={value}"), CLOCK);
        }
    }
}
