//! TLS: the recorder for other machines, and for those alone that have a certificate.
//!
//! What always holds: TLS 1.3, a certificate of the authority that was named, in its time, from every client, on every
//! connection (nothing is resumed); a client that fails gets no byte of an answer. The keys are read before privileges
//! are given up, and the work is done by the threads of the service.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, DistinguishedName, RootCertStore, ServerConfig, version};
use tokio_rustls::server::TlsStream;

use super::certificate::{Certificate, FileError, read_certificates, read_key};
use super::peer::{Peer, Roles};
use crate::signatures_as_the_library;
use base::log_limit::LogLimit;
use query::Reloadable;

/// Bytes that wait within TLS to be written, for one connection.
const BUFFER_BYTES: usize = 64 << 10;
/// How long a client that was refused has to take the reason.
const ALERT_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority whose clients are served.
    pub ca: PathBuf,
    /// The recorder's own certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// The key to that.
    pub key: PathBuf,
}

/// What the configuration says of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRule {
    /// The name in its certificate.
    pub name: String,
    /// The number of its certificate, where only that one is meant: as [`Certificate::serial`] without leading zeros.
    pub serial: Option<String>,
    /// What it may, whatever its certificate says; nothing keeps it out.
    pub roles: Roles,
}

/// What the configuration says of all clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientRules {
    /// Of some of them; the first that fits holds.
    pub listed: Arc<[ClientRule]>,
    /// Whether the others may nothing, whatever their certificates say.
    pub only_listed: bool,
}

impl ClientRules {
    /// What is said of a certificate; nothing where it speaks for itself.
    fn roles(&self, name: &str, serial: &str) -> Option<Roles> {
        let serial = serial.trim_start_matches('0');
        let fits = |client: &&ClientRule| client.name == name && client.serial.as_deref().is_none_or(|it| it == serial);
        let listed = self.listed.iter().find(fits).map(|client| client.roles);
        listed.or_else(|| self.only_listed.then(Roles::default))
    }
}

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not what it should be.
    #[error(transparent)]
    File(#[from] FileError),
    /// The files do not fit.
    #[error("cannot serve TLS with {}, {} and {}: {source}", .files.ca.display(), .files.cert.display(), .files.key.display())]
    Unfit {
        /// Which.
        files: Box<TlsFiles>,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The authority is of no use.
    #[error("{} cannot be used as the authority of clients: {reason}", .path.display())]
    Authority {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The recorder's end of TLS.
pub struct Tls {
    keys: Reloadable<Keys>,
    clients: Reloadable<ClientRules>,
    /// Told of each change of these.
    changed: watch::Sender<()>,
}

/// What was read from the files.
#[derive(Clone)]
pub struct Keys {
    acceptor: TlsAcceptor,
    verifier: Arc<dyn ClientCertVerifier>,
    certificate: Arc<Certificate>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.certificate()).finish_non_exhaustive()
    }
}

/// A client whose certificate was good when it came.
#[derive(Debug)]
pub struct Accepted {
    /// The way to it.
    pub stream: TlsStream<TcpStream>,
    /// Who it is.
    pub peer: Peer,
    /// Its certificate, and those between it and the authority.
    pub chain: Vec<CertificateDer<'static>>,
}

tokio::task_local! {
    /// What is wrong with the certificate of the client whose handshake runs.
    static REJECTION: RefCell<Option<String>>;
}

impl Keys {
    /// Reads certificates and key.
    ///
    /// # Errors
    ///
    /// When they are not there or do not fit. An own certificate that has expired is logged, and no error: recording
    /// matters more than readers elsewhere.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let authority = |reason: String| TlsError::Authority { path: files.ca.clone(), reason };
        for certificate in read_certificates(&files.ca)? {
            roots.add(certificate).map_err(|error| authority(error.to_string()))?;
        }
        let chain = read_certificates(&files.cert)?;
        let key = read_key(&files.key)?;
        let certificate = chain
            .first()
            .and_then(|first| Certificate::read(first))
            .ok_or_else(|| FileError::Empty { path: files.cert.clone(), what: "certificate" })?;
        let provider = Arc::new(default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| authority(error.to_string()))?;
        let unfit = |source| TlsError::Unfit { files: Box::new(files.clone()), source };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(unfit)?
            .with_client_cert_verifier(Arc::new(ReportingVerifier(Arc::clone(&verifier))))
            .with_single_cert(chain, key)
            .map_err(unfit)?;
        // A certificate that expires while its owner is away is asked for again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if certificate.not_after < jiff::Timestamp::now() {
            tracing::error!(
                "the recorder's certificate {certificate} in {} has expired: clients elsewhere will refuse it; make a \
                 new one with `retrocap certs server`, and reload",
                files.cert.display()
            );
        }
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), verifier, certificate: Arc::new(certificate) })
    }
}

impl Tls {
    /// Serves with these, and these clients.
    pub fn new(keys: Keys, clients: ClientRules) -> Self {
        Self { keys: keys.into(), clients: clients.into(), changed: watch::Sender::new(()) }
    }

    /// Shakes hands with others from now on, and these clients may what is said of them, those that are connected too.
    /// Who may less than before is disconnected. Without keys they stay as they are.
    pub fn renew(&self, keys: Option<Keys>, clients: ClientRules) {
        if let Some(keys) = keys {
            if keys.certificate != self.certificate() {
                tracing::info!("the recorder's certificate is now {}", keys.certificate);
            }
            self.keys.set(keys);
        }
        self.clients.set(clients);
        self.changed.send_replace(());
    }

    /// The recorder's own certificate.
    pub fn certificate(&self) -> Arc<Certificate> {
        self.keys.get().certificate
    }

    /// A client with the roles that it has now.
    pub(super) fn with_current_roles(&self, peer: Peer) -> Peer {
        let clients = self.clients.get();
        peer.with_roles(|name, serial| clients.roles(name, serial))
    }

    /// Waits until the certificate of a client that is connected is good no more or, unless somebody else looks after its
    /// `roles`, it may less than when it came; says which.
    pub(super) async fn revoked(&self, peer: Peer, chain: Vec<CertificateDer<'static>>, roles_too: bool) -> String {
        let mut changed = self.changed.subscribe();
        loop {
            // Asked at once, too: it may have changed during the handshake.
            let roles = self.with_current_roles(peer.clone()).roles();
            if roles_too && !roles.include_all(peer.roles()) {
                return format!("it may less now ({roles})");
            }
            if let Some((first, others)) = chain.split_first() {
                let verified = self.keys.get().verifier.verify_client_cert(first, others, UnixTime::now());
                if let Err(error) = verified {
                    return format!("its certificate is good no more: {error}");
                }
            }
            if changed.changed().await.is_err() {
                // Nobody changes anything any more.
                return std::future::pending().await;
            }
        }
    }

    /// Shakes hands with a client. One without a good certificate is told so, and closed; the log says whose it is.
    ///
    /// # Errors
    ///
    /// What was wrong, in words.
    pub async fn accept(&self, stream: TcpStream, from: SocketAddr) -> Result<Accepted, String> {
        let at = stream.local_addr().ok();
        let handshake = async {
            let accepted = self.keys.get().acceptor.accept(stream).into_fallible().await;
            accepted.map_err(|(error, stream)| (error, stream, REJECTION.with(RefCell::take)))
        };
        let mut stream = match REJECTION.scope(RefCell::default(), handshake).await {
            Ok(stream) => stream,
            Err((error, stream, wrong)) => {
                let_client_read_alert(stream).await;
                // Of certificates, and of what is no TLS at all: scanners must not hide the first.
                static REFUSALS: LogLimit = LogLimit::new();
                static GARBAGE: LogLimit = LogLimit::new();
                let limit = if wrong.is_some() { &REFUSALS } else { &GARBAGE };
                let reason = wrong.unwrap_or_else(|| error.to_string());
                if let Some(left_out) = limit.admit() {
                    tracing::warn!("{from} was refused: {reason}{left_out}");
                }
                return Err(reason);
            }
        };
        let (_, connection) = stream.get_mut();
        connection.set_buffer_limit(Some(BUFFER_BYTES));
        let chain: Vec<_> =
            connection.peer_certificates().unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect();
        let leaf = chain.first().and_then(|first| Certificate::read(first));
        let Some(leaf) = leaf else { return Err("its certificate cannot be read".to_owned()) };
        let peer = Peer::of_certificate(leaf.name, leaf.serial, from, leaf.roles).with_local_address(at);
        Ok(Accepted { stream, peer: self.with_current_roles(peer), chain })
    }
}

/// Lets a client read why it is refused: closing at once, with its request unread, would take that from it.
async fn let_client_read_alert(mut stream: TcpStream) {
    let _ = tokio::time::timeout(ALERT_TIMEOUT, async {
        stream.shutdown().await?;
        let mut waste = [0; 4096];
        let mut left = BUFFER_BYTES;
        while left > 0 {
            match stream.read(&mut waste).await? {
                0 => break,
                bytes => left = left.saturating_sub(bytes),
            }
        }
        io::Result::Ok(())
    })
    .await;
}

/// Verifies as the library does, and says what it found wrong with which certificate.
#[derive(Debug)]
struct ReportingVerifier(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ReportingVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.verify_client_cert(end_entity, intermediates, now).inspect_err(|error| {
            let whose = Certificate::read(end_entity).map_or_else(|| "cannot be read".to_owned(), |c| c.to_string());
            let reason = format!("its certificate {whose}: {error}");
            // Outside of a handshake of ours there is nobody to tell.
            let _ = REJECTION.try_with(|wrong| *wrong.borrow_mut() = Some(reason));
        })
    }

    signatures_as_the_library!(0);
}

#[cfg(test)]
mod tests {
    use super::super::peer::Role;
    use super::*;

    #[test]
    fn the_first_entry_that_fits_holds() {
        let client = |name: &str, serial: Option<&str>, roles: &[Role]| ClientRule {
            name: name.to_owned(),
            serial: serial.map(str::to_owned),
            roles: roles.iter().copied().collect(),
        };
        let listed = [client("alice", Some("ab1"), &[]), client("alice", None, &[Role::Flows])];
        let mut clients = ClientRules { listed: listed.into(), only_listed: false };
        let of = |clients: &ClientRules, name: &str, serial: &str| {
            clients.roles(name, serial).map(|roles| roles.to_string())
        };
        for (name, serial, roles) in
            [("alice", "0ab1", Some("no role")), ("alice", "ab2", Some("status, flows")), ("bob", "0ab1", None)]
        {
            assert_eq!(of(&clients, name, serial).as_deref(), roles, "{name} {serial}");
        }
        clients.only_listed = true;
        assert_eq!(of(&clients, "bob", "1").as_deref(), Some("no role"));
        assert_eq!(of(&clients, "alice", "ab2").as_deref(), Some("status, flows"));
    }
}
