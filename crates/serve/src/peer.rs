//! Who asks, and what they may.
//!
//! Whoever may connect to the socket may ask everything: the file's mode is the rule there. A client from another
//! machine has a certificate, and the roles that it or the configuration gives. Plain TCP on loopback reads only: any
//! web page could make a browser of this host send something there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::UnixStream;

/// What a client may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What is kept and lost, health, metrics.
    Status,
    /// The sessions known; and the status.
    Flows,
    /// Packets; and sessions and the status.
    Packets,
    /// Pins: to list, make and remove them; and the status.
    Pin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Status, Self::Flows, Self::Packets, Self::Pin];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Flows => "flows",
            Self::Packets => "packets",
            Self::Pin => "pin",
        }
    }

    /// The role that an address of the API takes. One that is not known takes the one that allows most.
    pub fn needed(path: &str) -> Self {
        match path {
            "/v1/status" | "/v1/health" | "/v1/openapi.json" | "/metrics" => Self::Status,
            "/v1/flows" => Self::Flows,
            "/v1/pins" => Self::Pin,
            _ => Self::Packets,
        }
    }

    fn with_implied(self) -> u8 {
        match self {
            Self::Status => 0b0001,
            Self::Flows => 0b0011,
            Self::Packets => 0b0111,
            Self::Pin => 0b1001,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| format!("there is no role {text:?}: try status, flows, packets or pin"))
    }
}

/// Several roles, with those they imply.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Everything.
    pub const ALL: Self = Self(0b1111);
    /// Everything that changes nothing.
    pub const READ: Self = Self(0b0111);

    /// Whether a role is among them.
    pub fn include(self, role: Role) -> bool {
        self.0 & role.with_implied() == role.with_implied()
    }

    /// Whether all of others are among them.
    pub fn include_all(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        Role::ALL.into_iter().filter(move |&role| self.include(role)).map(Role::name)
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<T: IntoIterator<Item = Role>>(roles: T) -> Self {
        Self(roles.into_iter().fold(0, |bits, role| bits | role.with_implied()))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no role");
        }
        f.write_str(&self.names().collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Peer(Arc<PeerInfo>);

#[derive(Debug)]
struct PeerInfo {
    who: Identity,
    from: Option<SocketAddr>,
    /// Our end of the connection.
    local: Option<SocketAddr>,
    roles: Roles,
}

#[derive(Debug)]
enum Identity {
    /// A process of this host, as the kernel says.
    Local { uid: Option<u32>, gid: Option<u32>, pid: Option<i32> },
    /// The owner of a certificate.
    Certificate { name: String, serial: String, given: Roles },
    /// Whoever reaches a port of loopback.
    Loopback,
}

impl Peer {
    /// The process at the other end of a socket.
    pub(super) fn of_socket(stream: &UnixStream) -> Self {
        let credentials = stream.peer_cred().ok();
        let who = Identity::Local {
            uid: credentials.map(|c| c.uid()),
            gid: credentials.map(|c| c.gid()),
            pid: credentials.and_then(|c| c.pid()),
        };
        Self(Arc::new(PeerInfo { who, from: None, local: None, roles: Roles::ALL }))
    }

    /// The owner of a certificate that was verified, and gives these roles.
    pub(super) fn of_certificate(name: String, serial: String, from: SocketAddr, given: Roles) -> Self {
        Self(Arc::new(PeerInfo {
            who: Identity::Certificate { name, serial, given },
            from: Some(from),
            local: None,
            roles: given,
        }))
    }

    /// The same with the roles that `said` gives to the owner of a certificate, which has its own where there are none.
    pub(super) fn with_roles(self, said: impl FnOnce(&str, &str) -> Option<Roles>) -> Self {
        let Identity::Certificate { name, serial, given } = &self.0.who else { return self };
        let roles = said(name, serial).unwrap_or(*given);
        if roles == self.0.roles {
            return self;
        }
        let who = Identity::Certificate { name: name.clone(), serial: serial.clone(), given: *given };
        Self(Arc::new(PeerInfo { who, from: self.0.from, local: self.0.local, roles }))
    }

    /// Somebody on this host.
    pub(super) fn of_loopback(from: SocketAddr) -> Self {
        Self(Arc::new(PeerInfo { who: Identity::Loopback, from: Some(from), local: None, roles: Roles::READ }))
    }

    /// The same, who came to this address of ours; to be said before anybody else knows them.
    pub(super) fn with_local_address(mut self, local: Option<SocketAddr>) -> Self {
        if let Some(known) = Arc::get_mut(&mut self.0) {
            known.local = local;
        }
        self
    }

    /// The TCP connection they came over, our end first.
    pub(super) fn connection(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.0.local.zip(self.0.from)
    }

    /// Whether they may say what is not recorded: root, and the user that records.
    pub(super) fn may_exclude_connections(&self) -> bool {
        let (uid, _) = self.process();
        uid.is_some_and(|uid| uid == 0 || uid == rustix::process::getuid().as_raw())
    }

    /// Whether they may.
    pub fn may(&self, role: Role) -> bool {
        self.0.roles.include(role)
    }

    /// What they may.
    pub fn roles(&self) -> Roles {
        self.0.roles
    }

    /// Whether they came over plain TCP, as a browser can.
    pub(super) fn is_loopback(&self) -> bool {
        matches!(self.0.who, Identity::Loopback)
    }

    /// The user and process, where the kernel says.
    pub(super) fn process(&self) -> (Option<u32>, Option<i32>) {
        match self.0.who {
            Identity::Local { uid, pid, .. } => (uid, pid),
            _ => (None, None),
        }
    }

    /// Those that share a limit: the processes of a user, the addresses of a network.
    pub(super) fn source(&self) -> PeerSource {
        match (&self.0.who, self.0.from) {
            (Identity::Local { uid, .. }, _) => PeerSource::User(uid.unwrap_or(u32::MAX)),
            (_, Some(from)) => PeerSource::of(from),
            (_, None) => PeerSource::User(u32::MAX),
        }
    }

    /// Who they are, with their certificate, for the log.
    pub(super) fn described(&self) -> String {
        match &self.0.who {
            Identity::Certificate { serial, .. } => format!("{self}, with the certificate number {serial},"),
            Identity::Local { .. } | Identity::Loopback => self.to_string(),
        }
    }

    /// For the audit log.
    pub(super) fn audit_fields(&self) -> Value {
        match &self.0.who {
            Identity::Local { uid, gid, pid } => json!({ "uid": uid, "gid": gid, "pid": pid }),
            Identity::Certificate { name, serial, .. } => {
                json!({ "certificate": name, "serial": serial, "roles": self.0.roles.names().collect::<Vec<_>>() })
            }
            Identity::Loopback => json!({ "anybody": "on this host" }),
        }
    }

    /// Where they are, for the audit log.
    pub(super) fn origin(&self) -> String {
        self.0.from.map_or_else(|| "socket".to_owned(), |from| from.to_string())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.who {
            Identity::Local { uid: Some(uid), pid: Some(pid), .. } => write!(f, "uid {uid} (process {pid})")?,
            Identity::Local { uid: Some(uid), .. } => write!(f, "uid {uid}")?,
            Identity::Local { .. } => f.write_str("somebody")?,
            Identity::Certificate { name, .. } => write!(f, "{name}")?,
            Identity::Loopback => f.write_str("somebody")?,
        }
        self.0.from.map_or(Ok(()), |from| write!(f, " at {from}"))
    }
}

/// Those that share a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PeerSource {
    User(u32),
    /// An address, of IPv6 the network that one host has.
    Address(IpAddr),
}

impl PeerSource {
    pub(super) fn of(from: SocketAddr) -> Self {
        Self::Address(match from.ip().to_canonical() {
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
            address => address,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_implies_what_can_be_seen_with_it() {
        let roles = |text: &str| text.split(' ').map(|role| role.parse().unwrap()).collect::<Roles>().to_string();
        for (given, has) in [
            ("status", "status"),
            ("flows", "status, flows"),
            ("packets", "status, flows, packets"),
            ("pin", "status, pin"),
            ("pin flows", "status, flows, pin"),
        ] {
            assert_eq!(roles(given), has);
        }
        assert_eq!((Roles::default().to_string().as_str(), Roles::ALL.include(Role::Pin)), ("no role", true));
        assert!(!Roles::READ.include(Role::Pin));
        assert!("admin".parse::<Role>().unwrap_err().contains("try status, flows"));
        assert_eq!(Role::needed("/v1/of-tomorrow"), Role::Packets);
    }

    #[test]
    fn a_host_is_one_source() {
        let source = |text: &str| PeerSource::of(text.parse().unwrap());
        assert_eq!(source("10.0.0.1:1"), source("[::ffff:10.0.0.1]:2"));
        assert_eq!(source("[2001:db8::1]:1"), source("[2001:db8::2]:1"));
        assert_ne!(source("[2001:db8::1]:1"), source("[2001:db8:0:1::1]:1"));
    }
}
