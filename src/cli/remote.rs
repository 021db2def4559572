//! The way to a recorder on another machine: TLS, with a certificate at either end; or plain TCP on this one.
//!
//! What always holds: nothing is sent to a recorder whose certificate is not of the authority named, in its time, and
//! for the host that was asked for. What is wrong is said with the certificate it is about, and its name.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use hyper::Uri;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    version,
};

use super::Usage;
use super::client::Stream;
use crate::serve::certificate::{Certificate, read_certificates, read_key};

/// How long the other machine may take to be there, and again to show who it is.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// A recorder elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    /// As it was given.
    pub(super) url: String,
    pub(super) files: Files,
}

/// Where the certificates are, as far as that was said.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

/// An URL, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    encrypted: bool,
    /// A name or an address, without brackets.
    host: String,
    port: u16,
    /// Both, as they stand in a request.
    authority: String,
}

impl Place {
    fn read(url: &str) -> anyhow::Result<Self> {
        let wrong = |why: &str| Usage::of(format_args!("--remote {url}: {why}; try https://sensor1:57443"));
        let with_scheme = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let uri: Uri = with_scheme.parse().map_err(|error| wrong(&format!("cannot be read ({error})")))?;
        let encrypted = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("begins neither with https:// nor with http://")),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("takes a host and a port, and no path"));
        }
        let authority =
            uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(|| wrong("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("takes no user: the certificate says who you are"));
        }
        let bracketed = authority.host();
        let host = bracketed.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(bracketed);
        let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !encrypted && !local {
            return Err(wrong("http:// is for this machine alone, use https://"));
        }
        // What is no port is as none for the library.
        if authority.as_str() != bracketed && uri.port_u16().is_none() {
            return Err(wrong("the port is no number up to 65535"));
        }
        let port = uri.port_u16().unwrap_or(if encrypted { HTTPS_PORT } else { HTTP_PORT });
        Ok(Self { encrypted, host: host.to_owned(), port, authority: format!("{bracketed}:{port}") })
    }
}

impl Remote {
    /// A connection, and the host that requests name.
    pub(super) async fn connect(&self) -> anyhow::Result<(Box<dyn Stream>, String)> {
        let place = Place::read(&self.url)?;
        // What is wrong here is said before anybody is bothered.
        let config = if place.encrypted { Some(self.config()?) } else { None };
        let stream = reach(&place).await?;
        let Some((config, seen)) = config else { return Ok((Box::new(stream), place.authority)) };
        let name = ServerName::try_from(place.host.clone())
            .map_err(|_| Usage::of(format_args!("--remote {}: {:?} is no host's name", self.url, place.host)))?;
        let at = &place.authority;
        match timeout(CONNECT_TIMEOUT, TlsConnector::from(config).connect(name, stream)).await {
            Ok(Ok(stream)) => Ok((Box::new(stream), place.authority)),
            Ok(Err(error)) => {
                Err(self.refused(at, &error, seen.0.lock().unwrap_or_else(PoisonError::into_inner).take()))
            }
            Err(_) => Err(anyhow!(
                "{at} does not answer within {} s: is it a recorder (retrocap run --listen)?",
                CONNECT_TIMEOUT.as_secs()
            )),
        }
    }

    fn config(&self) -> anyhow::Result<(Arc<ClientConfig>, Arc<Seen>)> {
        let directory = directory();
        let path = |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| directory.join(name));
        let (ca, cert, key) =
            (path(&self.files.ca, "ca.pem"), path(&self.files.cert, "client.pem"), path(&self.files.key, "client.key"));
        let advice = |error: &dyn std::fmt::Display| {
            anyhow!(
                "{error}\nretrocap: a recorder elsewhere wants a certificate; its administrator makes one with \
                     `retrocap certs client NAME --role packets`, and it goes to {} or is named with --ca, --cert and \
                     --key",
                directory.display()
            )
        };
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(&ca).map_err(|error| advice(&error))? {
            roots.add(certificate).map_err(|error| anyhow!("{} holds no authority: {error}", ca.display()))?;
        }
        let chain = read_certificates(&cert).map_err(|error| advice(&error))?;
        let secret = read_key(&key).map_err(|error| advice(&error))?;
        in_its_time(&chain, &cert)?;
        let provider = Arc::new(default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| anyhow!("{} cannot be used as authority: {error}", ca.display()))?;
        let seen = Arc::new(Seen(Mutex::default(), verifier));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&seen) as Arc<dyn ServerCertVerifier>)
            .with_client_auth_cert(chain, secret)
            .map_err(|error| anyhow!("{} and {} do not fit: {error}", cert.display(), key.display()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok((Arc::new(config), seen))
    }

    /// What a handshake that failed means.
    fn refused(&self, at: &str, error: &std::io::Error, seen: Option<Certificate>) -> anyhow::Error {
        let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return anyhow!("{at} broke off the TLS handshake ({error}): is it a recorder (retrocap run --listen)?");
        };
        let shown = seen
            .map_or_else(|| "a certificate that cannot be read".to_owned(), |seen| format!("the certificate {seen}"));
        let ca = self.files.ca.clone().unwrap_or_else(|| directory().join("ca.pem"));
        match error {
            rustls::Error::InvalidCertificate(problem) => match problem {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    anyhow!("{at} shows {shown}, which has expired: make another there with `retrocap certs server`")
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    anyhow!("{at} shows {shown}, which is not good yet: is one of the two clocks wrong?")
                }
                CertificateError::UnknownIssuer | CertificateError::BadSignature => anyhow!(
                    "{at} shows {shown}, which is not signed by the authority in {}: it may be another host in its \
                     place; --ca names the authority's certificate",
                    ca.display()
                ),
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => anyhow!(
                    "{at} shows {shown}, which is for another name: ask for it under a name it has, or make one there \
                     with `retrocap certs server NAME ADDRESS ...`"
                ),
                other => anyhow!("{at} shows {shown}, which cannot be trusted: {other}"),
            },
            rustls::Error::AlertReceived(alert) => self.alerted(*alert),
            rustls::Error::InvalidMessage(_) => {
                anyhow!(
                    "{at} does not speak TLS: is it a recorder (retrocap run --listen)? for --listen-plain use http://"
                )
            }
            other => anyhow!("cannot agree with {at} on TLS: {other}"),
        }
    }

    /// What the other side means by refusing.
    fn alerted(&self, alert: AlertDescription) -> anyhow::Error {
        let cert = self.files.cert.clone().unwrap_or_else(|| directory().join("client.pem"));
        let own = read_certificates(&cert).ok().and_then(|chain| Certificate::read(chain.first()?));
        let own = own.map_or_else(|| cert.display().to_string(), |own| format!("{own} in {}", cert.display()));
        let why = match alert {
            AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                "it is of an authority that it does not know"
            }
            AlertDescription::CertificateExpired => "it has expired, by its clock",
            AlertDescription::CertificateRevoked => "it has been revoked",
            AlertDescription::CertificateRequired => "it got none",
            _ => {
                return anyhow!(
                    "the recorder at {} refuses the certificate {own} ({alert:?}); its log says why",
                    self.url
                );
            }
        };
        anyhow!(
            "the recorder at {} refuses the certificate {own}: {why}; ask its administrator for one (retrocap certs \
             client NAME --role packets)",
            self.url
        )
    }

    /// What it means when a request does not get through. With TLS 1.3 a client learns only now that it is refused.
    pub(super) fn broken(&self, error: hyper::Error) -> anyhow::Error {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(this) = cause {
            let inner = this.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
            if let Some(rustls::Error::AlertReceived(alert)) = inner.and_then(|inner| inner.downcast_ref()) {
                return self.alerted(*alert);
            }
            cause = this.source();
        }
        if error.is_parse() {
            return anyhow!(
                "{} does not speak HTTP as asked: use https:// for --listen, http:// for --listen-plain",
                self.url
            );
        }
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        anyhow!(
            "the recorder at {} closed the connection ({reason}): it may refuse this certificate, or have too many \
                 clients; its log says why",
            self.url
        )
    }
}

/// Where the certificates are that are not named.
fn directory() -> PathBuf {
    if let Some(directory) = std::env::var_os("RETROCAP_CERTS").filter(|path| !path.is_empty()) {
        return directory.into();
    }
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from).or_else(home);
    config.unwrap_or_default().join("retrocap")
}

/// The own certificate has expired: nobody need be asked for that.
fn in_its_time(chain: &[CertificateDer<'_>], path: &Path) -> anyhow::Result<()> {
    let Some(own) = chain.first().and_then(|first| Certificate::read(first)) else { return Ok(()) };
    let now = jiff::Timestamp::now();
    let wrong = match () {
        () if own.not_after < now => "has expired",
        () if own.not_before > now => "is not good yet (is the clock right?)",
        () => return Ok(()),
    };
    Err(anyhow!(
        "the certificate {own} in {} {wrong}: ask the recorder's administrator for another (retrocap certs client NAME \
         --role packets)",
        path.display()
    ))
}

async fn reach(place: &Place) -> anyhow::Result<TcpStream> {
    let at = &place.authority;
    let addresses: Vec<_> = tokio::net::lookup_host((place.host.as_str(), place.port))
        .await
        .map_err(|error| anyhow!("cannot find the host {:?}: {error}; check the name in --remote", place.host))?
        .collect();
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(addresses.as_slice())).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            return Err(anyhow!("nobody listens on {at}: does `retrocap run --listen` run there, with this port?"));
        }
        Ok(Err(error)) => return Err(anyhow!("cannot reach {at}: {error}; check address, network and firewall")),
        Err(_) => {
            let seconds = CONNECT_TIMEOUT.as_secs();
            return Err(anyhow!("{at} does not answer within {seconds} s: check address, network and firewall"));
        }
    };
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Verifies as the library does, and remembers which certificate was shown.
#[derive(Debug)]
struct Seen(Mutex<Option<Certificate>>, Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Seen {
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

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.1.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.1.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_names_a_host_and_a_port() {
        let place = |url: &str| {
            let place = Place::read(url).unwrap();
            (place.encrypted, place.host, place.authority)
        };
        for (url, encrypted, host, authority) in [
            ("https://sensor1:57443", true, "sensor1", "sensor1:57443"),
            ("https://sensor1/", true, "sensor1", "sensor1:443"),
            ("sensor1:57443", true, "sensor1", "sensor1:57443"),
            ("https://[2001:db8::1]:8", true, "2001:db8::1", "[2001:db8::1]:8"),
            ("http://127.0.0.1:8080", false, "127.0.0.1", "127.0.0.1:8080"),
            ("http://localhost", false, "localhost", "localhost:80"),
        ] {
            assert_eq!(place(url), (encrypted, host.to_owned(), authority.to_owned()), "{url}");
        }
        for (url, says) in [
            ("http://sensor1:80", "use https://"),
            ("ftp://sensor1", "neither with https://"),
            ("https://sensor1/v1/packets", "no path"),
            ("https://me@sensor1", "no user"),
            ("https://", "try https://sensor1:57443"),
            ("https://sensor1:99999", "try https://sensor1:57443"),
            ("", "try https://sensor1:57443"),
        ] {
            let error = Place::read(url).unwrap_err();
            assert!(error.is::<Usage>() && error.to_string().contains(says), "{url}: {error}");
        }
    }
}
