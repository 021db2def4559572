//! Selects packets or sessions. Arguments are parsed here, so that mistakes show without a recorder.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::tz::TimeZone;

use crate::error::Usage;
use crate::offline_spool::SpoolPlace;
use crate::terminal::printable::note;
use crate::verbs::archive_args::ArchiveArgs;
use crate::verbs::display_filter;
use crate::verbs::habits::Habits;
use crate::verbs::parameter::word;
use crate::verbs::pasted_flow::pasted_flow;
use api::question::SelectionQuestion;
use base::packet::LinkType;
use base::time::{self, Timestamp};
use engine::session::community_id::CommunityId;
use filter::FilterSet;
use query::selectors::{Flow, PortRange, Subnet};
use query::{QueryError, Tier};

/// Further link types to compile expressions for: 802.11, CAN, USB and others.
const OTHER_LINK_TYPES: [LinkType; 8] = [
    LinkType(0),
    LinkType(9),
    LinkType(105),
    LinkType(119),
    LinkType(127),
    LinkType(189),
    LinkType(190),
    LinkType(227),
];

/// The selection that `get`, `flows` and `push` share.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Selection")]
pub(crate) struct Selection {
    /// Only packets from this time on: 10m (ago), 14:30, 'yesterday 14:00', 2026-11-22T10:00:00Z, 1795341600.5
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only packets up to this time; with get --follow, a duration such as 5m counts from now on
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Read this capture file instead of querying a recorder; may be repeated; pcap, pcapng, snoop or ETL, also with gzip,
    /// zstd or lz4
    #[arg(short, long, value_name = "FILE", help_heading = "Selection")]
    pub(crate) read: Vec<PathBuf>,
    /// Read the files of this spool instead of querying a recorder
    #[arg(long, value_name = "DIR", help_heading = "Selection", conflicts_with = "read")]
    spool: Option<PathBuf>,
    /// Key file of an encrypted spool, with --spool or --archive
    #[arg(long, value_name = "FILE", help_heading = "Selection", conflicts_with = "read")]
    spool_key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) archive: ArchiveArgs,
    /// Only packets of this interface; any for all
    #[arg(short, long, value_name = "NAME", value_parser = interface)]
    pub(crate) interface: Option<InterfaceName>,
    /// Only the session with this Community ID
    #[arg(long, value_name = "ID", value_parser = community_id)]
    community_id: Option<CommunityId>,
    /// Seed of Community IDs [default: the recorder's, which is 0 unless configured]
    #[arg(long, value_name = "N", env = "RETROCAP_COMMUNITY_ID_SEED", hide_env_values = true)]
    pub(crate) community_id_seed: Option<u16>,
    /// Only packets between these two endpoints: '10.0.0.5:51234 192.0.2.7:443 tcp', where ports and protocol are
    /// optional; or a line of the output of flows
    #[arg(long, value_name = "FLOW", value_parser = pasted_flow)]
    flow: Option<Flow>,
    /// Only packets with this address or network at one end, also in tunnels and behind VLAN tags: 10.0.0.5, 10.0.0.0/8
    #[arg(long, value_name = "ADDRESS")]
    address: Option<Subnet>,
    /// Only packets with this port, or a port of this range, at one end, also in tunnels and behind VLAN tags: 443,
    /// 5000-5010
    #[arg(long, value_name = "PORT")]
    port: Option<PortRange>,
    /// Search only in memory, or only on disk
    #[arg(long, value_name = "WHERE", value_parser = word::<Tier>())]
    pub(crate) from: Option<Tier>,
    #[command(flatten)]
    pub(crate) habits: Habits,
    /// tcpdump expression, as in: host 10.0.0.5 and not port 22
    #[arg(value_name = "EXPR", allow_negative_numbers = true)]
    expression: Vec<String>,
}

/// The name of an interface; `None` for `any`, which means all, as in tcpdump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceName(Option<String>);

fn interface(text: &str) -> Result<InterfaceName, String> {
    Ok(InterfaceName((text != "any").then(|| text.to_owned())))
}

fn community_id(text: &str) -> Result<CommunityId, String> {
    let error = "not a Community ID: try 1:LQU9qZlK+B5F3KDmev6m5PMibrg= as Zeek and Suricata print it, or --flow '10.0.0.5:51234 192.0.2.7:443'";
    CommunityId::parse(text).ok_or_else(|| error.to_owned())
}

/// A time of interest, with a margin before and after it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Selection")]
pub(crate) struct TimeWindowArgs {
    /// Only packets from --window before this time to --window after it
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with_all = ["since", "until"])]
    around: Option<String>,
    /// Time before and after --around: 5s, 2m
    #[arg(long, value_name = "DURATION", default_value = "5s", requires = "around")]
    window: String,
}

/// Parses a flag with a duration.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    time::parse_duration(text).map_err(|error| error.to_string())
}

/// Parses a time that the user typed.
fn read(text: &str, now: Timestamp, tz: &TimeZone) -> anyhow::Result<Timestamp> {
    time::parse(text, now, tz).map_err(Usage::of)
}

impl Selection {
    /// The spool to read instead of querying a recorder.
    pub(crate) fn spool(&self) -> Option<SpoolPlace<'_>> {
        self.spool.as_deref().map(|path| SpoolPlace { path, key: self.spool_key.as_deref() })
    }

    /// Reads this spool.
    pub(crate) fn read_spool(&mut self, directory: PathBuf) {
        self.spool = Some(directory);
    }

    /// The selection, as a request has it.
    ///
    /// # Errors
    ///
    /// [`Usage`] for an invalid time or expression.
    pub(crate) fn question(
        &self,
        around: Option<&TimeWindowArgs>,
        now: Timestamp,
        tz: &TimeZone,
    ) -> anyhow::Result<SelectionQuestion> {
        if self.spool_key.is_some() && self.spool.is_none() {
            return Err(Usage::of("--spool-key is the key of files: name them with --spool DIR or --archive URL"));
        }
        let (since, until) = self.window(around, now, tz)?;
        Ok(SelectionQuestion {
            filter: self.expression()?,
            since: since.map(Timestamp::to_rfc3339),
            until: until.map(Timestamp::to_rfc3339),
            around: None,
            window: None,
            interface: self.interface_name(),
            community_id: self.community_id.map(|id| id.to_string()),
            community_id_seed: self.community_id_seed,
            flow: self.flow.as_ref().map(ToString::to_string),
            address: self.address.map(|address| address.to_string()),
            port: self.port,
            from: self.from,
        })
    }

    /// The start and end of the time window, where given.
    ///
    /// # Errors
    ///
    /// [`Usage`] for an invalid time, and if the window ends before it starts.
    pub(crate) fn window(
        &self,
        around: Option<&TimeWindowArgs>,
        now: Timestamp,
        tz: &TimeZone,
    ) -> anyhow::Result<(Option<Timestamp>, Option<Timestamp>)> {
        if let Some(TimeWindowArgs { around: Some(middle), window }) = around {
            let middle = read(middle, now, tz)?;
            let window = time::parse_duration(window).map_err(Usage::of)?;
            return Ok((Some(middle.saturating_sub(window)), Some(middle.saturating_add(window))));
        }
        let ParsedExpression { since, until, .. } = self.typed()?;
        let since = since.as_deref().map(|text| read(text, now, tz)).transpose()?;
        let until = until.as_deref().map(|text| read(text, now, tz)).transpose()?;
        match (since, until) {
            (Some(since), Some(until)) if since > until => Err(Usage::of(QueryError::InvertedWindow { since, until })),
            window => Ok(window),
        }
    }

    /// Resolves `--until` of a selection that follows. A duration counts from `now` on, and the end must not be past.
    ///
    /// # Errors
    ///
    /// [`Usage`] for an invalid or past time.
    pub(crate) fn ahead(&mut self, now: Timestamp, tz: &TimeZone) -> anyhow::Result<()> {
        let Some(text) = &self.until else { return Ok(()) };
        let until = time::parse_ahead(text, now, tz).map_err(Usage::of)?;
        if until < now {
            return Err(Usage::of(format_args!(
                "--until {text} is over, and --follow goes on from now: try --until 5m, or leave --follow out"
            )));
        }
        self.until = Some(until.to_rfc3339());
        Ok(())
    }

    /// Makes relative times absolute, so that they mean the same when they are read again.
    ///
    /// # Errors
    ///
    /// [`Usage`] for an invalid time.
    pub(crate) fn fix_times(
        &mut self,
        around: &mut TimeWindowArgs,
        now: Timestamp,
        tz: &TimeZone,
    ) -> anyhow::Result<()> {
        for text in [&mut self.since, &mut self.until, &mut around.around].into_iter().flatten() {
            *text = read(text, now, tz)?.to_rfc3339();
        }
        Ok(())
    }

    /// Whether the selection has a start time.
    pub(crate) fn has_start(&self) -> bool {
        self.since.is_some()
    }

    /// Sets the start time.
    pub(crate) fn begin(&mut self, since: Timestamp) {
        self.since = Some(since.to_rfc3339());
    }

    /// Combines the expression with another one; both must match.
    pub(crate) fn and(&mut self, expression: &str) {
        let mine = self.expression.join(" ");
        let both = if mine.trim().is_empty() { expression.to_owned() } else { format!("({mine}) and ({expression})") };
        self.expression = vec![both];
    }

    /// The interface; `None` for all.
    pub(crate) fn interface_name(&self) -> Option<String> {
        self.interface.as_ref()?.0.clone()
    }

    /// The typed expression. Times in it become `--since` and `--until`.
    fn typed(&self) -> anyhow::Result<ParsedExpression> {
        self.habits.check()?;
        let mut words = self.expression.join(" ");
        let display_filter = self.habits.display_filter.as_deref().map(display_filter::translate_all).transpose()?;
        for more in [&self.habits.filter, &display_filter].into_iter().flatten() {
            words = if words.trim().is_empty() { more.clone() } else { format!("({words}) and ({more})") };
        }
        let mut typed = ParsedExpression { since: self.since.clone(), until: self.until.clone(), expression: words };
        typed.take_times()?;
        Ok(typed)
    }

    /// Refuses capture files and spools where only recorders are asked.
    ///
    /// # Errors
    ///
    /// [`Usage`] if files are named.
    pub(crate) fn check_no_files(&self) -> anyhow::Result<()> {
        let files = !self.read.is_empty() || self.spool.is_some() || self.archive.archive.is_some();
        if !files && !self.habits.lists_interfaces() {
            return Ok(());
        }
        Err(Usage::of("ask asks recorders: leave out -r, --spool, --archive and -D"))
    }

    /// A selection of all packets.
    pub(crate) fn everything() -> Self {
        Self {
            read: Vec::new(),
            habits: Habits::default(),
            since: None,
            until: None,
            interface: None,
            community_id: None,
            community_id_seed: None,
            from: None,
            spool_key: None,
            spool: None,
            archive: ArchiveArgs::default(),
            flow: None,
            address: None,
            port: None,
            expression: Vec::new(),
        }
    }

    /// The expression. It is compiled here as a check, before the recorder is asked.
    pub(crate) fn expression(&self) -> anyhow::Result<Option<String>> {
        let words = self.typed()?.expression;
        if self.habits.display_filter.is_some() {
            note(&format!("retrocap: the filter is read as the tcpdump expression '{words}'"));
        }
        translated(words)
    }
}

/// Translates an expression that is a display filter, and checks the result.
///
/// # Errors
///
/// [`Usage`] for a display filter without an equivalent expression, and for an invalid expression.
pub(crate) fn translated(words: String) -> anyhow::Result<Option<String>> {
    let translated = match display_filter::translate(&words)? {
        Some(translated) => translated,
        None => match expression(std::slice::from_ref(&words)) {
            Ok(checked) => return Ok(checked),
            Err(error) => display_filter::translate_refused(&words)?.ok_or(error)?,
        },
    };
    note(&format!("retrocap: the display filter is read as the tcpdump expression '{translated}'"));
    expression(&[translated])
}

/// An expression and the time window that belongs to it.
#[derive(Debug)]
struct ParsedExpression {
    since: Option<String>,
    until: Option<String>,
    expression: String,
}

impl ParsedExpression {
    /// Moves the terms `after 3h ago` and `before 2026-11-22T10:00:00Z` (the syntax of stenoread) from a conjunction to the
    /// window.
    fn take_times(&mut self) -> anyhow::Result<()> {
        if !self.expression.contains("before ") && !self.expression.contains("after ") {
            return Ok(());
        }
        let mut rest = Vec::new();
        for term in self.expression.split(" and ").flat_map(|term| term.split("&&")) {
            let (target, option) = match term.trim().split_once(' ') {
                Some(("after", time)) => (&mut self.since, ("--since", time)),
                Some(("before", time)) => (&mut self.until, ("--until", time)),
                _ => {
                    rest.push(term.trim());
                    continue;
                }
            };
            let (name, time) = option;
            if time.contains(" or ") || target.is_some() {
                return Err(Usage::of(format_args!("{:?} is a time, not a filter: use {name} {time:?}", term.trim())));
            }
            *target = Some(time.trim().to_owned());
        }
        let is_time = |words: &[&str]| matches!(words, ["before" | "after", time] if time.starts_with(|c: char| c.is_ascii_digit()));
        for term in &rest {
            let words: Vec<&str> = term.split_whitespace().collect();
            if words.windows(2).any(is_time) {
                return Err(Usage::of(format_args!(
                    "{term:?} has a time in it, which holds for the whole question: join it with \"and\", or use --since and \
                     --until"
                )));
            }
        }
        self.expression = rest.join(" and ");
        Ok(())
    }
}

/// Joins the words of an expression and checks it. Returns `None` if it is empty.
///
/// # Errors
///
/// [`Usage`] with libpcap's error message and examples.
pub(crate) fn expression(words: &[String]) -> anyhow::Result<Option<String>> {
    Ok(filter(words)?.map(|filter| filter.expression().to_owned()))
}

/// As [`expression`], but returns the compiled filter.
///
/// # Errors
///
/// As [`expression`].
pub(crate) fn filter(words: &[String]) -> anyhow::Result<Option<FilterSet>> {
    let expression = words.join(" ");
    if expression.trim().is_empty() {
        return Ok(None);
    }
    match FilterSet::for_these(&expression, &[], &OTHER_LINK_TYPES) {
        Ok(filter) => Ok(Some(filter)),
        Err(error) => Err(Usage::of(format_args!("{error}; try 'port 53' or 'host 10.0.0.5 and not port 22'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::question::PacketsQuestion;
    use clap::Parser;

    #[derive(Parser)]
    struct SelectionArguments {
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        around: TimeWindowArgs,
    }

    fn target(arguments: &[&str]) -> anyhow::Result<String> {
        let both = SelectionArguments::try_parse_from(std::iter::once(&"get").chain(arguments))?;
        let now = Timestamp::from_unix(1_000_000, 0);
        let selection = both.selection.question(Some(&both.around), now, &TimeZone::UTC)?;
        Ok(PacketsQuestion { selection, ..PacketsQuestion::default() }.write())
    }

    #[test]
    fn the_request_says_what_was_asked_for() {
        for (arguments, expected) in [
            (&[][..], ""),
            (&["not", "port", "22"], "filter=not+port+22"),
            (&["tcp[13] & 2 != 0"], "filter=tcp%5B13%5D+%26+2+%21%3D+0"),
            (&["tcp[13]", "&", "2", "!=", "0"], "filter=tcp%5B13%5D+%26+2+%21%3D+0"),
            (&["--since", "10m"], "since=1970-01-12T13%3A36%3A40.000000000Z"),
            (
                &["--around", "@1000.5", "--window", "1s"],
                "since=1970-01-01T00%3A16%3A39.500000000Z&until=1970-01-01T00%3A16%3A41.500000000Z",
            ),
            (&["port", "53", "-i", "eth0"], "filter=port+53&interface=eth0"),
            (&["--flow", "10.0.0.1:80 10.0.0.2 tcp"], "flow=10.0.0.1%3A80+10.0.0.2+6"),
        ] {
            assert_eq!(target(arguments).unwrap(), expected, "{arguments:?}");
        }
    }

    #[test]
    fn a_mistake_is_reported_with_examples() {
        for (arguments, expected) in [
            (&["--since", "soon"][..], "cannot read the time \"soon\": try 10m"),
            (&["--around", "10m", "--window", "5"], "cannot read the duration \"5\": try 90s or 2h30m"),
            (&["--since", "1m", "--until", "2m"], "swap them"),
            (&["prot", "80"], "try 'port 53' or"),
            (&["--community-id", "x"], "try 1:LQU9qZlK"),
            (&["--window", "5s"], "--around"),
            (&["udp or after 3m ago"], "holds for the whole question"),
            (&["--around", "1m", "--since", "2m"], "cannot be used with"),
        ] {
            let error = target(arguments).unwrap_err().to_string();
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }
}
