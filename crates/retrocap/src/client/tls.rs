//! The client's side of mutual TLS, to recorders on other machines and to listeners of `push`.
//!
//! Invariants: nothing is sent to a peer unless its certificate is signed by the given authority, is valid now, and
//! names the host that was asked for. Error messages name the certificate that they are about.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, ClientConfig, RootCertStore, version};

use crate::error::Usage;
use serve::certificate::{Certificate, read_certificates, read_key};
use serve::signatures_as_the_library;

/// Timeout of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The certificate files that the user named. Others have default paths.
#[derive(Clone, Debug, Default)]
pub(crate) struct CertificateFiles {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// The role of the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Recorder,
    Listener,
}

impl Peer {
    /// A hint for a peer that does not speak TLS.
    fn doubt(self) -> &'static str {
        match self {
            Self::Recorder => "is it a recorder (retrocap run --listen)? for --listen-plain use http://",
            Self::Listener => "is it a listener with TLS? without --tls it is pushed to in the clear",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recorder => "the recorder",
            Self::Listener => "the listener",
        })
    }
}

/// The peer closed the connection or never answered. It refused nobody, so a retry may succeed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConnectionLost(String);

/// A TLS configuration with the certificates that were read.
#[derive(Debug)]
pub(crate) struct Tls {
    files: CertificateFiles,
    other: Peer,
    config: Arc<ClientConfig>,
    seen: Arc<RecordingVerifier>,
}

/// Certificates and a key that were read from files, for any number of connections.
#[derive(Debug)]
pub(crate) struct Credentials {
    files: CertificateFiles,
    other: Peer,
    verifier: Arc<WebPkiServerVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// Reads the certificates. Reports local mistakes before any connection is made.
    pub(crate) fn read(files: &CertificateFiles, other: Peer) -> anyhow::Result<Self> {
        let files = files.clone();
        let (ca, cert) = (files.ca(), files.cert());
        let key = files.key.clone().unwrap_or_else(|| directory().join("client.key"));
        let advice = |error: &dyn fmt::Display| {
            let elsewhere = match other {
                Peer::Recorder => "a recorder elsewhere wants a certificate",
                Peer::Listener => "--tls takes a certificate",
            };
            anyhow!(
                "{error}\nretrocap: {elsewhere}; the recorder's administrator makes one with `retrocap certs client NAME \
                 --role packets`, and it goes to {} or is named with --ca, --cert and --key",
                directory().display()
            )
        };
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(&ca).map_err(|error| advice(&error))? {
            roots
                .add(certificate)
                .map_err(|error| anyhow!("{} contains no authority's certificate: {error}", ca.display()))?;
        }
        let chain = read_certificates(&cert).map_err(|error| advice(&error))?;
        let key = read_key(&key).map_err(|error| advice(&error))?;
        in_its_time(&chain, &cert)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
            .build()
            .map_err(|error| anyhow!("{} cannot be used as authority: {error}", ca.display()))?;
        Ok(Self { files, other, verifier, chain, key })
    }
}

impl Tls {
    /// Reads the certificates. Reports local mistakes before any connection is made.
    pub(crate) fn new(files: &CertificateFiles, other: Peer) -> anyhow::Result<Self> {
        Self::with(&Credentials::read(files, other)?)
    }

    /// A configuration for one connection, which remembers the certificate that its server showed.
    pub(crate) fn with(credentials: &Credentials) -> anyhow::Result<Self> {
        let Credentials { files, other, verifier, chain, key } = credentials;
        let seen = Arc::new(RecordingVerifier(Mutex::default(), Arc::clone(verifier)));
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&seen) as Arc<dyn ServerCertVerifier>)
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|error| {
                let key = files.key.clone().unwrap_or_else(|| directory().join("client.key"));
                anyhow!("{} and {} do not belong together: {error}", files.cert().display(), key.display())
            })?;
        if *other == Peer::Recorder {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        Ok(Self { files: files.clone(), other: *other, config: Arc::new(config), seen })
    }

    /// Performs the handshake with `host`. Messages name the peer by `at`, its address as people write it.
    ///
    /// # Errors
    ///
    /// [`ConnectionLost`] when the peer refused nothing and a retry may succeed, and [`Usage`] when `host` is no valid
    /// host name.
    pub(crate) async fn connect(
        &self,
        host: &str,
        at: &str,
        stream: TcpStream,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Usage::of(format_args!("{at}: {host:?} is not a host name")))?;
        let handshake = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream);
        match timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.refused(at, &error)),
            Err(_) => {
                let seconds = HANDSHAKE_TIMEOUT.as_secs();
                let doubt = self.other.doubt();
                Err(ConnectionLost(format!("{at} does not answer within {seconds} s: {doubt}")).into())
            }
        }
    }

    /// Explains a failed handshake.
    fn refused(&self, at: &str, error: &std::io::Error) -> anyhow::Error {
        let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            let doubt = self.other.doubt();
            return ConnectionLost(format!("{at} ended the TLS handshake early ({error}): {doubt}")).into();
        };
        let seen = self.seen.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let shown = seen
            .map_or_else(|| "a certificate that cannot be read".to_owned(), |seen| format!("the certificate {seen}"));
        match error {
            rustls::Error::InvalidCertificate(problem) => match problem {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    anyhow!("{at} shows {shown}, which has expired: make another there with `retrocap certs server`")
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    anyhow!("{at} shows {shown}, which is not valid yet: is one of the two clocks wrong?")
                }
                CertificateError::UnknownIssuer | CertificateError::BadSignature => anyhow!(
                    "{at} shows {shown}, which is not signed by the authority in {}: another host may answer in its \
                     place; --ca names the authority's certificate",
                    self.files.ca().display()
                ),
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => anyhow!(
                    "{at} shows {shown}, which is for another name: ask for it under a name it has, or make one there \
                     with `retrocap certs server NAME ADDRESS ...`"
                ),
                other => anyhow!("{at} shows {shown}, which cannot be trusted: {other}"),
            },
            rustls::Error::AlertReceived(alert) => self.alerted(at, *alert),
            rustls::Error::InvalidMessage(_) => anyhow!("{at} does not speak TLS: {}", self.other.doubt()),
            other => anyhow!("cannot agree with {at} on TLS: {other}"),
        }
    }

    /// Explains the alert with which the peer refused the certificate. With TLS 1.3 a client learns of it only after
    /// the handshake.
    pub(crate) fn alerted(&self, at: &str, alert: AlertDescription) -> anyhow::Error {
        let cert = self.files.cert();
        let own = read_certificates(&cert).ok().and_then(|chain| Certificate::read(chain.first()?));
        let own = own.map_or_else(|| cert.display().to_string(), |own| format!("{own} in {}", cert.display()));
        let other = self.other;
        let why = match alert {
            AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                "it is of an authority that it does not know"
            }
            AlertDescription::CertificateExpired => "it has expired, by its clock",
            AlertDescription::CertificateRevoked => "it has been revoked",
            AlertDescription::CertificateRequired => "it got none",
            _ => return anyhow!("{other} at {at} refuses the certificate {own} ({alert:?}); its log says why"),
        };
        anyhow!(
            "{other} at {at} refuses the certificate {own}: {why}; ask its administrator for one (retrocap certs client \
             NAME --role packets)"
        )
    }
}

/// The TLS alert that caused an error, if any.
pub(crate) fn alert(error: &(dyn std::error::Error + 'static)) -> Option<AlertDescription> {
    let mut cause = Some(error);
    while let Some(this) = cause {
        let inner = this.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        if let Some(rustls::Error::AlertReceived(alert)) = inner.and_then(|inner| inner.downcast_ref()) {
            return Some(*alert);
        }
        cause = this.source();
    }
    None
}

impl CertificateFiles {
    fn ca(&self) -> PathBuf {
        self.ca.clone().unwrap_or_else(|| directory().join("ca.pem"))
    }

    fn cert(&self) -> PathBuf {
        self.cert.clone().unwrap_or_else(|| directory().join("client.pem"))
    }
}

/// The directory of certificates without an explicit path.
fn directory() -> PathBuf {
    if let Some(directory) = std::env::var_os("RETROCAP_CERTS").filter(|path| !path.is_empty()) {
        return directory.into();
    }
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from).or_else(home);
    config.unwrap_or_default().join("retrocap")
}

/// Checks the validity period of the client's own certificate. The check needs no connection.
fn in_its_time(chain: &[CertificateDer<'_>], path: &Path) -> anyhow::Result<()> {
    let Some(own) = chain.first().and_then(|first| Certificate::read(first)) else { return Ok(()) };
    let now = jiff::Timestamp::now();
    let wrong = match () {
        () if own.not_after < now => "has expired",
        () if own.not_before > now => "is not valid yet (is the clock right?)",
        () => return Ok(()),
    };
    Err(anyhow!(
        "the certificate {own} in {} {wrong}: ask the recorder's administrator for another (retrocap certs client NAME \
         --role packets)",
        path.display()
    ))
}

/// Verifies as the library does, and remembers the certificate that the server showed.
#[derive(Debug)]
struct RecordingVerifier(Mutex<Option<Certificate>>, Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for RecordingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Certificate::read(end_entity);
        self.1.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    signatures_as_the_library!(1);
}
