//! TLS: the recorder for other machines, and for those alone that have a certificate.
//!
//! What always holds: TLS 1.3, a certificate of the authority that was named, in its time, from every client, on every
//! connection (nothing is resumed); a client that fails gets no byte of an answer. The keys are read before privileges
//! are given up, and the work is done by the threads of the service.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    self, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme, version,
};
use tokio_rustls::server::TlsStream;

use super::certificate::{Certificate, FileError, read_certificates, read_key};
use super::peer::{Peer, Roles};

/// Bytes that wait within TLS to be written, for one connection.
const BUFFER_BYTES: usize = 64 << 10;
/// How long a client that was refused has to take the reason.
const FAREWELL: Duration = Duration::from_secs(1);
/// Time between two lines of the log that a stranger can cause, in the long run.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// Such lines that may come at once.
const LOG_BURST: u64 = 10;

/// Where the certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The authority whose clients are served.
    pub ca: PathBuf,
    /// The recorder's own certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// The key to that.
    pub key: PathBuf,
}

/// What the configuration says of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The name in its certificate.
    pub name: String,
    /// What it may, whatever its certificate says; nothing keeps it out.
    pub roles: Roles,
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
        files: Box<Files>,
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
    acceptor: TlsAcceptor,
    clients: Vec<Client>,
    certificate: Certificate,
    /// Of certificates, and of what is no TLS at all: scanners must not hide the first.
    refusals: Seldom,
    garbage: Seldom,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

tokio::task_local! {
    /// What is wrong with the certificate of the client whose handshake runs.
    static WRONG: RefCell<Option<String>>;
}

impl Tls {
    /// Reads certificates and key.
    ///
    /// # Errors
    ///
    /// When they are not there or do not fit. An own certificate that has expired is logged, and no error: recording
    /// matters more than readers elsewhere.
    pub fn load(files: &Files, clients: Vec<Client>) -> Result<Self, TlsError> {
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
            .with_client_cert_verifier(Arc::new(Telling(verifier)))
            .with_single_cert(chain, key)
            .map_err(unfit)?;
        // A certificate that expires while its owner is away is asked for again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if certificate.not_after < jiff::Timestamp::now() {
            tracing::error!(
                "the recorder's certificate {certificate} in {} has expired: clients elsewhere will refuse it; make a \
                 new one with `retrocap certs server`, and restart",
                files.cert.display()
            );
        }
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            clients,
            certificate,
            refusals: Seldom::default(),
            garbage: Seldom::default(),
        })
    }

    /// The recorder's own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Shakes hands with a client. One without a good certificate is told so, and closed; the log says whose it is.
    ///
    /// # Errors
    ///
    /// What was wrong, in words.
    pub async fn accept(&self, stream: TcpStream, from: SocketAddr) -> Result<(TlsStream<TcpStream>, Peer), String> {
        let handshake = async {
            let accepted = self.acceptor.accept(stream).into_fallible().await;
            accepted.map_err(|(error, stream)| (error, stream, WRONG.with(RefCell::take)))
        };
        let mut stream = match WRONG.scope(RefCell::default(), handshake).await {
            Ok(stream) => stream,
            Err((error, stream, wrong)) => {
                farewell(stream).await;
                let log = if wrong.is_some() { &self.refusals } else { &self.garbage };
                let reason = wrong.unwrap_or_else(|| error.to_string());
                log.warn(&format!("{from} was refused: {reason}"));
                return Err(reason);
            }
        };
        let (_, connection) = stream.get_mut();
        connection.set_buffer_limit(Some(BUFFER_BYTES));
        let leaf = connection.peer_certificates().and_then(|chain| Certificate::read(chain.first()?));
        let Some(leaf) = leaf else { return Err("its certificate cannot be read".to_owned()) };
        let named = self.clients.iter().find(|client| client.name == leaf.name);
        let roles = named.map_or(leaf.roles, |client| client.roles);
        Ok((stream, Peer::of_certificate(leaf.name, leaf.serial, from, roles)))
    }
}

/// Lets a client read why it is refused: closing at once, with its request unread, would take that from it.
async fn farewell(mut stream: TcpStream) {
    let _ = tokio::time::timeout(FAREWELL, async {
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
struct Telling(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Telling {
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
            let _ = WRONG.try_with(|wrong| *wrong.borrow_mut() = Some(reason));
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Lines of the log that a stranger can cause: one in [`LOG_EVERY`], [`LOG_BURST`] at once, and how many were left out.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    start: OnceLock<Instant>,
    /// When all that was logged would be paid for.
    paid_ms: AtomicU64,
    left_out: AtomicU64,
}

impl Seldom {
    pub(super) fn warn(&self, line: &str) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now_ms = millis(self.start.get_or_init(Instant::now).elapsed());
        let every_ms = millis(LOG_EVERY);
        let relaxed = Ordering::Relaxed;
        let paid = self.paid_ms.fetch_update(relaxed, relaxed, |paid_ms| {
            let next_ms = paid_ms.max(now_ms) + every_ms;
            (next_ms <= now_ms + every_ms * LOG_BURST).then_some(next_ms)
        });
        if paid.is_err() {
            self.left_out.fetch_add(1, relaxed);
            return;
        }
        match self.left_out.swap(0, relaxed) {
            0 => tracing::warn!("{line}"),
            left_out => tracing::warn!("{line} ({left_out} lines like this were left out before)"),
        }
    }
}
