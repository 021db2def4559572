//! Where other machines connect, and programs of this one that speak no Unix sockets.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Error;
use serve::pcap_over_ip::Feed;
use serve::tls::{ClientRules, Keys, Tls, TlsFiles};
use serve::{self, Service};

/// Addresses to listen on, beside the socket; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// For clients with certificates, over TLS.
    pub listen: Vec<SocketAddr>,
    /// For anybody on this host, without encryption; loopback alone.
    pub listen_plain: Vec<SocketAddr>,
    /// The certificates; needed where TLS is served.
    pub files: Option<TlsFiles>,
    /// What clients may, where that is not left to their certificates.
    pub clients: ClientRules,
    /// Where packets are served as a bare stream.
    pub pcap_over_ip: PcapOverIp,
}

/// Where PCAP-over-IP is served, and what. On the loopback address it is for every user of this host, in the clear;
/// elsewhere it is for clients with certificates, over TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcapOverIp {
    /// The addresses; none by default.
    pub listen: Vec<SocketAddr>,
    /// Whether it is TLS on the loopback address, too.
    pub tls: bool,
    /// What clients are sent.
    pub feed: Feed,
}

impl PcapOverIp {
    /// Whether an address is served over TLS.
    pub fn encrypts(&self, address: SocketAddr) -> bool {
        self.tls || !address.ip().to_canonical().is_loopback()
    }

    /// The first address that is.
    fn encrypted(&self) -> Option<SocketAddr> {
        self.listen.iter().copied().find(|&address| self.encrypts(address))
    }
}

impl Remote {
    /// Whether certificates are needed.
    pub fn encrypts(&self) -> bool {
        !self.listen.is_empty() || self.pcap_over_ip.encrypted().is_some()
    }

    /// Reads the certificates.
    ///
    /// # Errors
    ///
    /// When TLS is to be served and they are not there, or wrong.
    pub(super) fn keys(&self) -> Result<Option<Keys>, Error> {
        if !self.encrypts() {
            return Ok(None);
        }
        let keys = Keys::read(self.files.as_ref().ok_or(Error::NoCertificates)?);
        match self.pcap_over_ip.encrypted().filter(|_| self.listen.is_empty()) {
            // Who did not speak of certificates learns why they are needed.
            Some(address) => keys.map(Some).map_err(|source| Error::PcapOverIpWithoutKeys { address, source }),
            None => Ok(Some(keys?)),
        }
    }
}

/// What is spoken behind an address.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    Http,
    PcapOverIp(Feed),
}

#[derive(Debug)]
struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    encrypted: bool,
    protocol: Protocol,
}

/// The same, listening. Everything here that takes rights has been done.
#[derive(Debug, Default)]
pub(super) struct RemoteListeners {
    pub(super) tls: Option<Arc<Tls>>,
    listeners: Vec<Listener>,
}

impl RemoteListeners {
    pub(super) fn new(remote: &Remote) -> Result<Self, Error> {
        if let Some(address) = remote.listen_plain.iter().find(|address| !address.ip().to_canonical().is_loopback()) {
            return Err(Error::NotLoopback(*address));
        }
        let tls = remote.keys()?.map(|keys| Arc::new(Tls::new(keys, remote.clients.clone())));
        let mut listening = Self { tls, listeners: Vec::new() };
        for &address in &remote.listen {
            listening.listen(address, true, Protocol::Http)?;
        }
        for &address in &remote.listen_plain {
            listening.listen(address, false, Protocol::Http)?;
        }
        let feeds = &remote.pcap_over_ip;
        for &address in &feeds.listen {
            listening.listen(address, feeds.encrypts(address), Protocol::PcapOverIp(feeds.feed))?;
        }
        Ok(listening)
    }

    fn listen(&mut self, address: SocketAddr, encrypted: bool, protocol: Protocol) -> Result<(), Error> {
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        // The port may have been left to the system.
        let address = listener.local_addr().map_err(failed)?;
        self.listeners.push(Listener { listener, address, encrypted, protocol });
        Ok(())
    }

    /// Says where it listens, and for whom.
    pub(super) fn announce(&self) {
        for Listener { address, encrypted, protocol, .. } in &self.listeners {
            match (&self.tls, protocol) {
                (Some(tls), Protocol::Http) if *encrypted => {
                    tracing::info!("listening on {address} for clients with certificates, as {}", tls.certificate());
                }
                (Some(tls), Protocol::PcapOverIp(_)) if *encrypted => tracing::info!(
                    "PCAP-over-IP on {address}: over TLS, for clients with certificates and the role packets, as {}",
                    tls.certificate()
                ),
                (_, Protocol::Http) => tracing::warn!(
                    "listening on {address} without encryption: every user of this host can read packets there"
                ),
                (_, Protocol::PcapOverIp(_)) => {
                    tracing::info!("PCAP-over-IP on {address}: every user of this host can read all packets there");
                }
            }
        }
    }

    /// Serves, each address by a task of its own, until told to stop.
    pub(super) fn serve(
        self,
        service: &Arc<Service>,
        shutdown_requested: &watch::Receiver<bool>,
    ) -> std::io::Result<JoinSet<()>> {
        let mut serving = JoinSet::new();
        for Listener { listener, encrypted, protocol, .. } in self.listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let door = match &self.tls {
                Some(tls) if encrypted => serve::Listener::Tls(listener, Arc::clone(tls)),
                _ => serve::Listener::Loopback(listener),
            };
            let (service, shutdown_requested) = (Arc::clone(service), shutdown_requested.clone());
            match protocol {
                Protocol::Http => serving.spawn(serve::serve(door, service, shutdown_requested)),
                Protocol::PcapOverIp(feed) => {
                    serving.spawn(serve::serve_pcap_over_ip(door, feed, service, shutdown_requested))
                }
            };
        }
        Ok(serving)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_clear_is_for_loopback_alone() {
        for (address, tls, encrypts) in [
            ("127.0.0.1:57012", false, false),
            ("127.9.9.9:57012", false, false),
            ("[::1]:57012", false, false),
            ("[::ffff:127.0.0.1]:57012", false, false),
            ("127.0.0.1:57012", true, true),
            ("0.0.0.0:57012", false, true),
            ("[::]:57012", false, true),
            ("10.0.0.1:57012", false, true),
        ] {
            let address = address.parse().unwrap();
            let feeds = PcapOverIp { listen: vec![address], tls, ..PcapOverIp::default() };
            assert_eq!(feeds.encrypts(address), encrypts, "{address}");
            assert_eq!(Remote { pcap_over_ip: feeds, ..Remote::default() }.encrypts(), encrypts, "{address}");
        }
    }
}
