//! Accepts the options of tcpdump, dumpcap, tshark and stenoread that have the same meaning here. For others the error
//! says what to type instead.

use clap::{ArgAction, Args};
use decode::text::Stamp;

use crate::error::Usage;
use crate::terminal::hex_dump::Dump;

/// Options of other tools. Options that change nothing are accepted silently.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "As in tcpdump")]
pub(crate) struct Habits {
    /// Accepted for tcpdump users: names are never resolved
    #[arg(short = 'n', action = ArgAction::Count)]
    numeric: u8,
    /// Print hexadecimal and ASCII after each line of get
    #[arg(short = 'X', action = ArgAction::Count)]
    hex_and_ascii: u8,
    /// Print ASCII after each line of get
    #[arg(short = 'A')]
    ascii: bool,
    /// Print hexadecimal after each line of get
    #[arg(short = 'x', action = ArgAction::Count, hide = true)]
    hex: u8,
    /// Begin lines of get without a time (-t), with seconds since 1970 (-tt), with the time since the previous line
    /// (-ttt), with date, time and zone (-tttt), or with the time since the first line (-ttttt)
    #[arg(short = 't', action = ArgAction::Count)]
    time: u8,
    /// List the interfaces
    #[arg(short = 'D', hide = true)]
    list: bool,
    /// Accepted for tcpdump users: output is never held back
    #[arg(short = 'l', hide = true)]
    line_buffered: bool,
    #[arg(short = 'U', hide = true)]
    packet_buffered: bool,
    /// Accepted for tcpdump users: lines show absolute sequence numbers and check no checksum, and get never captures
    #[arg(short = 'S', short_aliases = ['K', 'O', 'N', 'p'], action = ArgAction::Count, hide = true)]
    as_always: u8,
    #[arg(short = 'e', action = ArgAction::Count, hide = true)]
    link_header: u8,
    #[arg(short = '#', long = "number", hide = true)]
    line_numbers: bool,
    #[arg(short = 'd', action = ArgAction::Count, hide = true)]
    compiled: u8,
    #[arg(short = 'V', hide = true)]
    details: bool,
    #[arg(short = 'P', hide = true)]
    pcap: bool,
    #[arg(short = 'g', hide = true)]
    group_access: bool,
    #[arg(short = 'T', value_name = "FORMAT", hide = true)]
    output_format: Option<String>,
    #[arg(short = 'R', value_name = "FILTER", hide = true)]
    read_filter: Option<String>,
    #[arg(short = 'F', value_name = "FILE", hide = true)]
    filter_file: Option<String>,
    #[arg(short = 'E', value_name = "SECRET", hide = true)]
    secret: Option<String>,
    #[arg(short = 'z', value_name = "COMMAND", hide = true)]
    command: Option<String>,
    #[arg(short = 'Z', value_name = "USER", hide = true)]
    user: Option<String>,
    #[arg(short = 'B', value_name = "KIB", hide = true)]
    buffer: Option<String>,
    #[arg(short = 'y', value_name = "LINKTYPE", hide = true)]
    link_type: Option<String>,
    #[arg(short = 'C', value_name = "SIZE", hide = true)]
    file_size: Option<String>,
    #[arg(short = 'G', value_name = "SECONDS", hide = true)]
    file_seconds: Option<String>,
    #[arg(short = 'W', value_name = "COUNT", hide = true)]
    file_count: Option<String>,
    #[arg(short = 'b', value_name = "LIMIT", hide = true)]
    ring_buffer: Option<String>,
    #[arg(short = 'a', value_name = "LIMIT", hide = true)]
    autostop: Option<String>,
    #[arg(short = 's', long, value_name = "BYTES", hide = true)]
    snaplen: Option<String>,
    /// As in dumpcap: the filter expression
    #[arg(short = 'f', long, value_name = "EXPR", hide = true)]
    pub(crate) filter: Option<String>,
    /// As in tshark: a display filter
    #[arg(short = 'Y', value_name = "FILTER", hide = true)]
    pub(crate) display_filter: Option<String>,
}

impl Habits {
    /// The dump to print after each line, if any.
    pub(crate) fn dump(&self) -> Option<Dump> {
        match (self.hex_and_ascii > 0, self.hex > 0, self.ascii) {
            (true, ..) => Some(Dump::HexAndAscii),
            (_, true, _) => Some(Dump::Hex),
            (.., true) => Some(Dump::Ascii),
            _ => None,
        }
    }

    /// What lines begin with.
    pub(crate) fn stamp(&self) -> Stamp {
        match self.time {
            0 => Stamp::Clock,
            1 => Stamp::None,
            2 => Stamp::Epoch,
            3 => Stamp::SincePrevious,
            4 => Stamp::Date,
            _ => Stamp::SinceFirst,
        }
    }

    /// Refuses options that only change the lines of `get`.
    ///
    /// # Errors
    ///
    /// [`Usage`] for the first such option; `instead` says what to type.
    pub(crate) fn check_no_lines(&self, instead: &str) -> anyhow::Result<()> {
        let dump = self.hex_and_ascii > 0 || self.hex > 0 || self.ascii;
        match (dump, self.stamp()) {
            (false, Stamp::Clock | Stamp::Date) => Ok(()),
            (true, _) => Err(Usage::of(format_args!("-X, -x and -A are for the lines of get: {instead}"))),
            (_, _) => Err(Usage::of(format_args!("-t to -ttttt are for the lines of get: {instead}"))),
        }
    }

    /// Whether `-D` is set.
    pub(crate) fn lists_interfaces(&self) -> bool {
        self.list
    }

    /// Refuses options without a meaning here, and says what to type instead.
    ///
    /// # Errors
    ///
    /// [`Usage`] for the first such option.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let rotation = "the recorder keeps its own ring in memory (run -m SIZE), and get writes one file: try --since and \
                        --until for a part of the time, or `editcap -c 100000 odd.pcapng part.pcapng` to split the file";
        let tcpdump = "let tcpdump print, as in `retrocap get --format pcap -w - port 53 | tcpdump -enr -`";
        let tshark = "let tshark print, as in `retrocap get -w - port 53 | tshark -r - -T fields -e ip.src`";
        let recorded = "packets come as they were recorded, and `run` decides that: leave it out";
        let refusals = [
            ("-C", self.file_size.is_some(), rotation),
            ("-G", self.file_seconds.is_some(), rotation),
            ("-W", self.file_count.is_some(), rotation),
            ("-b", self.ring_buffer.is_some(), rotation),
            (
                "-a",
                self.autostop.is_some(),
                "try -c N for the first packets, --until TIME for an end, or --follow --until 5m",
            ),
            (
                "-s",
                self.snaplen.is_some(),
                "packets come as they were recorded: run -s BYTES decides that, and `editcap -s BYTES` cuts a file",
            ),
            ("-T", self.output_format.is_some(), tshark),
            ("-V", self.details, tshark),
            ("-e", self.link_header > 0, tcpdump),
            ("-#", self.line_numbers, tcpdump),
            ("-E", self.secret.is_some(), tcpdump),
            ("-d", self.compiled > 0, "`tcpdump -d EXPR` prints what an expression is compiled to"),
            ("-R", self.read_filter.is_some(), "try -Y FILTER, or a tcpdump expression as last argument"),
            ("-F", self.filter_file.is_some(), "give the expression itself, as in \"$(cat FILE)\""),
            ("-P", self.pcap, "try --format pcap, or -w with a name that ends in .pcap"),
            ("-g", self.group_access, "try --mode 640"),
            ("-z", self.command.is_some(), "run the command on the file that -w FILE has written"),
            ("-Z", self.user.is_some(), "files belong to the user who runs get: leave it out"),
            ("-B", self.buffer.is_some(), recorded),
            ("-y", self.link_type.is_some(), recorded),
        ];
        match refusals.into_iter().find(|(_, given, _)| *given) {
            Some((option, _, instead)) => Err(Usage::of(format_args!("{option} has no meaning here: {instead}"))),
            None => Ok(()),
        }
    }
}
