//! The parameters of a query string, as types.
//!
//! `question!` defines a parameter once: its field, key, other names, description and example. Reading, writing and
//! the OpenAPI document are derived from that. A key that is unknown, given twice or has a wrong value is refused with a
//! sentence, never ignored: an answer to another question is worse than none.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::num::NonZeroU64;

use super::error::{ParameterError, SHOWN_CHARS_MAX, wrong};
use super::path;
use super::value::{Kind, ParameterValue, Texts};
use formats::writer::{Format, Precision};
use hunt::SearchScope;
use protocols::AppFilter;
use query::Tier;
use query::flows::Sort;
use query::listing::PageCursor;
use query::selectors::PortRange;
use query::sums::By;

/// A parameter of a query string.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// The key.
    pub name: &'static str,
    /// Other names of it.
    pub aliases: &'static [&'static str],
    /// What it does.
    pub description: &'static str,
    /// An example of its value.
    pub example: Option<&'static str>,
    /// What its value may be.
    pub kind: Kind,
    /// Whether the request is refused without it.
    pub required: bool,
}

/// Defines the type of a question from its parameters.
macro_rules! question {
    (
        $(#[$about:meta])*
        pub struct $question:ident {
            $($field:ident: $type:ty = $name:literal $(| $alias:literal)* $(, example $example:literal)? $(, required $required:literal)?
                => $description:literal;)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $question {
            $(#[doc = $description] pub $field: Option<$type>,)+
        }

        impl $question {
            /// Its parameters, in the order in which the API documents them.
            pub const PARAMETERS: &'static [Parameter] = &[$(Parameter {
                name: $name,
                aliases: &[$($alias),*],
                description: $description,
                example: [$(Some($example),)? None][0],
                kind: <$type as ParameterValue>::KIND,
                required: [$($required,)? false][0],
            }),+];

            pub(super) fn take(pairs: &mut Pairs<'_>) -> Result<Self, ParameterError> {
                Ok(Self { $($field: pairs.take($name, &[$($alias),*])?,)+ })
            }

            fn write_to(&self, query: &mut form_urlencoded::Serializer<'_, String>) {
                $(if let Some(value) = &self.$field {
                    for value in value.write_all() {
                        query.append_pair($name, &value);
                    }
                })+
            }
        }
    };
}

question! {
    /// Which sessions or packets are meant.
    pub struct SelectionQuestion {
        filter: String = "filter" | "expr", example "tcp port 80 and host 10.0.0.5"
            => "A tcpdump expression (pcap-filter(7)); without it, everything matches. For /v1/flows it is applied to a packet that is built from the endpoints of the session.";
        since: String = "since", example "10m"
            => "Nothing before this time (inclusive): RFC 3339, a date and time in UTC, seconds since 1970, or a span that counts back from now. A time in the future is refused.";
        until: String = "until", example "2026-11-22T10:00:00Z"
            => "Nothing after this time (inclusive); written as since.";
        around: String = "around", example "2026-11-22T10:00:00Z"
            => "The middle of a window, in place of since and until.";
        window: String = "window", example "2m"
            => "How far the window reaches to each side of around; 5s by default.";
        interface: String = "interface", example "eth0"
            => "Only what came from interfaces of this name.";
        community_id: String = "community-id" | "community_id", example "1:LQU9qZlK+B5F3KDmev6m5PMibrg="
            => "Only the session with this Community ID (version 1).";
        community_id_seed: u16 = "community-id-seed", example "0"
            => "The seed of Community IDs; the recorder's by default.";
        flow: String = "flow", example "10.0.0.5:51234 192.0.2.7:443 tcp"
            => "Only between these two endpoints, optionally with a protocol; a port that is left out matches any.";
        address: String = "address", example "10.0.0.0/8"
            => "Only with this address, or an address of this network, at one end; also in tunnels and behind VLAN tags.";
        port: PortRange = "port", example "443"
            => "Only with this port, or a port of this range, at one end.";
        from: Tier = "from", example "disk"
            => "Search only in memory or only on disk; in both by default.";
    }
}

question! {
    /// What only `GET /v1/packets` takes.
    pub struct ExportQuestion {
        follow: bool = "follow"
            => "Continue with packets as they arrive, until count or until is reached or the client closes. A span given as until then counts from now on.";
        carried_by: String = "carried-by", example "10.0.0.1:40000 10.0.0.2:57012"
            => "With follow: the TCP connection that carries the answer on, the client's end first. It is not recorded meanwhile, so that packets do not loop. For root and the recorder's own user; others get 403.";
        whole_sessions: bool = "whole-sessions"
            => "All packets of the sessions to which the matching packets belong, within the window or not. At most 16384 sessions, fewer on a small memory budget; the trailer retrocap-note says how many were left out.";
        dedup: bool = "dedup"
            => "Packets that were captured twice are given once: on a bridge and its port, or on two mirrored ports.";
        app: AppFilter = "app", example "modbus:write"
            => "Only the packets that carry a message of this protocol and kind, or with whole-sessions all packets of these sessions; with a protocol alone, as in tls, all packets of its sessions. Protocols are known by content, on any port. The recorder reads the packets of the selection twice; one client does so at a time. Not together with follow or dedup.";
        seal: bool = "seal"
            => "The recorder signs what it sends, if it has a key: the trailer retrocap-record.";
        count: NonZeroU64 = "count" | "c", example "100"
            => "At most this many packets, the first that match.";
        format: Format = "format"
            => "The file format; pcapng by default.";
        precision: Precision = "precision"
            => "The resolution of times; nano by default.";
        nano: bool = "nano"
            => "The same as precision=nano, without a value.";
        micro: bool = "micro"
            => "The same as precision=micro, without a value.";
    }
}

question! {
    /// What only `GET /v1/flows` takes.
    pub struct ListingQuestion {
        sort: Sort = "sort"
            => "The order: newest first by default; start and last are times, which ascend; amounts descend; out is what originators sent, in what responders sent. Sums come by bytes by default, and have no duration.";
        limit: NonZeroU64 = "limit", example "100"
            => "At most this many sessions, the first in the order. The trailer retrocap-next then has the mark of the next page.";
        after: PageCursor = "after", example "0-ffffffffffe5f3ff-e5f3ff0000000000-1f-18da3a2f2c51e000-0"
            => "Only sessions after this mark, which the trailer retrocap-next of the page before had. The sort order is that of the mark, and sessions that began after the first page are not listed. In an order other than newest and start, sessions that had packets since the first page come once more, after all others, because they may have passed a mark. So no session is missing; one that comes twice has the same id both times, and the later line is the newer one.";
        ids: Texts = "id", example "5f0c1d2e3a4b5c6d"
            => "Only the session with this id, as a line of this listing has it. It may be repeated, 1024 times at most.";
        name: String = "name", example "example.com"
            => "Only sessions whose TLS server name, HTTP host or DNS question contains this, in upper or lower case; a leading dot selects all names below that domain. Names are read from the first packets of a session, as far as these are still kept. Not together with by.";
        process: String = "process", example "curl"
            => "Only sessions of this process of the recorder's host: its number, its name, or the path of its program. The recorder has to watch processes. Not together with name.";
        container: String = "container", example "docker:0123456789ab"
            => "Only sessions of processes in this container (runtime:id, or the start of the id), pod or systemd unit. Not together with name.";
        app: AppFilter = "app", example "modbus:write"
            => "Only sessions of this protocol, or with a message of this kind, as far as their packets are still kept. Lines then have the protocol and the words of the session; any lists all sessions with them. The recorder reads the packets of the selection for this; one client does so at a time. Not together with by or after.";
        by: By = "by"
            => "Sums in place of sessions: by host (a session counts at both ends), by pair of hosts, by port of the responder, by process of this host or by its container, where processes are named. Sessions count whole, also where they began before the window.";
    }
}

question! {
    /// What only `GET /v1/hunt` takes.
    pub struct HuntRules {
        text: Texts = "text", example "BEGIN RSA PRIVATE KEY"
            => "This text, exactly. It may be repeated; all that is looked for is joined by or.";
        bytes: Texts = "bytes", example "4d 5a 90 00"
            => "These bytes, in hexadecimal. It may be repeated.";
        regex: Texts = "regex", example "(?i)user=[a-z]+"
            => "This regular expression, which takes linear time. It may be repeated, eight times at most.";
        ioc: Texts = "ioc", example "evil.example"
            => "This indicator: an address, a network, a name, a URL, JA3, JA4, HASSH, or the hash of a file. It may be repeated.";
        attack: Texts = "attack", example "heartbleed"
            => "This named attack; all looks for each. It may be repeated.";
        place: SearchScope = "in"
            => "What is searched: the bytes that a side sent, across packets (stream, the default), each packet alone (payload), or objects after decoding (file).";
        limit: NonZeroU64 = "limit", example "100"
            => "Ends after this many matches.";
    }
}

question! {
    /// What only `GET /v1/files` takes.
    pub struct ObjectRules {
        kind: Texts = "kind", example "http"
            => "Only objects of this protocol: http, smtp, imap, pop3, ftp, smb, nfs or tftp. It may be repeated.";
        mime: String = "type", example "image/"
            => "Only objects whose content is of this type, or of a type that begins so.";
        sha256: String = "sha256", example "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"
            => "Only objects with this hash.";
        min: u64 = "min", example "10240"
            => "Only objects of at least so many bytes.";
        limit: NonZeroU64 = "limit", example "100"
            => "Ends after this many objects.";
    }
}

question! {
    /// What `DELETE /v1/pins` takes.
    pub struct UnpinQuestion {
        id: u64 = "id", example "3", required true
            => "The number of the pin.";
    }
}

/// What `GET /v1/packets` is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketsQuestion {
    /// Which packets.
    pub selection: SelectionQuestion,
    /// As which file.
    pub export: ExportQuestion,
}

/// What `GET /v1/flows` is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowsQuestion {
    /// Which sessions.
    pub selection: SelectionQuestion,
    /// How they are listed.
    pub listing: ListingQuestion,
}

/// What `GET /v1/hunt` is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HuntQuestion {
    /// In which packets.
    pub selection: SelectionQuestion,
    /// For what.
    pub rules: HuntRules,
}

/// What `GET /v1/files` is asked, and `GET /v1/files/{id}` by its selection alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesQuestion {
    /// In which packets.
    pub selection: SelectionQuestion,
    /// Which objects.
    pub rules: ObjectRules,
}

/// A question that has a selection and rules of its own.
macro_rules! with_selection {
    ($question:ident, $path:expr, $rest:ident: $rules:ident) => {
        impl $question {
            /// The target of a request: the path, and the query string if there are parameters.
            pub fn target(&self) -> String {
                target($path, &self.write())
            }

            /// Its parameters.
            pub fn parameters() -> Vec<&'static Parameter> {
                SelectionQuestion::PARAMETERS.iter().chain($rules::PARAMETERS).collect()
            }

            /// Reads the query string of a URL, without its question mark.
            ///
            /// # Errors
            ///
            /// Says what is wrong and what would be right.
            pub fn read(query: &str) -> Result<Self, ParameterError> {
                let mut pairs = Pairs::read(query, &Self::parameters())?;
                Ok(Self { $rest: $rules::take(&mut pairs)?, selection: SelectionQuestion::take(&mut pairs)? })
            }

            /// Writes the query string of a URL, without its question mark.
            pub fn write(&self) -> String {
                let mut query = form_urlencoded::Serializer::new(String::new());
                self.selection.write_to(&mut query);
                self.$rest.write_to(&mut query);
                query.finish()
            }
        }
    };
}

with_selection!(PacketsQuestion, path::PACKETS, export: ExportQuestion);
with_selection!(FlowsQuestion, path::FLOWS, listing: ListingQuestion);
with_selection!(HuntQuestion, path::HUNT, rules: HuntRules);
with_selection!(FilesQuestion, path::FILES, rules: ObjectRules);

impl SelectionQuestion {
    /// Its parameters.
    pub fn parameters() -> Vec<&'static Parameter> {
        Self::PARAMETERS.iter().collect()
    }

    /// Reads the query string of a URL, without its question mark.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn read(query: &str) -> Result<Self, ParameterError> {
        Self::take(&mut Pairs::read(query, &Self::parameters())?)
    }

    /// Writes the query string of a URL, without its question mark.
    pub fn write(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        self.write_to(&mut query);
        query.finish()
    }
}

impl UnpinQuestion {
    /// The target of a request: the path, and the query string if there are parameters.
    pub fn target(&self) -> String {
        target(path::PINS, &self.write())
    }

    /// Its parameters.
    pub fn parameters() -> Vec<&'static Parameter> {
        Self::PARAMETERS.iter().collect()
    }

    /// Reads the query string of a URL, without its question mark.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn read(query: &str) -> Result<Self, ParameterError> {
        Self::take(&mut Pairs::read(query, &Self::parameters())?)
    }

    /// Writes the query string of a URL, without its question mark.
    pub fn write(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        self.write_to(&mut query);
        query.finish()
    }
}

mod page;

pub use page::{
    LinesQuestion, MessageRules, MessagesQuestion, OwnRuleQuestion, StreamRules, StreamsQuestion, TimelineQuestion,
};

fn target(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// The pairs of a query string: every key is known, and none is given twice.
pub(super) struct Pairs<'q>(Vec<(&'static str, Cow<'q, str>)>);

impl<'q> Pairs<'q> {
    fn read(query: &'q str, parameters: &[&'static Parameter]) -> Result<Self, ParameterError> {
        let mut pairs: Vec<(&'static str, Cow<'q, str>)> = Vec::new();
        let keys = || parameters.iter().flat_map(|known| std::iter::once(&known.name).chain(known.aliases));
        for (read, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(&key) = keys().find(|key| **key == read) else { return Err(unknown(&read, keys().copied())) };
            if parameters.iter().any(|known| known.name == key && known.kind == Kind::Texts) {
                if value.contains(Texts::SEPARATOR) {
                    return Err(wrong(key, &value, Texts::EXPECTED));
                }
                if let Some((_, all)) = pairs.iter_mut().find(|(known, _)| *known == key) {
                    let all = all.to_mut();
                    all.push(Texts::SEPARATOR);
                    all.push_str(&value);
                    continue;
                }
            }
            if pairs.iter().any(|(known, _)| *known == key) {
                return Err(ParameterError::Twice(key));
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    fn take<T: ParameterValue>(
        &mut self,
        name: &'static str,
        aliases: &[&'static str],
    ) -> Result<Option<T>, ParameterError> {
        let mut found = None;
        for &key in std::iter::once(&name).chain(aliases) {
            if let Some(at) = self.0.iter().position(|(known, _)| *known == key) {
                if found.is_some() {
                    return Err(ParameterError::Twice(key));
                }
                found = Some(self.0.swap_remove(at).1);
            }
        }
        let read = |value: Cow<'q, str>| T::read(&value).ok_or_else(|| wrong(name, &value, T::EXPECTED));
        found.map(read).transpose()
    }
}

fn unknown(read: &str, keys: impl Iterator<Item = &'static str>) -> ParameterError {
    let shown: String = read.chars().take(SHOWN_CHARS_MAX).collect();
    let (mut all, mut nearest) = (String::new(), ("", usize::MAX));
    for key in keys {
        let distance = strsim::damerau_levenshtein(&shown, key);
        if distance < nearest.1 {
            nearest = (key, distance);
        }
        // Writing to a string cannot fail.
        let _ = write!(all, "{}{key}", if all.is_empty() { "" } else { ", " });
    }
    ParameterError::Unknown { key: shown, nearest: nearest.0, all }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let packets = "filter=tcp+port%2080&since=10m&community-id=1%3Ax&flow=a+b&port=3&follow=1&count=7&format=pcap";
        let read = PacketsQuestion::read(packets).unwrap();
        assert_eq!(PacketsQuestion::read(&read.write()).unwrap(), read);
        assert_eq!((read.selection.port, read.export.format), (Some(3.into()), Some(Format::Pcap)));
        let flows = FlowsQuestion::read("expr=udp&sort=in&by=peer&limit=3&name=%26%3D").unwrap();
        assert_eq!(FlowsQuestion::read(&flows.write()).unwrap(), flows);
        assert_eq!(flows.selection.filter.as_deref(), Some("udp"));
        let hunt = HuntQuestion::read("text=a&regex=b%2Bc&text=d+e&in=file&limit=3&since=1h").unwrap();
        assert_eq!(hunt.rules.text, Some(Texts(vec!["a".to_owned(), "d e".to_owned()])));
        assert_eq!(HuntQuestion::read(&hunt.write()).unwrap(), hunt);
        assert!(HuntQuestion::read("text=a%00b").is_err() && HuntQuestion::read("limit=1&limit=2").is_err());
        let files = FilesQuestion::read("kind=http&kind=smb&type=image/&min=10").unwrap();
        assert_eq!(FilesQuestion::read(&files.write()).unwrap(), files);
        assert_eq!(flows.target(), format!("/v1/flows?{}", flows.write()));
        assert_eq!(PacketsQuestion::default().target(), "/v1/packets");
    }

    #[test]
    fn values_are_written_so_that_nothing_is_lost() {
        let filter = Some("tcp[13] & 2 != 0".to_owned());
        let selection = SelectionQuestion { filter, interface: Some("ä0".to_owned()), ..SelectionQuestion::default() };
        let question = PacketsQuestion { selection, ..PacketsQuestion::default() };
        assert_eq!(question.write(), "filter=tcp%5B13%5D+%26+2+%21%3D+0&interface=%C3%A40");
    }

    #[test]
    fn every_parameter_has_a_sentence_and_its_example_is_read() {
        let all = [PacketsQuestion::parameters(), FlowsQuestion::parameters(), HuntQuestion::parameters()];
        for parameter in all.into_iter().flatten().chain(FilesQuestion::parameters()) {
            assert!(parameter.description.ends_with('.'), "{}", parameter.name);
            if let Some(example) = parameter.example {
                let query =
                    form_urlencoded::Serializer::new(String::new()).append_pair(parameter.name, example).finish();
                let read = PacketsQuestion::read(&query).is_ok() || FlowsQuestion::read(&query).is_ok();
                let searched = HuntQuestion::read(&query).is_ok() || FilesQuestion::read(&query).is_ok();
                assert!(read || searched, "{query}");
            }
        }
    }
}
