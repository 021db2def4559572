//! TLS: the service for other machines, for those that have a certificate.
//!
//! What always holds: TLS 1.3; on every connection (nothing is resumed) a valid certificate of the named authority, for
//! clients, without more authorities between them than that one permits; a client that fails gets no byte of an answer.
//! Keys are read before privileges are dropped, and handshakes run on the threads of the service.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    self, CertificateError, DistinguishedName, OtherError, RootCertStore, ServerConfig, version,
};
use tokio_rustls::server::TlsStream;

use super::certificate::{Certificate, FileError, read_certificates, read_key};
use super::peer::Peer;
use crate::signatures_as_the_library;
use api::Roles;
use base::foreign::Foreign;
use base::log_limit::LogLimit;
use query::Reloadable;

/// Bytes that one connection buffers within TLS before they are written.
const BUFFER_BYTES: usize = 64 << 10;
/// How long a refused client has to read the alert.
const ALERT_TIMEOUT: Duration = Duration::from_secs(1);

/// The files with certificates and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority of clients.
    pub ca: PathBuf,
    /// The recorder's certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// The private key of that certificate.
    pub key: PathBuf,
}

/// What the configuration says about a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRule {
    /// The name in its certificate.
    pub name: String,
    /// The serial number of its certificate, if the rule is for that one only: as [`Certificate::serial`] without leading zeros.
    pub serial: Option<String>,
    /// Its roles, whatever its certificate says; none lock it out.
    pub roles: Roles,
}

/// The rules of the configuration for clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientRules {
    /// Rules for some clients; the first that fits holds.
    pub listed: Arc<[ClientRule]>,
    /// Whether all others have no role, whatever their certificates say.
    pub only_listed: bool,
}

impl ClientRules {
    /// The roles that the rules give to a certificate; `None` where its own hold.
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
    /// The files do not fit together.
    #[error("cannot serve TLS with {}, {} and {}: {source}", .files.ca.display(), .files.cert.display(), .files.key.display())]
    Unfit {
        /// Which.
        files: Box<TlsFiles>,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The authority cannot be used.
    #[error("{} cannot be used as the authority of clients: {reason}", .path.display())]
    Authority {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The server side of TLS.
pub struct Tls {
    keys: Reloadable<Keys>,
    clients: Reloadable<ClientRules>,
    /// Signalled at each change of keys and rules.
    changed: watch::Sender<()>,
}

/// Certificates and keys as they were read.
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

/// A client whose certificate was verified.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// Who it is.
    pub peer: Peer,
    /// Its certificate, and those between it and the authority.
    pub chain: Vec<CertificateDer<'static>>,
}

tokio::task_local! {
    /// What is wrong with the certificate of the client in the current handshake.
    static REJECTION: RefCell<Option<String>>;
}

impl Keys {
    /// Reads certificates and key.
    ///
    /// # Errors
    ///
    /// When files are missing or do not fit. A certificate of the recorder that has expired is logged and is no error:
    /// recording matters more than readers on other machines.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let authorities = read_certificates(&files.ca)?;
        let chain = read_certificates(&files.cert)?;
        let key = read_key(&files.key)?;
        let certificate = chain
            .first()
            .and_then(|first| Certificate::read(first))
            .ok_or_else(|| FileError::Empty { path: files.cert.clone(), what: "certificate" })?;
        let provider = Arc::new(default_provider());
        let verifier: Arc<dyn ClientCertVerifier> = Arc::new(StrictVerifier::new(&files.ca, authorities, &provider)?);
        let unfit = |source| TlsError::Unfit { files: Box::new(files.clone()), source };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(unfit)?
            .with_client_cert_verifier(Arc::new(ReportingVerifier(Arc::clone(&verifier))))
            .with_single_cert(chain, key)
            .map_err(unfit)?;
        // Without resumption, a certificate that has expired meanwhile is verified again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if certificate.not_after < jiff::Timestamp::now() {
            tracing::error!(
                "the recorder's certificate {certificate} in {} has expired: clients on other machines will refuse it; make a \
                 new one with `retrocap certs server`, and reload",
                files.cert.display()
            );
        }
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), verifier, certificate: Arc::new(certificate) })
    }
}

impl Tls {
    /// Serves with these keys and rules.
    pub fn new(keys: Keys, clients: ClientRules) -> Self {
        Self { keys: keys.into(), clients: clients.into(), changed: watch::Sender::new(()) }
    }

    /// Takes over keys, if there are new ones, and rules, for connected clients too: a client that has fewer roles than before
    /// is disconnected.
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

    /// A client with its current roles.
    pub(super) fn with_current_roles(&self, peer: Peer) -> Peer {
        let clients = self.clients.get();
        peer.with_roles(|name, serial| clients.roles(name, serial))
    }

    /// Waits until a connected client's certificate is no longer valid or, if `roles_too`, it has fewer roles than when it
    /// connected; returns the reason.
    pub(super) async fn revoked(&self, peer: Peer, chain: Vec<CertificateDer<'static>>, roles_too: bool) -> String {
        let mut changed = self.changed.subscribe();
        loop {
            // Checked at once too: rules may have changed during the handshake.
            let roles = self.with_current_roles(peer.clone()).roles();
            if roles_too && !roles.include_all(peer.roles()) {
                return format!("it has fewer roles now ({roles})");
            }
            if let Some((first, others)) = chain.split_first() {
                let verified = self.keys.get().verifier.verify_client_cert(first, others, UnixTime::now());
                if let Err(error) = verified {
                    return format!("its certificate is no longer valid: {error}");
                }
            }
            if changed.changed().await.is_err() {
                // Without a sender nothing changes any more.
                return std::future::pending().await;
            }
        }
    }

    /// Performs the handshake with a client. A client without a valid certificate gets an alert and is closed; the log says
    /// whose certificate it is.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
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
                // One limit for certificates, one for everything else: scanners must not hide refused certificates.
                static REFUSALS: LogLimit = LogLimit::new();
                static GARBAGE: LogLimit = LogLimit::new();
                let limit = if wrong.is_some() { &REFUSALS } else { &GARBAGE };
                let reason = wrong.unwrap_or_else(|| Foreign::new(error.to_string()).log().to_string());
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

/// Lets a client read the alert: closing at once, with its request unread, would discard the alert.
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

/// Verifies as the library does, and demands two things more: a certificate that says that it is for clients, and no
/// more authorities below the one that was named than that permits. The library takes a trusted authority's word for its
/// name and key alone.
#[derive(Debug)]
struct StrictVerifier {
    /// All authorities, without their limits.
    all: Arc<dyn ClientCertVerifier>,
    /// The authorities of each path length.
    by_path_length: Vec<(Option<u32>, Arc<dyn ClientCertVerifier>)>,
}

impl StrictVerifier {
    fn new(
        path: &Path,
        authorities: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let failed = |reason: String| TlsError::Authority { path: path.to_owned(), reason };
        let mut all = RootCertStore::empty();
        let mut by_path_length: BTreeMap<Option<u32>, RootCertStore> = BTreeMap::new();
        for authority in authorities {
            let path_length = Certificate::read(&authority).and_then(|certificate| certificate.path_length);
            all.add(authority.clone()).map_err(|error| failed(error.to_string()))?;
            let same = by_path_length.entry(path_length).or_insert_with(RootCertStore::empty);
            same.add(authority).map_err(|error| failed(error.to_string()))?;
        }
        let verifier = |roots: RootCertStore| {
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
            builder.build().map_err(|error| failed(error.to_string()))
        };
        let by_path_length = by_path_length.into_iter().map(|(length, roots)| Ok((length, verifier(roots)?)));
        Ok(Self { by_path_length: by_path_length.collect::<Result<_, TlsError>>()?, all: verifier(all)? })
    }
}

impl ClientCertVerifier for StrictVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.all.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let other = |reason: &'static str| {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(RefusedClient(reason)))))
        };
        let verified = self.all.verify_client_cert(end_entity, intermediates, now)?;
        if !Certificate::read(end_entity).is_some_and(|certificate| certificate.for_clients) {
            return Err(other("it is not for clients: the extended key usage clientAuth is missing"));
        }
        // A path uses no more intermediates than it is given, so that a limit of them is one of the path.
        let within = |(length, verifier): &(Option<u32>, Arc<dyn ClientCertVerifier>)| {
            let most = length.map_or(usize::MAX, |length| usize::try_from(length).unwrap_or(usize::MAX));
            verifier.verify_client_cert(end_entity, &intermediates[..most.min(intermediates.len())], now).is_ok()
        };
        if !self.by_path_length.iter().any(within) {
            return Err(other("there are more authorities above it than the named one permits (path length)"));
        }
        Ok(verified)
    }

    signatures_as_the_library!(all);
}

/// Why a certificate that the library accepts is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct RefusedClient(&'static str);

/// Passes on what the library says, and notes what was wrong with which certificate.
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
            // Outside of a handshake there is nothing to note it in.
            let _ = REJECTION.try_with(|wrong| *wrong.borrow_mut() = Some(reason));
        })
    }

    signatures_as_the_library!(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Role;

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
