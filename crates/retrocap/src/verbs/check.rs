//! `retrocap check`: tells whether a configuration and this machine can record, and what to do if not.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::error::Usage;
use crate::options::Common;
use crate::terminal::printable::print;
use crate::verbs::run::Run;
use crate::verbs::size::Size;
use daemon::check::{self, Finding, Severity};
use daemon::settings;

/// Default path of the service's configuration.
const CONFIG_DEFAULT: &str = "/etc/retrocap/retrocap.toml";

/// Check whether a configuration and this machine can record, and say what to do if not
///
/// It changes nothing. Run it as the user of the service, which is root.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo retrocap check                                 this machine, and the configuration if there is one
  sudo retrocap check --config ./retrocap.toml        that file
  retrocap check --json | jq '.findings[] | select(.result != \"ok\")'
  retrocap check --sample > retrocap.toml             every key, with its unit and default
  retrocap check --size 100Mbit/s,8h                  the memory that 8 hours of this mean load need

It exits with 1 when something keeps Retrocap from recording.")]
pub(crate) struct Check {
    /// Configuration file [default: /etc/retrocap/retrocap.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print a sample configuration with every key instead
    #[arg(long, conflicts_with = "config")]
    sample: bool,
    /// Print the memory that a mean load (both directions) and a time to look back need, and how far back the
    /// configured memory reaches: 100Mbit/s,8h; the time defaults to 24h
    #[arg(long, value_name = "RATE[,TIME]", conflicts_with = "sample")]
    size: Option<Size>,
}

impl Check {
    /// Runs the checks and prints the findings.
    pub(crate) fn run(self, common: &Common) -> anyhow::Result<()> {
        if self.sample {
            return print(&settings::sample());
        }
        let usual = Path::new(CONFIG_DEFAULT);
        let path = self.config.or_else(|| usual.exists().then(|| usual.to_owned()));
        if let Some(size) = self.size {
            let run = path.as_deref().map_or_else(Run::default, Run::of_file);
            let memory = run.settings(common)?.memory_bytes().map_err(Usage::of)?;
            return print(&if common.json { size.document(memory) } else { size.text(memory) });
        }
        let findings = look(path.as_deref(), common);
        let worst = findings.iter().map(|finding| finding.severity).max();
        let ok = worst != Some(Severity::Error);
        print(&if common.json { document(&findings, ok) } else { lines(&findings, common) })?;
        if ok { Ok(()) } else { Err(anyhow::anyhow!("it cannot record like this: see the lines marked error")) }
    }
}

fn look(path: Option<&Path>, common: &Common) -> Vec<Finding> {
    let check = "configuration";
    let usual = || Run::default().settings(common);
    let (settings, finding) = match path {
        None => (usual(), Finding::good(check, "no configuration file, so the defaults apply")),
        Some(path) => match Run::of_file(path).settings(common) {
            Ok(settings) => (Ok(settings), Finding::good(check, path.display().to_string())),
            // Check the machine with the defaults.
            Err(error) => (usual(), mistaken(&error)),
        },
    };
    let machine = match settings {
        Ok(settings) => check::machine(&settings),
        Err(error) => vec![mistaken(&error)],
    };
    std::iter::once(finding).chain(machine).collect()
}

fn mistaken(error: &anyhow::Error) -> Finding {
    let advice = match error.is::<Usage>() {
        true => "correct it; `retrocap check --sample` shows every key",
        false => "it must exist, and be readable by the user that starts retrocap",
    };
    Finding::error("configuration", format!("{error:#}").replace("\nretrocap: ", "\n"), advice)
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Good => "ok",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn document(findings: &[Finding], ok: bool) -> String {
    let findings: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "check": finding.check,
                "result": word(finding.severity),
                "found": finding.found,
                "advice": finding.advice,
            })
        })
        .collect();
    format!("{}\n", json!({ "ok": ok, "findings": findings }))
}

/// Formats one line per finding, with the advice below it.
fn lines(findings: &[Finding], common: &Common) -> String {
    let shown = findings.iter().filter(|finding| !common.quiet || finding.severity > Severity::Good);
    shown.fold(String::new(), |mut out, finding| {
        let indent = " ".repeat(26);
        let found = finding.found.replace('\n', &format!("\n{indent}"));
        out.push_str(&format!("{:<8} {:<16} {found}\n", word(finding.severity), finding.check));
        if let Some(advice) = &finding.advice {
            out.push_str(&format!("{indent}-> {advice}\n"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_stands_below_what_was_found() {
        let findings = [
            Finding::good("budget", "40 MiB of memory"),
            Finding::error("configuration", "x.toml: line 1: a\nx.toml: line 2: b", "correct it"),
        ];
        let common = Common::default();
        assert_eq!(
            lines(&findings, &common),
            "ok       budget           40 MiB of memory\n\
             error    configuration    x.toml: line 1: a\n                          x.toml: line 2: b\n\
             \u{20}                         -> correct it\n"
        );
        let quiet = Common { quiet: true, ..common };
        assert!(!lines(&findings, &quiet).contains("budget"));
        let document: serde_json::Value = serde_json::from_str(&document(&findings, false)).unwrap();
        assert_eq!((&document["ok"], &document["findings"][1]["result"]), (&false.into(), &"error".into()));
    }
}
