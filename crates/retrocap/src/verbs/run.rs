//! `retrocap run`: runs the recorder in the foreground.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser as _, ValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::error::Usage;
use crate::options::Common;
use crate::terminal::log;
use crate::verbs::selection;
use daemon::settings::{DefaultValue, Row, Settings, rows};

const EXAMPLES: &str = "\
Examples:
  sudo retrocap run                             all interfaces, 1% of the memory
  sudo retrocap run -i eth0 -m 1G not port 22   one interface, 1 GiB, without SSH
  sudo retrocap run --pcap-over-ip 127.0.0.1:57012    for `wireshark -k -i TCP@127.0.0.1:57012` too
  sudo retrocap run --pcap-over-ip 0.0.0.0:57012      over TLS, for `openssl s_client` elsewhere
  retrocap run --replay big.pcap --speed max --socket ./r.sock    a capture file instead

Under systemd a restart keeps the history: the old recorder hands it over to the new one in memory, as long as the unit
has FileDescriptorStoreMax=.";

/// The arguments of `run`. The flags are generated from the table of settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    flags: Vec<(&'static Row, Vec<OsString>)>,
    config: Option<PathBuf>,
    expression: Vec<String>,
}

/// The settings that `run` has a flag for. Others are flags of every verb, or only keys of the file.
fn flags() -> impl Iterator<Item = (&'static Row, daemon::settings::Flag)> {
    rows().filter_map(|row| Some((row, row.flag?)))
}

fn arg(row: &'static Row, flag: daemon::settings::Flag) -> Arg {
    let about = row.about.split_ascii_whitespace().collect::<Vec<_>>().join(" ").replace(['`'], "");
    let first = about.split_once(". ").map_or(about.as_str(), |(first, _)| first).trim_end_matches('.');
    let default = match row.default {
        DefaultValue::Is(text) => text,
        DefaultValue::Unset(words, _) => words,
    };
    let default = if flag.value_name.is_some() { format!(" [default: {default}]") } else { String::new() };
    let repeated = if flag.many { "; may be repeated" } else { "" };
    let mut arg = Arg::new(row.name)
        .long(row.name)
        .help(format!("{first}{repeated}{default}"))
        .long_help(format!("{}{repeated}{default}", about.trim_end_matches('.')));
    if let Some(short) = flag.short {
        arg = arg.short(short);
    }
    if let Some(heading) = flag.heading {
        arg = arg.help_heading(heading);
    }
    if let Some(value) = flag.alone {
        arg = arg.num_args(0..=1).default_missing_value(value);
    }
    if let Some(other) = flag.excludes {
        arg = arg.conflicts_with(other);
    }
    let Some(value_name) = flag.value_name else { return arg.action(ArgAction::SetTrue) };
    let parser = match flag.words {
        [] => ValueParser::new(OsStringValueParser::new().try_map(move |word| row.check(&word).map(|()| word))),
        words => ValueParser::new(PossibleValuesParser::new(words.iter().copied()).map(OsString::from)),
    };
    arg.value_name(value_name).value_parser(parser).action(if flag.many { ArgAction::Append } else { ArgAction::Set })
}

impl Args for Run {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Read settings from this TOML file, and again on SIGHUP; flags override it");
        let expression = Arg::new("expression")
            .value_name("EXPR")
            .num_args(0..)
            .conflicts_with("filter")
            .allow_negative_numbers(true)
            .help("Record only packets that match this tcpdump expression, as with --filter");
        command
            .about("Record, and answer queries about the past, until stopped")
            .after_help(EXAMPLES)
            .args(flags().map(|(row, flag)| arg(row, flag)))
            .arg(config)
            .arg(expression)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Run {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = flags().filter(|(row, _)| matches.value_source(row.name) == Some(ValueSource::CommandLine));
        let words = |(row, flag): (&'static Row, daemon::settings::Flag)| match flag.value_name {
            None => (row, vec!["true".into()]),
            Some(_) => (row, matches.get_many::<OsString>(row.name).into_iter().flatten().cloned().collect()),
        };
        Ok(Self {
            flags: given.map(words).collect(),
            config: matches.get_one::<PathBuf>("config").cloned(),
            expression: matches.get_many::<String>("expression").into_iter().flatten().cloned().collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Reads a configuration file.
///
/// # Errors
///
/// [`Usage`] with all mistakes, each with its line and key. Another error if the file cannot be read.
pub(crate) fn read_file(path: &Path) -> anyhow::Result<Settings> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Settings::read(&text).map_err(|mistakes| {
        let lines = mistakes.iter().map(|mistake| format!("{}: {mistake}", path.display()));
        Usage::of(lines.collect::<Vec<_>>().join("\nretrocap: "))
    })
}

impl Run {
    /// Records until a signal ends the recorder.
    pub(crate) fn run(self, common: &Common) -> anyhow::Result<()> {
        let settings = self.settings(common)?;
        let mut set_level = log::start(level(&settings));
        let ended = match &self.config {
            None => daemon::run(settings),
            Some(_) => {
                let (flags, common) = (self.clone(), common.clone());
                let mut reload = move || -> anyhow::Result<Settings> {
                    let settings = flags.settings(&common)?;
                    set_level(level(&settings));
                    Ok(settings)
                };
                daemon::run_reloading(settings, Box::new(move || reload().map_err(|error| format!("{error:#}"))))
            }
        };
        ended.map_err(|error| match error {
            daemon::Error::Budget(_)
            | daemon::Error::MemoryBudget(_)
            | daemon::Error::BudgetTooSmallForClasses { .. }
            | daemon::Error::Filter(_)
            | daemon::Error::Class(_)
            | daemon::Error::Speed(_)
            | daemon::Error::NotLoopback(_)
            | daemon::Error::NoCertificates => Usage::of(error),
            _ => error.into(),
        })
    }

    /// The arguments `--config path` alone.
    pub(crate) fn of_file(path: &Path) -> Self {
        Self { config: Some(path.to_owned()), ..Self::default() }
    }

    /// The settings. Flags take precedence over the file, and the file over the defaults.
    pub(crate) fn settings(&self, common: &Common) -> anyhow::Result<Settings> {
        let file = self.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        self.over(Settings { file: self.config.clone(), ..file }, common)
    }

    /// `settings`, overridden by the flags.
    fn over(&self, mut settings: Settings, common: &Common) -> anyhow::Result<Settings> {
        settings.take_flags(&self.flags).map_err(Usage::of)?;
        if !self.expression.is_empty() {
            settings.filter = Some(self.expression.join(" "));
        }
        let words: Vec<String> = settings.filter.into_iter().collect();
        settings.filter = selection::expression(&words)?;
        for (path, flag) in [
            (&mut settings.socket, &common.socket),
            (&mut settings.ca, &common.ca),
            (&mut settings.cert, &common.cert),
            (&mut settings.key, &common.key),
        ] {
            if let Some(flag) = flag {
                path.clone_from(flag);
            }
        }
        settings.quiet = common.quiet || (settings.quiet && common.verbose == 0);
        settings.verbose = settings.verbose.max(common.verbose);
        settings.complete().map_err(Usage::of)
    }
}

fn level(settings: &Settings) -> &'static str {
    match (settings.quiet, settings.verbose) {
        (true, _) => "error",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use daemon::settings::{Percent, Reload, Speed, sample};
    use engine::store::retention::Policy;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        run: Run,
    }

    fn settings(arguments: &str, file: &str) -> anyhow::Result<Settings> {
        let line = Line::try_parse_from(std::iter::once("run").chain(arguments.split_whitespace()))?;
        let file = Settings::read(file).map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
        line.run.over(file, &line.common)
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = "interface = \"eth0\"\nfilter = \"port 1\"\nsnaplen = 64\nmemory = \"32M\"\nworkers = 2\n\
                    promiscuous = true\nuser = \"nobody\"\nsocket = \"/tmp/file\"\ncompression-cpu = 0\n\
                    no-drop-privileges = true\n[retention]\nalpha = 2.0\n";
        let of_file = settings("", file).unwrap();
        assert_eq!((&of_file.interface[..], of_file.filter.as_deref()), (&["eth0".to_owned()][..], Some("port 1")));
        assert_eq!((of_file.snaplen, of_file.memory_bytes().unwrap(), of_file.workers), (64, 32 << 20, 2));
        assert!(of_file.uses_promiscuous() && !of_file.drops_privileges());
        assert_eq!(of_file.retention(), Policy::steepness(2.0));

        let of_flags =
            settings("-p -i lo -i eth1 -m 64M -s 0 --workers 1 --user root --socket /tmp/flag not port 2", file)
                .unwrap();
        assert_eq!(of_flags.interface, ["lo", "eth1"]);
        assert_eq!(of_flags.filter.as_deref(), Some("not port 2"));
        assert_eq!((of_flags.snaplen, of_flags.memory_bytes().unwrap(), of_flags.workers), (0, 64 << 20, 1));
        assert_eq!((of_flags.uses_promiscuous(), of_flags.user.as_deref()), (false, Some("root")));
        assert_eq!(of_flags.socket, PathBuf::from("/tmp/flag"));

        let replayed = settings("--replay x", file).unwrap();
        assert!(replayed.interface.is_empty() && replayed.replay.is_some(), "a flag overrules what it excludes");
        assert!(settings("--promiscuous", "no-promiscuous = true").unwrap().uses_promiscuous());
        let both = settings("", "interface = \"eth0\"\nreplay = \"x\"").unwrap();
        assert!(both.is_live(), "interfaces win within a file");
        assert_eq!(level(&settings("-v", "quiet = true").unwrap()), "debug");
    }

    #[test]
    fn what_is_usual() {
        let usual = settings("-m 40M", "").unwrap();
        assert_eq!((usual.interface.len(), &usual.filter, &usual.replay, usual.workers), (0, &None, &None, 1));
        assert!(usual.drops_privileges() && !usual.uses_promiscuous());
        assert_eq!((usual.compression_cpu, usual.retention()), (Percent(10.0), Policy::default()));
    }

    #[test]
    fn a_replay_has_a_pace() {
        let speed = |arguments: &str| settings(arguments, "").unwrap().speed;
        assert_eq!(speed("-m 40M --replay x"), Speed::Recorded);
        assert_eq!(speed("-m 40M --replay x --speed 2.5"), Speed::Times(2.5));
        assert_eq!(speed("-m 40M --replay x --speed max"), Speed::Max);
        for (arguments, words) in [
            ("--speed max", "--replay"),
            ("--replay x --speed 0", "try 2"),
            ("--replay x -i lo", "cannot be used"),
            ("--workers 0", "not within 1 to 256"),
            ("--pcap-over-ip-tls", "--pcap-over-ip 127"),
            ("--pcap-over-ip-past 5m", "--pcap-over-ip 127"),
            ("--pcap-over-ip-format csv", "pcap-nano"),
            ("prot 1", "try"),
        ] {
            let error = settings(arguments, "").unwrap_err().to_string();
            assert!(error.contains(words), "{arguments}: {error}");
        }
    }

    /// The values in the sample are the defaults, so that a file with all of them changes nothing.
    #[test]
    fn the_sample_says_what_is_usual() {
        let text: String = rows()
            .filter(|row| row.section.is_empty() && matches!(row.default, DefaultValue::Is(_)))
            .map(|row| format!("{} = {}\n", row.name, row.sample()))
            .collect();
        let (of_sample, usual) = (settings("", &text).unwrap(), settings("", "").unwrap());
        assert_eq!(of_sample, usual, "{text}");
        assert!(usual.changes(&of_sample, Reload::Now).is_empty());
        settings("", &sample()).unwrap();
    }
}
