//! `retrocap interfaces`: lists the interfaces that `run` would record, or those that a recorder recorded and that are gone.

use anyhow::Context as _;
use clap::Args;
use jiff::tz::TimeZone;

use crate::client;
use crate::options::Common;
use crate::terminal::human::counted;
use crate::terminal::interface_lines::{InterfaceLines, local};
use crate::terminal::printable::{print, print_json};
use api::path;
use query::status::{InterfaceStatus, Status};

/// List the interfaces that run would record, as tcpdump -D does
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  retrocap interfaces                             all of them, with their addresses
  retrocap interfaces --json | jq -r '.[].name'   only the names
  retrocap interfaces | grep 'Up, Running'        those that carry packets
  retrocap interfaces --gone                      those that a recorder has packets of, and that were removed or renamed")]
pub(crate) struct Interfaces {
    /// List the interfaces that a recorder recorded and that no longer exist under that name
    #[arg(long)]
    gone: bool,
}

impl Interfaces {
    /// The verb without options, as `-D` of other verbs runs it.
    pub(crate) fn all() -> Self {
        Self { gone: false }
    }
}

/// Prints the interfaces of a recorder that were removed or renamed, the latest first.
fn print_gone(common: &Common) -> anyhow::Result<()> {
    let document = client::get(common, path::STATUS)?.document()?;
    let status: Status = serde_json::from_str(&document).context("the recorder has another version")?;
    let mut gone: Vec<InterfaceStatus> = status.interfaces.into_iter().filter(|i| i.gone.is_some()).collect();
    gone.sort_by(|a, b| b.gone.cmp(&a.gone));
    if common.json {
        print_json(&format!("{}\n", serde_json::to_string_pretty(&gone)?))
    } else {
        print(&gone_list(&gone))
    }
}

fn gone_list(gone: &[InterfaceStatus]) -> String {
    let verb = if gone.len() == 1 { "is" } else { "are" };
    let mut out = match gone.len() {
        0 => "no interface that was recorded is gone\n".to_owned(),
        count => format!("{} that {verb} gone\n", counted(count as u64, "interface")),
    };
    let mut lines = InterfaceLines::default();
    for interface in gone {
        let since = interface.gone.as_ref().map(|at| format!("gone since {}", local(at, &TimeZone::system())));
        lines.add(interface, since.unwrap_or_default());
    }
    lines.write(&mut out);
    out
}

#[cfg(not(target_os = "linux"))]
impl Interfaces {
    /// Returns an error, because this system has no live capture.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        if self.gone {
            return print_gone(common);
        }
        Err(anyhow::anyhow!("live capture knows only Linux so far; retrocap replay reads capture files everywhere"))
    }
}

#[cfg(target_os = "linux")]
use crate::terminal::printable::plain;
#[cfg(target_os = "linux")]
use capture::interfaces::HostInterface;

#[cfg(target_os = "linux")]
impl Interfaces {
    /// Prints the list.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        if self.gone {
            return print_gone(common);
        }
        let interfaces = capture::interfaces::list().context("cannot list the interfaces")?;
        if common.json {
            let all: Vec<_> = interfaces.iter().map(json).collect();
            return print_json(&format!("{}\n", serde_json::to_string_pretty(&all)?));
        }
        print(&list(&interfaces))
    }
}

#[cfg(target_os = "linux")]
fn json(interface: &HostInterface) -> serde_json::Value {
    serde_json::json!({
        "name": interface.name,
        "index": interface.index,
        "link_type": interface.link_type.to_string(),
        "up": interface.up,
        "running": interface.running,
        "loopback": interface.loopback,
        "mac": interface.mac.map(mac),
        "addresses": interface.addresses.iter().map(|(ip, bits)| format!("{ip}/{bits}")).collect::<Vec<_>>(),
        "mtu": interface.mtu,
        "description": interface.description,
    })
}

#[cfg(target_os = "linux")]
fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// Formats lines such as `1.eth0 (uplink) [Up, Running] EN10MB 10.0.0.5/24 fe80::1/64`, numbered as in tcpdump.
#[cfg(target_os = "linux")]
fn list(interfaces: &[HostInterface]) -> String {
    let mut out = String::new();
    for (number, interface) in (1u64..).zip(interfaces) {
        let mut flags = Vec::new();
        for (flag, set) in [("Up", interface.up), ("Running", interface.running), ("Loopback", interface.loopback)] {
            if set {
                flags.push(flag);
            }
        }
        let flags = if flags.is_empty() { "Down".to_owned() } else { flags.join(", ") };
        let description = interface.description.as_ref().map(|text| format!(" ({})", plain(text))).unwrap_or_default();
        let addresses: String = interface.addresses.iter().map(|(ip, bits)| format!(" {ip}/{bits}")).collect();
        out.push_str(&format!(
            "{number}.{}{description} [{flags}] {}{addresses}\n",
            plain(&interface.name),
            interface.link_type
        ));
    }
    out
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use base::packet::LinkType;

    #[test]
    fn a_list_as_tcpdump_numbers_it() {
        let ethernet = HostInterface {
            name: "eth0".to_owned(),
            index: 2,
            link_type: LinkType::ETHERNET,
            hatype: 1,
            up: true,
            running: true,
            loopback: false,
            mac: Some([2, 0, 0, 0, 0, 1]),
            addresses: vec![("10.0.0.5".parse().unwrap(), 24), ("fe80::1".parse().unwrap(), 64)],
            mtu: 1500,
            description: Some("uplink".to_owned()),
        };
        let tunnel = HostInterface {
            name: "wg0".to_owned(),
            index: 7,
            link_type: LinkType::RAW,
            hatype: 65534,
            up: false,
            running: false,
            mac: None,
            addresses: Vec::new(),
            description: None,
            ..ethernet.clone()
        };
        insta::assert_snapshot!(list(&[ethernet, tunnel]), @r"
        1.eth0 (uplink) [Up, Running] EN10MB 10.0.0.5/24 fe80::1/64
        2.wg0 [Down] RAW
        ");
    }
}
