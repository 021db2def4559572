//! `retrocap page`: a link that opens the recorder's web page, and the browser where there is a desktop.

use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use clap::Args;
use hyper::Method;

use crate::client;
use crate::options::Common;
use crate::terminal::printable::{note, print, print_json};
use api::page_answers::{NewPageLink, PageLink};
use api::path;

/// Where the kernel keeps the user who logged in, which sudo and su do not change.
const LOGIN_UID: &str = "/proc/self/loginuid";
/// Variables that say that there is a desktop.
const DESKTOP: [&str; 2] = ["WAYLAND_DISPLAY", "DISPLAY"];

/// Open the web page of the recorder
///
/// Prints a link that opens the page in a browser of this host, and opens it where there is a desktop. The link works once,
/// for the user who asked, and for the user who ran sudo. What is seen on the page is in the audit log under the name of who
/// asked. A page that nobody uses for an hour has to be opened again. From another machine, open the address of the
/// recorder's TLS listener (--listen) in a browser that has a client certificate, or forward the port with ssh -L.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo retrocap page             print a link, and open it where there is a desktop
  sudo retrocap page --no-open   print it only
  sudo retrocap page --json      for scripts: the link as JSON
  ssh -L 57081:127.0.0.1:57081 sensor1 sudo retrocap page
                                 open the page of another host whose recorder has --page 127.0.0.1:57081")]
pub(crate) struct Page {
    /// Only print the link
    #[arg(long)]
    no_open: bool,
}

impl Page {
    /// Asks for a link, and prints and opens it.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        let user = invoking_user();
        let body = serde_json::to_string(&NewPageLink { browser_uid: user })?;
        let document = client::ask(common, Method::POST, path::PAGE, Some(body))?.document()?;
        if common.json {
            return print_json(&format!("{}\n", document.trim_end()));
        }
        let link: PageLink = serde_json::from_str(&document).context("the recorder has another version")?;
        print(&format!("{}\n", link.url.terminal()))?;
        let has_desktop = DESKTOP.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
        if self.no_open || !has_desktop || !std::io::stdout().is_terminal() {
            if !common.quiet {
                note("retrocap: open this link in a browser of this host; it works once");
            }
            return Ok(());
        }
        match open(link.url.untrusted(), user) {
            Ok(()) if !common.quiet => note("retrocap: the browser opens this link, which works once"),
            Ok(()) => {}
            Err(error) => note(&format!("retrocap: no browser could be started ({error}); open the link yourself")),
        }
        Ok(())
    }
}

/// The user who runs this program, who may have become root with sudo.
fn invoking_user() -> Option<u32> {
    let of_variable = |name| std::env::var(name).ok()?.parse().ok();
    let login = || std::fs::read_to_string(LOGIN_UID).ok()?.trim().parse().ok().filter(|uid| *uid != u32::MAX);
    of_variable("SUDO_UID").or_else(|| of_variable("PKEXEC_UID")).or_else(login)
}

/// Starts the browser of the desktop, never as root.
fn open(url: &str, user: Option<u32>) -> std::io::Result<()> {
    // Whatever the recorder answers, this opens nothing but a page of this host.
    if !url.starts_with("http://127.") && !url.starts_with("http://[::1]:") {
        return Err(std::io::Error::other("the recorder gave a link to another host"));
    }
    let mut command = Command::new("xdg-open");
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A terminal that is closed at once does not end the browser.
    command.process_group(0);
    if rustix::process::geteuid().is_root() {
        let user = user.filter(|uid| *uid != 0).ok_or_else(|| std::io::Error::other("a browser is not run as root"))?;
        let group = std::env::var("SUDO_GID").ok().and_then(|gid| gid.parse().ok()).unwrap_or(user);
        command.uid(user).gid(group).env("XDG_RUNTIME_DIR", format!("/run/user/{user}"));
    }
    command.spawn().map(drop)
}
