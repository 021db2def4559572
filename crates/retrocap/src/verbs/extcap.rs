//! `retrocap extcap`: makes Retrocap an interface of Wireshark.
//!
//! Wireshark runs every program in its extcap folders. Flags ask the program for its interfaces and their options, and
//! last to write a capture to a FIFO (extcap(4)). The program in the folder is a two-line script that calls this verb;
//! `--install` writes it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, anyhow};
use clap::Args;
use jiff::tz::TimeZone;

use crate::client::{self, RefusedRequest};
use crate::error::{AlreadyReported, Usage};
use crate::options::Common;
use crate::terminal::output::{FileMode, Output};
use crate::terminal::printable::{note, print};
use crate::verbs::export;
use crate::verbs::selection::{self, Selection};
use api::question::{ExportQuestion, PacketsQuestion};
use base::packet::LinkType;
use base::time::{self, Timestamp};
use formats::writer::Format;

/// Name of the interface, as in `tshark -i retrocap`.
const INTERFACE: &str = "retrocap";
const DISPLAY: &str = "Retrocap: go back in time";
/// File name of the script in the extcap folder.
const SCRIPT: &str = "retrocap";
/// The line that identifies a script of ours.
const MARK: &str = "# Written by `retrocap extcap --install`; `retrocap extcap --uninstall` removes it.";

/// Go back in time in Wireshark: install Retrocap as an interface, and act as that interface
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  retrocap extcap --install                 then start Wireshark: Retrocap is among its interfaces
  retrocap extcap --install --folder ~/.config/wireshark/extcap    if tshark -G folders does not list the folder
  retrocap extcap --uninstall               remove it again
  tshark -i retrocap                        the last ten minutes, then new packets
  tshark -i retrocap -o extcap.retrocap.since:2h -f 'port 53'
  tshark -i retrocap -o extcap.retrocap.remote:https://sensor1.example:57443")]
pub(crate) struct Extcap {
    /// Install the interface for this user's Wireshark
    #[arg(long, conflicts_with = "uninstall")]
    install: bool,
    /// Remove the interface
    #[arg(long)]
    uninstall: bool,
    /// Install to this folder, or remove from it [default: the folder that tshark -G folders lists]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Query by Wireshark: the interfaces
    #[arg(long, help_heading = "Arguments from Wireshark")]
    extcap_interfaces: bool,
    /// From Wireshark: its version
    #[arg(long, value_name = "VERSION", num_args = 0..=1, help_heading = "Arguments from Wireshark")]
    extcap_version: Option<Option<String>>,
    /// From Wireshark: the interface
    #[arg(long, value_name = "NAME", help_heading = "Arguments from Wireshark")]
    extcap_interface: Option<String>,
    /// Query by Wireshark: the link types of the interface
    #[arg(long, help_heading = "Arguments from Wireshark")]
    extcap_dlts: bool,
    /// Query by Wireshark: the fields of the interface's dialog
    #[arg(long, help_heading = "Arguments from Wireshark")]
    extcap_config: bool,
    /// From Wireshark: the capture filter; without --capture, check its syntax
    #[arg(long, value_name = "EXPR", help_heading = "Arguments from Wireshark")]
    extcap_capture_filter: Option<String>,
    /// From Wireshark: write packets
    #[arg(long, requires = "fifo", help_heading = "Arguments from Wireshark")]
    capture: bool,
    /// From Wireshark: the file to write to
    #[arg(long, value_name = "FILE", help_heading = "Arguments from Wireshark")]
    fifo: Option<PathBuf>,
    /// From the dialog: only packets from this time on
    #[arg(long, value_name = "TIME", help_heading = "Options from the dialog")]
    since: Option<String>,
    /// From the dialog: a tcpdump expression
    #[arg(long, value_name = "EXPR", help_heading = "Options from the dialog")]
    filter: Option<String>,
    /// From the dialog: continue with new packets
    #[arg(long, help_heading = "Options from the dialog")]
    follow: bool,
}

impl Extcap {
    /// Handles one call of the user or of Wireshark.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        if self.install {
            return self.install(common);
        }
        if self.uninstall {
            return self.uninstall();
        }
        if self.extcap_interfaces {
            let version = env!("CARGO_PKG_VERSION");
            return print(&format!(
                "extcap {{version={version}}}{{display=Retrocap}}\ninterface {{value={INTERFACE}}}{{display={DISPLAY}}}\n"
            ));
        }
        if let Some(name) = self.extcap_interface.as_deref().filter(|name| *name != INTERFACE) {
            return Err(Usage::of(format_args!("there is no extcap interface {name:?}: there is {INTERFACE}")));
        }
        if self.extcap_dlts {
            let (number, name) = (LinkType::ETHERNET.0, LinkType::ETHERNET);
            return print(&format!(
                "dlt {{number={number}}}{{name={name}}}{{display=Ethernet, and what else was recorded}}\n"
            ));
        }
        if self.extcap_config {
            return print(&fields(&common.socket.clone().unwrap_or_else(Common::socket_default)));
        }
        match (&self.fifo, &self.extcap_capture_filter) {
            (Some(fifo), _) if self.capture => self.capture(fifo, common),
            // Wireshark shows any output as the error message.
            (_, Some(filter)) => match selection::expression(std::slice::from_ref(filter)) {
                Ok(_) => Ok(()),
                Err(error) => print(&format!("{error}\n")),
            },
            _ => Err(Usage::of(
                "this is called by Wireshark: try `retrocap extcap --install`, and then Wireshark or tshark -i retrocap",
            )),
        }
    }

    fn capture(&self, fifo: &Path, common: &Common) -> anyhow::Result<()> {
        // Open the FIFO first, because Wireshark waits at its other end.
        let output = Output::open_to_follow(fifo, FileMode::PRIVATE)?;
        let answer = self.target().and_then(|target| client::get(common, &target));
        let error = match answer {
            Ok(answer) => return export::copy_at_once(answer, output, common),
            Err(error) => error,
        };
        // Print the error before the capture ends, because Wireshark shows what was printed until then.
        note(&format!("retrocap: {error}"));
        export::empty(Format::Pcapng, output)?;
        let nothing_found = error.downcast_ref::<RefusedRequest>().is_some_and(RefusedRequest::is_nothing_found);
        if nothing_found { Ok(()) } else { Err(AlreadyReported.into()) }
    }

    /// The request target for the recorder.
    pub(crate) fn target(&self) -> anyhow::Result<String> {
        let (now, tz) = (Timestamp::from(std::time::SystemTime::now()), TimeZone::system());
        let mut selection = Selection::everything();
        let given =
            |text: &Option<String>| text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        if let Some(since) = given(&self.since) {
            selection.begin(time::parse(&since, now, &tz).map_err(Usage::of)?);
        }
        for filter in [given(&self.filter), given(&self.extcap_capture_filter)].into_iter().flatten() {
            selection.and(&filter);
        }
        let selection = selection.question(None, now, &tz)?;
        let export = ExportQuestion { follow: self.follow.then_some(true), ..ExportQuestion::default() };
        Ok(PacketsQuestion { selection, export }.target())
    }

    fn install(&self, common: &Common) -> anyhow::Result<()> {
        let script = self.script()?;
        if !is_ours(&script)? {
            return Err(anyhow!(
                "{} is there and not ours: move it away, or choose another --folder",
                script.display()
            ));
        }
        let program = std::env::current_exe().context("cannot tell where this program is")?;
        let socket = common.socket.as_deref().map(|socket| {
            let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
            format!("RETROCAP_SOCKET={} ", quoted(&socket))
        });
        let text =
            format!("#!/bin/sh\n{MARK}\n{}exec {} extcap \"$@\"\n", socket.unwrap_or_default(), quoted(&program));
        let cannot = || format!("cannot write {}", script.display());
        if let Some(folder) = script.parent() {
            std::fs::create_dir_all(folder).with_context(cannot)?;
        }
        // Write a temporary file and rename it, so that Wireshark never runs a partial script.
        let mut file = tempfile::Builder::new()
            .prefix(".retrocap-")
            .tempfile_in(script.parent().unwrap_or(Path::new(".")))
            .with_context(cannot)?;
        file.write_all(text.as_bytes()).with_context(cannot)?;
        executable(&file).with_context(cannot)?;
        file.persist(&script).with_context(cannot)?;
        note(&format!(
            "installed as {}\nWireshark shows {DISPLAY:?} among its interfaces when it is started again; `tshark -i {INTERFACE}` works now",
            script.display()
        ));
        Ok(())
    }

    fn uninstall(&self) -> anyhow::Result<()> {
        let script = self.script()?;
        if !script.exists() {
            return Err(anyhow!("{} is not there: nothing to remove", script.display()));
        }
        if !is_ours(&script)? {
            return Err(anyhow!("{} is not ours, and stays", script.display()));
        }
        std::fs::remove_file(&script).with_context(|| format!("cannot remove {}", script.display()))?;
        note(&format!("removed {}", script.display()));
        Ok(())
    }

    fn script(&self) -> anyhow::Result<PathBuf> {
        let folder = match &self.folder {
            Some(folder) => folder.clone(),
            None => personal_folder()?,
        };
        Ok(folder.join(SCRIPT))
    }
}

/// The fields of Wireshark's dialog, in the extcap format.
fn fields(socket: &Path) -> String {
    // Drop braces, because a brace ends a value.
    let socket = socket.display().to_string().replace(['{', '}'], "");
    format!(
        "arg {{number=0}}{{call=--since}}{{display=Since}}{{type=string}}{{default=10m}}{{placeholder=everything kept}}\
         {{tooltip=How far back to go: 10m, 2h30m, 14:02, yesterday 14:00, 2026-11-22T10:00:00Z; empty for all there is}}\n\
         arg {{number=1}}{{call=--filter}}{{display=Filter}}{{type=string}}{{placeholder=host 10.0.0.5 and not port 22}}\
         {{tooltip=A tcpdump expression, in addition to the capture filter}}\n\
         arg {{number=2}}{{call=--follow}}{{display=Go on with packets as they come}}{{type=boolflag}}{{default=true}}\
         {{tooltip=Without it the capture ends with the past}}\n\
         arg {{number=3}}{{call=--socket}}{{display=Recorder's socket}}{{type=string}}{{default={socket}}}\
         {{tooltip=Where the recorder of this machine listens}}{{group=Recorder}}\n\
         arg {{number=4}}{{call=--remote}}{{display=Recorder elsewhere}}{{type=string}}\
         {{placeholder=https://sensor1:57443}}\
         {{tooltip=Ask this one instead, over TLS, with a certificate}}{{group=Recorder}}\n\
         arg {{number=5}}{{call=--ca}}{{display=Its authority}}{{type=fileselect}}{{mustexist=true}}\
         {{tooltip=Certificate of the authority that it must have; ca.pem in ~/.config/retrocap otherwise}}\
         {{group=Recorder}}\n\
         arg {{number=6}}{{call=--cert}}{{display=Your certificate}}{{type=fileselect}}{{mustexist=true}}\
         {{tooltip=Certificate to show it, with the role packets; client.pem there otherwise}}{{group=Recorder}}\n\
         arg {{number=7}}{{call=--key}}{{display=Your private key}}{{type=fileselect}}{{mustexist=true}}\
         {{tooltip=Private key to that certificate; client.key there otherwise}}{{group=Recorder}}\n"
    )
}

/// This user's folder for extcap programs.
fn personal_folder() -> anyhow::Result<PathBuf> {
    for program in ["tshark", "wireshark"] {
        if let Ok(output) = Command::new(program).args(["-G", "folders"]).output()
            && let Some(folder) = folder_in(&String::from_utf8_lossy(&output.stdout))
        {
            return Ok(folder);
        }
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).ok_or_else(|| {
        anyhow!(
            "neither tshark nor $HOME tells where Wireshark looks: say it with --folder, see Help > About > Folders"
        )
    })?;
    Ok(Path::new(&home).join(".local/lib/wireshark/extcap"))
}

/// The personal extcap folder in the output of `tshark -G folders`. Before Wireshark 4.2 that output has no such line,
/// and the folder is in the personal configuration.
fn folder_in(folders: &str) -> Option<PathBuf> {
    let named = |name: &str| {
        let line = folders.lines().find_map(|line| line.strip_prefix(name))?;
        Some(PathBuf::from(line.trim_start_matches(':').trim())).filter(|path| path.is_absolute())
    };
    named("Personal Extcap path").or_else(|| Some(named("Personal configuration")?.join("extcap")))
}

/// Whether the script may be replaced or removed: it is ours, or there is none.
fn is_ours(script: &Path) -> anyhow::Result<bool> {
    match std::fs::read(script) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).contains(MARK)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", script.display())),
    }
}

/// Quotes a path for a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(unix)]
fn executable(file: &tempfile::NamedTempFile) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn executable(_: &tempfile::NamedTempFile) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_each_version_of_wireshark() {
        for (folders, expected) in [
            ("Temp:\t/tmp\nPersonal configuration:\t/root/.config/wireshark\n", Some("/root/.config/wireshark/extcap")),
            (
                "Personal configuration:\t/h/.config/wireshark\nPersonal Extcap path:\t/h/.local/lib/wireshark/extcap\n",
                Some("/h/.local/lib/wireshark/extcap"),
            ),
            ("tshark: what?\n", None),
        ] {
            assert_eq!(folder_in(folders), expected.map(PathBuf::from), "{folders}");
        }
    }

    #[test]
    fn a_path_survives_the_shell() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
