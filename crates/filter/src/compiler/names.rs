//! Names of hosts, networks, ports and protocols, as the host knows them.
//!
//! The files of the host come first, so that a name means what it means to tcpdump there. A host without such a file,
//! and Windows where it is missing, use the tables in the program.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::path::PathBuf;

use super::protocol::Transport;
use super::refusal::{Refusal, refuse};

/// The names of well-known ports and of IP protocols, in the form of `/etc/services` and `/etc/protocols`.
const SERVICES: &str = include_str!("services.txt");
const PROTOCOLS: &str = include_str!("protocols.txt");
/// The most bytes of a file that are read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A named port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assigned {
    pub(super) port: u32,
    /// `None` for all transport protocols.
    pub(super) transport: Option<Transport>,
}

/// The files, read when the first name asks for them.
#[derive(Debug, Default)]
pub(super) struct Names {
    services: Option<String>,
    protocols: Option<String>,
    networks: Option<String>,
    ethers: Option<String>,
}

impl Names {
    /// Resolves a host name with the resolver of the system.
    pub(super) fn host(&self, name: &str) -> Result<Vec<IpAddr>, Refusal> {
        match (name, 0).to_socket_addrs() {
            Ok(addresses) => Ok(addresses.map(|address| address.ip()).collect()),
            Err(_) => refuse(with_advice(format!("unknown host '{name}'"), name)),
        }
    }

    pub(super) fn refuse_network<T>(&self, name: &str) -> Result<T, Refusal> {
        refuse(with_advice(format!("unknown network '{name}'"), name))
    }

    /// Returns the number of a network, without trailing zero bytes that the file leaves out.
    pub(super) fn network(&mut self, name: &str) -> Option<u32> {
        let text = self.networks.get_or_insert_with(|| system_file("networks").unwrap_or_default());
        let number = entries(text).find_map(|words| {
            let [called, number, aliases @ ..] = words.as_slice() else { return None };
            (*called == name || aliases.contains(&name)).then_some(*number)
        })?;
        let missing = 3_usize.saturating_sub(number.matches('.').count());
        let address: Ipv4Addr = format!("{number}{}", ".0".repeat(missing)).parse().ok()?;
        Some(address.to_bits()).filter(|number| *number != 0)
    }

    pub(super) fn ether(&mut self, name: &str) -> Option<[u8; 6]> {
        let text = self.ethers.get_or_insert_with(|| system_file("ethers").unwrap_or_default());
        entries(text).find_map(|words| {
            let [address, called] = words.as_slice() else { return None };
            let mut bytes = [0; 6];
            let mut parts = address.split(':');
            for byte in &mut bytes {
                *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
            }
            (*called == name && parts.next().is_none()).then_some(bytes)
        })
    }

    pub(super) fn protocol(&mut self, name: &str) -> Option<u32> {
        let text =
            self.protocols.get_or_insert_with(|| system_file("protocols").unwrap_or_else(|| PROTOCOLS.to_owned()));
        entries(text).find_map(|words| {
            let [called, number, aliases @ ..] = words.as_slice() else { return None };
            if *called == name || aliases.contains(&name) { number.parse().ok() } else { None }
        })
    }

    /// Looks up a port by name or decimal number.
    pub(super) fn port(&mut self, name: &str) -> Option<Assigned> {
        if name.bytes().all(|digit| digit.is_ascii_digit()) {
            return Some(Assigned { port: name.parse::<u16>().ok()?.into(), transport: None });
        }
        let text = self.services.get_or_insert_with(|| system_file("services").unwrap_or_else(|| SERVICES.to_owned()));
        let of = |transport: &str| {
            entries(text).find_map(|words| {
                let [called, port, aliases @ ..] = words.as_slice() else { return None };
                let (port, over) = port.split_once('/')?;
                let is_it = over == transport && (*called == name || aliases.contains(&name));
                if is_it { port.parse::<u16>().ok() } else { None }
            })
        };
        let (tcp, udp) = (of("tcp"), of("udp"));
        let transport = match (tcp, udp) {
            (Some(tcp), Some(udp)) if tcp == udp => None,
            (Some(_), _) => Some(Transport::Tcp),
            _ => Some(Transport::Udp),
        };
        Some(Assigned { port: tcp.or(udp)?.into(), transport })
    }

    /// Looks up two ports with `-` between them.
    pub(super) fn port_range(&mut self, text: &str) -> Result<(u32, u32, Option<Transport>), Refusal> {
        let named = text.split_once('-').and_then(|(first, last)| Some((self.port(first)?, self.port(last)?)));
        match named {
            Some((first, last)) => {
                let same = first.transport == last.transport;
                Ok((first.port, last.port, last.transport.filter(|_| same)))
            }
            None => refuse(format!("unknown port in range '{text}'")),
        }
    }
}

/// The words of each line, without comments.
fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split('#').next().unwrap_or_default().split_whitespace().collect())
}

/// Reads one of the files that name things in networks.
fn system_file(name: &str) -> Option<String> {
    #[cfg(windows)]
    let path = {
        let name = if name == "protocols" { "protocol" } else { name };
        PathBuf::from(std::env::var_os("SystemRoot")?).join(r"System32\drivers\etc").join(name)
    };
    #[cfg(not(windows))]
    let path = PathBuf::from("/etc").join(name);
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Adds advice to the message about an unknown name. A recorder resolves names in its sandbox, without a name server.
fn with_advice(message: String, name: &str) -> String {
    format!(
        "{message}; a recorder queries no name server, because that would reveal what you look for, and knows only \
         the names in /etc/hosts: write the address, which `getent ahosts {name}` prints"
    )
}
