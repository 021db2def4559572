//! Clients: who they are, what they may ask, and with whom they share limits.
//!
//! A client that may connect to the socket may ask everything: the mode of the file is the rule there. A client of
//! another machine has a certificate, and the roles that it or the configuration gives. Plain TCP on loopback reads
//! only: any web page could make a browser of this host send something there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::polls::Polls;
use api::{Role, Roles};
use base::foreign::Foreign;

/// A client.
#[derive(Clone, Debug)]
pub struct Peer(Arc<PeerInfo>);

#[derive(Debug)]
struct PeerInfo {
    identity: Identity,
    from: Option<SocketAddr>,
    /// Our end of the connection.
    local: Option<SocketAddr>,
    roles: Roles,
    /// Of a session of the page: what it repeats.
    polls: Option<Arc<Polls>>,
}

#[derive(Clone, Debug)]
enum Identity {
    /// A process of this host, as the kernel says.
    Local { uid: Option<u32>, gid: Option<u32>, pid: Option<i32> },
    /// The owner of a certificate.
    Certificate { name: Foreign, serial: String, given: Roles },
    /// A process of this host that came over plain TCP; its user, where the kernel says.
    Loopback { uid: Option<u32> },
    /// The same at the port of the page, before it has shown a token.
    PageVisitor { uid: Option<u32> },
}

impl Peer {
    /// The process at the other end of a socket.
    pub(crate) fn of_socket(stream: &UnixStream) -> Self {
        let credentials = stream.peer_cred().ok();
        let identity = Identity::Local {
            uid: credentials.map(|c| c.uid()),
            gid: credentials.map(|c| c.gid()),
            pid: credentials.and_then(|c| c.pid()),
        };
        Self(Arc::new(PeerInfo { identity, from: None, local: None, roles: Roles::ALL, polls: None }))
    }

    /// The owner of a certificate that was verified, and gives these roles.
    pub(crate) fn of_certificate(name: Foreign, serial: String, from: SocketAddr, given: Roles) -> Self {
        let identity = Identity::Certificate { name, serial, given };
        Self(Arc::new(PeerInfo { identity, from: Some(from), local: None, roles: given, polls: None }))
    }

    /// The same with the roles that `configured` gives to the owner of a certificate; without them those of the certificate.
    pub(crate) fn with_roles(self, configured: impl FnOnce(&str, &str) -> Option<Roles>) -> Self {
        let Identity::Certificate { name, serial, given } = &self.0.identity else { return self };
        let roles = configured(name.untrusted(), serial).unwrap_or(*given);
        if roles == self.0.roles {
            return self;
        }
        let identity = Identity::Certificate { name: name.clone(), serial: serial.clone(), given: *given };
        Self(Arc::new(PeerInfo { identity, from: self.0.from, local: self.0.local, roles, polls: None }))
    }

    /// A process of this host, over plain TCP, of this user.
    pub(crate) fn of_loopback(from: SocketAddr, uid: Option<u32>) -> Self {
        let identity = Identity::Loopback { uid };
        Self(Arc::new(PeerInfo { identity, from: Some(from), local: None, roles: Roles::READ, polls: None }))
    }

    /// A process of this host at the port of the page, of this user. It may do nothing yet.
    pub(crate) fn of_page(from: SocketAddr, uid: Option<u32>) -> Self {
        let identity = Identity::PageVisitor { uid };
        Self(Arc::new(PeerInfo { identity, from: Some(from), local: None, roles: Roles::default(), polls: None }))
    }

    /// Whoever asked for a link, in the browser that is connected from there.
    pub(crate) fn in_browser(&self, browser: &Self, polls: Arc<Polls>) -> Self {
        let PeerInfo { identity, roles, .. } = &*self.0;
        let (identity, roles) = (identity.clone(), *roles);
        let PeerInfo { from, local, .. } = *browser.0;
        Self(Arc::new(PeerInfo { identity, from, local, roles, polls: Some(polls) }))
    }

    /// Whether it is at the port of the page and has shown no token.
    pub(crate) fn is_page_visitor(&self) -> bool {
        matches!(self.0.identity, Identity::PageVisitor { .. })
    }

    /// Whether it has a session of the page.
    pub(crate) fn has_page_session(&self) -> bool {
        self.0.polls.is_some()
    }

    /// Whether it connected to the Unix socket.
    pub(crate) fn is_at_socket(&self) -> bool {
        matches!(self.0.identity, Identity::Local { .. }) && self.0.polls.is_none()
    }

    /// Whether a session of the page asks what it has asked shortly before, so that the audit log has it.
    pub(crate) fn repeats(&self, question: &Value, now: Instant) -> bool {
        self.0.polls.as_ref().is_some_and(|polls| polls.repeats(question, now))
    }

    /// The same with our end of its connection. Call it before the peer is cloned.
    pub(crate) fn with_local_address(mut self, local: Option<SocketAddr>) -> Self {
        if let Some(info) = Arc::get_mut(&mut self.0) {
            info.local = local;
        }
        self
    }

    /// Its TCP connection, our end first.
    pub(crate) fn connection(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.0.local.zip(self.0.from)
    }

    /// Whether it may exclude connections from the recording: root, and the user of the recorder.
    pub(crate) fn may_exclude_connections(&self) -> bool {
        matches!(self.0.identity, Identity::Local { uid: Some(uid), .. } if is_privileged(uid))
    }

    /// Whether it has this role.
    pub fn may(&self, role: Role) -> bool {
        self.0.roles.include(role)
    }

    /// Its roles.
    pub fn roles(&self) -> Roles {
        self.0.roles
    }

    /// Whether it came over plain TCP, as a browser can.
    pub(crate) fn is_loopback(&self) -> bool {
        matches!(self.0.identity, Identity::Loopback { .. } | Identity::PageVisitor { .. })
    }

    /// Its user and process, where the kernel says.
    pub(crate) fn process(&self) -> (Option<u32>, Option<i32>) {
        match self.0.identity {
            Identity::Local { uid, pid, .. } => (uid, pid),
            Identity::Loopback { uid } | Identity::PageVisitor { uid } => (uid, None),
            Identity::Certificate { .. } => (None, None),
        }
    }

    /// Those that share a limit of connections: the processes of a user, the addresses of a network.
    pub(crate) fn source(&self) -> PeerSource {
        match (&self.0.identity, self.0.from) {
            (Identity::Local { uid, .. }, _) => PeerSource::User(uid.unwrap_or(u32::MAX)),
            (_, Some(from)) => PeerSource::of(from),
            (_, None) => PeerSource::User(u32::MAX),
        }
    }

    /// Those that share places for answers, and refusals in the audit log: the processes of a user, the connections with a
    /// certificate, else the addresses of a network.
    pub(crate) fn holder(&self) -> QuotaHolder {
        let unknown = || self.0.from.map_or(HolderId::User(u32::MAX), |from| HolderId::Source(PeerSource::of(from)));
        let user = |uid: Option<u32>| uid.map_or_else(unknown, HolderId::User);
        match &self.0.identity {
            Identity::Local { uid: Some(uid), .. } if is_privileged(*uid) => {
                QuotaHolder { standing: QuotaClass::Root, id: HolderId::User(*uid) }
            }
            Identity::Local { uid, .. } => QuotaHolder { standing: QuotaClass::Socket, id: user(*uid) },
            Identity::Loopback { uid } | Identity::PageVisitor { uid } => {
                QuotaHolder { standing: QuotaClass::Remote, id: user(*uid) }
            }
            Identity::Certificate { name, serial, .. } => {
                let id = HolderId::Certificate(format!("{serial} {}", name.untrusted()).into());
                QuotaHolder { standing: QuotaClass::Remote, id }
            }
        }
    }

    /// Who it is, with its certificate, for the log.
    pub(crate) fn described(&self) -> String {
        match &self.0.identity {
            Identity::Certificate { serial, .. } => format!("{self}, with the certificate number {serial},"),
            Identity::Local { .. } | Identity::Loopback { .. } | Identity::PageVisitor { .. } => self.to_string(),
        }
    }

    /// Who it is, for the audit log.
    pub(crate) fn audit_fields(&self) -> Value {
        match &self.0.identity {
            Identity::Local { uid, gid, pid } => json!({ "uid": uid, "gid": gid, "pid": pid }),
            Identity::Certificate { name, serial, .. } => {
                json!({ "certificate": name, "serial": serial, "roles": self.0.roles.names().collect::<Vec<_>>() })
            }
            Identity::Loopback { uid: Some(uid) } | Identity::PageVisitor { uid: Some(uid) } => json!({ "uid": uid }),
            Identity::Loopback { uid: None } | Identity::PageVisitor { uid: None } => {
                json!({ "anybody": "on this host" })
            }
        }
    }

    /// Where it is, for the audit log.
    pub(crate) fn origin(&self) -> String {
        let from = self.0.from.map_or_else(|| "socket".to_owned(), |from| from.to_string());
        if self.has_page_session() { format!("page, {from}") } else { from }
    }
}

/// Root, and the user of the recorder.
fn is_privileged(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::getuid().as_raw()
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.identity {
            Identity::Local { uid: Some(uid), pid: Some(pid), .. } => write!(f, "uid {uid} (process {pid})")?,
            Identity::Local { uid: Some(uid), .. }
            | Identity::Loopback { uid: Some(uid) }
            | Identity::PageVisitor { uid: Some(uid) } => write!(f, "uid {uid}")?,
            Identity::Local { .. } | Identity::Loopback { .. } | Identity::PageVisitor { .. } => {
                f.write_str("somebody")?;
            }
            Identity::Certificate { name, .. } => write!(f, "{}", name.log())?,
        }
        self.0.from.map_or(Ok(()), |from| write!(f, " at {from}"))
    }
}

/// Those that share a limit of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PeerSource {
    /// The processes of a user.
    User(u32),
    /// An address; of IPv6 the network that one host has.
    Address(IpAddr),
}

impl PeerSource {
    pub(crate) fn of(from: SocketAddr) -> Self {
        Self::Address(match from.ip().to_canonical() {
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
            address => address,
        })
    }
}

/// Those that share places for answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct QuotaHolder {
    pub(crate) standing: QuotaClass,
    pub(crate) id: HolderId,
}

/// Which reserve a client may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum QuotaClass {
    /// Root and the user of the recorder, over the socket.
    Root,
    /// Other users, over the socket.
    Socket,
    /// TLS, and plain TCP.
    Remote,
}

/// Which client, or which group of clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HolderId {
    User(u32),
    /// Number and name.
    Certificate(Arc<str>),
    Source(PeerSource),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_source() {
        let source = |text: &str| PeerSource::of(text.parse().unwrap());
        assert_eq!(source("10.0.0.1:1"), source("[::ffff:10.0.0.1]:2"));
        assert_eq!(source("[2001:db8::1]:1"), source("[2001:db8::2]:1"));
        assert_ne!(source("[2001:db8::1]:1"), source("[2001:db8:0:1::1]:1"));
    }

    #[test]
    fn holders_are_users_certificates_and_hosts() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let certificate = |serial: &str, from| {
            Peer::of_certificate("x".to_owned().into(), serial.to_owned(), at(from), Roles::ALL).holder()
        };
        assert_eq!(certificate("1", "10.0.0.1:1"), certificate("1", "10.0.0.2:1"));
        assert_ne!(certificate("1", "10.0.0.1:1"), certificate("2", "10.0.0.1:1"));
        let loopback = |port, uid| Peer::of_loopback(at(&format!("127.0.0.1:{port}")), uid).holder();
        assert_eq!(loopback(1, Some(7)), loopback(2, Some(7)));
        assert_ne!(loopback(1, Some(7)), loopback(1, Some(8)));
        assert_eq!(loopback(1, None), loopback(2, None));
        assert_eq!(loopback(1, Some(0)).standing, QuotaClass::Remote, "a browser of root's is no root");
    }
}
