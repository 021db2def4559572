//! What a query string asks for.
//!
//! The keys are the flags of the command line. What is unknown, given twice or contradicts itself is refused with a
//! sentence, never ignored: an answer to another question is worse than none. Nothing here panics, whatever the text.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::tz::TimeZone;

use base::time::{self, TimeError, Timestamp};
use engine::session::community_id::CommunityId;
use formats::writer::{Format, Precision};
use query::Request;
use query::flows::Sort;
use query::selectors::{Flow, FlowError, PortRange, Subnet, SubnetError};
use query::sums::By;

/// The keys of `/v1/packets`.
pub const PACKET_KEYS: &[&str] = &[
    "filter",
    "expr",
    "since",
    "until",
    "around",
    "window",
    "interface",
    "community-id",
    "community_id",
    "community-id-seed",
    "flow",
    "follow",
    "carried-by",
    "address",
    "port",
    "whole-sessions",
    "dedup",
    "count",
    "c",
    "format",
    "precision",
    "nano",
    "micro",
];

/// The keys of `/v1/flows`.
pub const FLOW_KEYS: &[&str] = &[
    "filter",
    "expr",
    "since",
    "until",
    "around",
    "window",
    "interface",
    "community-id",
    "community_id",
    "community-id-seed",
    "flow",
    "address",
    "port",
    "sort",
    "limit",
    "name",
    "by",
];

/// How far the window reaches to each side of `around` when nothing else is said.
pub const WINDOW_DEFAULT: Duration = Duration::from_secs(5);

/// How much of a value a message repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// What time it is for who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// What `10m` is counted back from.
    pub now: Timestamp,
    /// The newest packet kept, which a replayed capture may have from later than now.
    pub newest: Option<Timestamp>,
}

/// What `/v1/packets` is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketQuery {
    /// Which packets.
    pub request: Request,
    /// In which format.
    pub format: Format,
    /// How exact their times are.
    pub precision: Precision,
    /// Whether it goes on with the packets that come.
    pub follow: bool,
    /// The TCP connection that carries the answer on, the asker's end first: it is not recorded meanwhile.
    pub carried_by: Option<(SocketAddr, SocketAddr)>,
    /// Whether all packets of their sessions are wanted.
    pub whole_sessions: bool,
}

/// What `/v1/flows` is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowQuery {
    /// Which sessions.
    pub request: Request,
    /// In which order.
    pub sort: Sort,
    /// Only those that name something with this in it.
    pub name: Option<String>,
    /// Sums in place of sessions.
    pub by: Option<By>,
}

/// What is wrong with a query string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// A key that does not exist.
    #[error("there is no parameter {key:?}; did you mean {nearest:?}? There are: {all}")]
    Unknown {
        /// What was read.
        key: String,
        /// The key most like it.
        nearest: &'static str,
        /// All keys.
        all: String,
    },
    /// A key that was given more than once, or together with another name of it.
    #[error("{0:?} is given twice; give it once")]
    Twice(&'static str),
    /// Keys that exclude each other.
    #[error("{0:?} and {1:?} exclude each other; leave one out")]
    Exclusive(&'static str, &'static str),
    /// `window` alone.
    #[error(
        "\"window\" says how far to look to each side of \"around\"; give \"around\" too, or \"since\" and \"until\""
    )]
    WindowAlone,
    /// A value that is none of a few words.
    #[error("{key:?} cannot be {value:?}; it is {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was read.
        value: String,
        /// What could be read.
        expected: &'static str,
    },
    /// Not a time or span.
    #[error("{key:?}: {source}")]
    Time {
        /// The key.
        key: &'static str,
        /// Why.
        source: TimeError,
    },
    /// Nothing can come any more.
    #[error(
        "\"until\" is over: {until} is before {now}, which is now; leave \"follow\" out, or say until=5m for five minutes"
    )]
    Over {
        /// The time asked for.
        until: Timestamp,
        /// The time it is.
        now: Timestamp,
    },
    /// A key that means something with another one only.
    #[error("{0:?} is for {1:?}; give both or none")]
    Needs(&'static str, &'static str),
    /// Not a flow.
    #[error("\"flow\": {0}")]
    Flow(String),
    /// Not an address.
    #[error("\"address\": {0}")]
    Address(String),
    /// Nothing can have been recorded then.
    #[error("\"{key}\" is in the future: {time} is after {now}, which is now; ask for the past, as in {key}=10m")]
    Future {
        /// The key.
        key: &'static str,
        /// The time asked for.
        time: Timestamp,
        /// The time it is.
        now: Timestamp,
    },
}

impl PacketQuery {
    /// Reads the query string of a URL, without its question mark.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn read(query: &str, clock: Clock) -> Result<Self, ParameterError> {
        let mut values = Values::read(query, PACKET_KEYS)?;
        let format = values.take(&["format"])?.map(|value| match &*value {
            "pcapng" => Ok(Format::Pcapng),
            "pcap" => Ok(Format::Pcap),
            _ => Err(wrong("format", &value, "pcapng or pcap")),
        });
        let limit = values.number(&["count", "c"])?;
        let precision = values.precision()?;
        let follow = values.flag("follow")?;
        let carried_by = values.connection("carried-by")?;
        if carried_by.is_some() && !follow {
            return Err(ParameterError::Needs("carried-by", "follow"));
        }
        let dedup = values.flag("dedup")?;
        let whole_sessions = values.flag("whole-sessions")?;
        if whole_sessions && follow {
            return Err(ParameterError::Exclusive("whole-sessions", "follow"));
        }
        let ahead = if follow { values.until_ahead(clock)? } else { None };
        let request = values.request(clock)?;
        Ok(Self {
            request: Request { limit, dedup, until: ahead.or(request.until), ..request },
            whole_sessions,
            format: format.transpose()?.unwrap_or_default(),
            precision,
            follow,
            carried_by,
        })
    }
}

impl FlowQuery {
    /// Reads the query string of a URL, without its question mark.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn read(query: &str, clock: Clock) -> Result<Self, ParameterError> {
        let mut values = Values::read(query, FLOW_KEYS)?;
        let sort = values.take(&["sort"])?.map(|value| match &*value {
            "start" => Ok(Sort::Start),
            "last" => Ok(Sort::Last),
            "bytes" => Ok(Sort::Bytes),
            "packets" => Ok(Sort::Packets),
            "duration" => Ok(Sort::Duration),
            "out" => Ok(Sort::Out),
            "in" => Ok(Sort::In),
            _ => Err(wrong("sort", &value, "start, last, bytes, packets, duration, out or in")),
        });
        let by = values.take(&["by"])?.map(|value| match &*value {
            "host" => Ok(By::Host),
            "peer" => Ok(By::Peer),
            "port" => Ok(By::Port),
            _ => Err(wrong("by", &value, "host, peer or port")),
        });
        let (sort, by) = (sort.transpose()?, by.transpose()?);
        let name = values.take(&["name"])?.map(Cow::into_owned);
        match (by, sort, &name) {
            (Some(_), Some(Sort::Duration), _) => {
                return Err(wrong("sort", "duration", "start, last, bytes, packets, out or in of sums"));
            }
            (Some(_), _, Some(_)) => return Err(ParameterError::Exclusive("by", "name")),
            (_, _, Some(name)) if name.is_empty() => {
                return Err(wrong("name", name, "a part of a name, as in example.com"));
            }
            _ => {}
        }
        let limit = values.number(&["limit"])?;
        let sort = sort.unwrap_or(if by.is_some() { Sort::Bytes } else { Sort::Start });
        Ok(Self { request: Request { limit, ..values.request(clock)? }, sort, name, by })
    }
}

/// The pairs of a query string, all keys known and none given twice.
struct Values<'q>(Vec<(&'static str, Cow<'q, str>)>);

impl<'q> Values<'q> {
    fn read(query: &'q str, keys: &'static [&'static str]) -> Result<Self, ParameterError> {
        let mut values: Vec<(&'static str, Cow<'q, str>)> = Vec::new();
        for (read, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(&key) = keys.iter().find(|key| **key == read) else { return Err(unknown(&read, keys)) };
            if values.iter().any(|(known, _)| *known == key) {
                return Err(ParameterError::Twice(key));
            }
            values.push((key, value));
        }
        Ok(Self(values))
    }

    /// The value of a key that goes by one of `names`.
    fn take(&mut self, names: &[&'static str]) -> Result<Option<Cow<'q, str>>, ParameterError> {
        let mut found = None;
        for name in names {
            if let Some(at) = self.0.iter().position(|(key, _)| key == name) {
                if found.is_some() {
                    return Err(ParameterError::Twice(name));
                }
                found = Some(self.0.swap_remove(at).1);
            }
        }
        Ok(found)
    }

    fn number(&mut self, names: &[&'static str]) -> Result<Option<u64>, ParameterError> {
        let Some(value) = self.take(names)? else { return Ok(None) };
        match value.parse::<u64>() {
            Ok(number) if number > 0 => Ok(Some(number)),
            _ => Err(wrong(names[0], &value, "a whole number above 0")),
        }
    }

    fn precision(&mut self) -> Result<Precision, ParameterError> {
        let named = self.take(&["precision"])?.map(|value| match &*value {
            "nano" => Ok(Precision::Nano),
            "micro" => Ok(Precision::Micro),
            _ => Err(wrong("precision", &value, "nano or micro")),
        });
        let named = named.transpose()?;
        match (named, self.flag("nano")?, self.flag("micro")?) {
            (_, true, true) => Err(ParameterError::Exclusive("nano", "micro")),
            (Some(Precision::Micro), true, _) => Err(ParameterError::Exclusive("precision", "nano")),
            (Some(Precision::Nano), _, true) => Err(ParameterError::Exclusive("precision", "micro")),
            (Some(precision), ..) => Ok(precision),
            (None, _, true) => Ok(Precision::Micro),
            (None, _, false) => Ok(Precision::Nano),
        }
    }

    /// A key without a value.
    fn flag(&mut self, name: &'static str) -> Result<bool, ParameterError> {
        match self.take(&[name])?.as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(value) => Err(wrong(name, value, "given without a value")),
        }
    }

    /// When a follower is to end: a span is counted from now on.
    fn until_ahead(&mut self, clock: Clock) -> Result<Option<Timestamp>, ParameterError> {
        if self.0.iter().any(|(key, _)| *key == "around") {
            return Err(ParameterError::Exclusive("around", "follow"));
        }
        let Some(value) = self.take(&["until"])? else { return Ok(None) };
        let until = time::parse_ahead(&value, clock.now, &TimeZone::UTC);
        let until = until.map_err(|source| ParameterError::Time { key: "until", source })?;
        if until < clock.now { Err(ParameterError::Over { until, now: clock.now }) } else { Ok(Some(until)) }
    }

    /// Two endpoints of a TCP connection, with a space between.
    fn connection(&mut self, key: &'static str) -> Result<Option<(SocketAddr, SocketAddr)>, ParameterError> {
        let Some(value) = self.take(&[key])? else { return Ok(None) };
        let ends = value.split_once(' ').and_then(|(ours, theirs)| Some((ours.parse().ok()?, theirs.parse().ok()?)));
        match ends {
            Some(ends) => Ok(Some(ends)),
            None => Err(wrong(key, &value, "two ends of a TCP connection, as in 10.0.0.1:40000 10.0.0.2:57012")),
        }
    }

    /// What packets and flows are asked for alike.
    fn request(&mut self, clock: Clock) -> Result<Request, ParameterError> {
        let (since, until) = self.window(clock)?;
        let community_id = match self.take(&["community-id", "community_id"])? {
            None => None,
            Some(value) => {
                // A plus sign that nobody escaped has become a space, which base64 does not have.
                Some(CommunityId::parse(&value.replace(' ', "+")).ok_or_else(|| {
                    wrong("community-id", &value, "a Community ID, as in 1:LQU9qZlK+B5F3KDmev6m5PMibrg=")
                })?)
            }
        };
        let community_id_seed = match self.take(&["community-id-seed"])? {
            None => None,
            Some(value) => {
                let seed = value.parse();
                Some(seed.map_err(|_| wrong("community-id-seed", &value, "a whole number from 0 to 65535"))?)
            }
        };
        let flow = self.take(&["flow"])?.map(|value| value.parse::<Flow>());
        let address = self.take(&["address"])?.map(|value| value.parse::<Subnet>());
        let port = self.take(&["port"])?.map(|value| {
            value.parse::<PortRange>().map_err(|_| wrong("port", &value, "a port from 0 to 65535 or a range of them"))
        });
        Ok(Request {
            since,
            until,
            limit: None,
            dedup: false,
            interface: self.take(&["interface"])?.map(Cow::into_owned),
            community_id,
            community_id_seed,
            flow: flow.transpose().map_err(|error: FlowError| ParameterError::Flow(error.to_string()))?,
            address: address.transpose().map_err(|error: SubnetError| ParameterError::Address(error.to_string()))?,
            port: port.transpose()?,
            expression: self.take(&["filter", "expr"])?.map(Cow::into_owned).unwrap_or_default(),
        })
    }

    fn window(&mut self, clock: Clock) -> Result<(Option<Timestamp>, Option<Timestamp>), ParameterError> {
        let since = self.time("since", clock)?;
        let until = self.time("until", clock)?;
        let around = self.time("around", clock)?;
        let window = match self.take(&["window"])? {
            None => None,
            Some(value) => {
                Some(time::parse_duration(&value).map_err(|source| ParameterError::Time { key: "window", source })?)
            }
        };
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

    fn time(&mut self, key: &'static str, clock: Clock) -> Result<Option<Timestamp>, ParameterError> {
        let Some(value) = self.take(&[key])? else { return Ok(None) };
        let time = time::parse(&value, clock.now, &TimeZone::UTC);
        time.map(Some).map_err(|source| ParameterError::Time { key, source })
    }
}

fn unknown(read: &str, keys: &'static [&'static str]) -> ParameterError {
    let shown: String = read.chars().take(SHOWN_CHARS_MAX).collect();
    let distance = |key: &&&'static str| strsim::damerau_levenshtein(&shown, key);
    let nearest = keys.iter().min_by_key(distance).copied().unwrap_or_default();
    ParameterError::Unknown { key: shown, nearest, all: keys.join(", ") }
}

fn wrong(key: &'static str, value: &str, expected: &'static str) -> ParameterError {
    ParameterError::Value { key, value: value.chars().take(SHOWN_CHARS_MAX).collect(), expected }
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
        let flows = FlowQuery::read("by=host&address=10.0.0.0/8&port=443", CLOCK).unwrap();
        assert_eq!((flows.by, flows.sort, flows.request.port), (Some(By::Host), Sort::Bytes, Some(443.into())));
        for (query, says) in [
            ("by=colour", "host, peer or port"),
            ("by=host&sort=duration", "out or in of sums"),
            ("by=host&name=x", "exclude each other"),
            ("name=", "a part of a name"),
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
            ("since=1000001", "is in the future"),
            ("around=1000100", "\"around\" is in the future"),
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
            ("follow&whole-sessions", "\"whole-sessions\" and \"follow\" exclude each other"),
            ("follow&since=1000100", "is in the future"),
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
        assert!(PacketQuery::read("since=1900000", clock).is_ok());
        assert!(PacketQuery::read("since=2000001", clock).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "\\PC{0,60}", key in "[a-z]{0,8}", value in "[ -~]{0,40}") {
            let _ = (PacketQuery::read(&text, CLOCK), FlowQuery::read(&text, CLOCK));
            let _ = PacketQuery::read(&format!("{key}={value}"), CLOCK);
        }
    }
}
