//! Connects to a recorder on another machine over TLS, or on a port of this machine in cleartext.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::anyhow;
use hyper::Uri;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::stream::Stream;
use crate::client::tls::{CertificateFiles, Peer, Tls, alert};
use crate::error::Usage;

/// Timeout of the TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// A recorder on another machine.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// The URL as the user typed it.
    pub(crate) url: String,
    pub(crate) files: CertificateFiles,
}

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RemoteUrl {
    encrypted: bool,
    /// Host name or IP address, without brackets.
    host: String,
    port: u16,
    /// `host:port`, as in the `Host` header.
    authority: String,
}

impl RemoteUrl {
    fn read(url: &str) -> anyhow::Result<Self> {
        let wrong = |why: &str| Usage::of(format_args!("{url:?} is no recorder: {why}; try https://sensor1:57443"));
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
        // The library treats an invalid port as a missing one.
        if authority.as_str() != bracketed && uri.port_u16().is_none() {
            return Err(wrong("the port is not a number up to 65535"));
        }
        let port = uri.port_u16().unwrap_or(if encrypted { HTTPS_PORT } else { HTTP_PORT });
        Ok(Self { encrypted, host: host.to_owned(), port, authority: format!("{bracketed}:{port}") })
    }
}

impl Remote {
    /// The recorder at a URL.
    ///
    /// # Errors
    ///
    /// [`Usage`] if the URL is none of a recorder.
    pub(crate) fn new(url: String, files: CertificateFiles) -> anyhow::Result<Self> {
        RemoteUrl::read(&url)?;
        Ok(Self { url, files })
    }

    /// Connects. Returns the stream and the value of the `Host` header.
    pub(crate) async fn connect(&self) -> anyhow::Result<(Box<dyn Stream>, String)> {
        self.connect_with(|| Tls::new(&self.files, Peer::Recorder)).await
    }

    /// As [`connect`](Self::connect), with the TLS configuration that `tls` makes where one is needed.
    pub(crate) async fn connect_with(
        &self,
        tls: impl FnOnce() -> anyhow::Result<Tls>,
    ) -> anyhow::Result<(Box<dyn Stream>, String)> {
        let url = RemoteUrl::read(&self.url)?;
        let tls = if url.encrypted { Some(tls()?) } else { None };
        let stream = connect_tcp(&url).await?;
        Ok(match tls {
            None => (Box::new(stream), url.authority),
            Some(tls) => (Box::new(tls.connect(&url.host, &url.authority, stream).await?), url.authority),
        })
    }

    /// Explains why a request failed. With TLS 1.3 a client learns only after the handshake that its certificate is
    /// refused.
    pub(crate) fn broken(&self, error: hyper::Error) -> anyhow::Error {
        if let Some(alert) = alert(&error) {
            return Tls::new(&self.files, Peer::Recorder)
                .map_or_else(|error| error, |tls| tls.alerted(&self.url, alert));
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

/// Nobody answers at the recorder's address.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreachable(String);

async fn connect_tcp(url: &RemoteUrl) -> Result<TcpStream, Unreachable> {
    let at = &url.authority;
    let addresses: Vec<_> = tokio::net::lookup_host((url.host.as_str(), url.port))
        .await
        .map_err(|error| Unreachable(format!("cannot find the host {:?}: {error}; check the name", url.host)))?
        .collect();
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(addresses.as_slice())).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return Err(Unreachable(match error.kind() {
                std::io::ErrorKind::ConnectionRefused => {
                    format!("nobody listens on {at}: does `retrocap run --listen` run there, with this port?")
                }
                _ => format!("cannot connect to {at}: {error}; check address, network and firewall"),
            }));
        }
        Err(_) => {
            let seconds = CONNECT_TIMEOUT.as_secs();
            let advice = "check address, network and firewall";
            return Err(Unreachable(format!("{at} does not answer within {seconds} s: {advice}")));
        }
    };
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_names_a_host_and_a_port() {
        let read = |url: &str| {
            let url = RemoteUrl::read(url).unwrap();
            (url.encrypted, url.host, url.authority)
        };
        for (url, encrypted, host, authority) in [
            ("https://sensor1:57443", true, "sensor1", "sensor1:57443"),
            ("https://sensor1/", true, "sensor1", "sensor1:443"),
            ("sensor1:57443", true, "sensor1", "sensor1:57443"),
            ("https://[2001:db8::1]:8", true, "2001:db8::1", "[2001:db8::1]:8"),
            ("http://127.0.0.1:8080", false, "127.0.0.1", "127.0.0.1:8080"),
            ("http://localhost", false, "localhost", "localhost:80"),
        ] {
            assert_eq!(read(url), (encrypted, host.to_owned(), authority.to_owned()), "{url}");
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
            let error = RemoteUrl::read(url).unwrap_err();
            assert!(error.is::<Usage>() && error.to_string().contains(says), "{url}: {error}");
        }
    }
}
