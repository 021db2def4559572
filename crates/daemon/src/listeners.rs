//! TCP listeners: for other machines, and for programs of this host that cannot use Unix sockets.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::error::Error;
use super::settings::Settings;
use serve::page_port::PagePort;
use serve::pcap_over_ip::Feed;
use serve::tls::{Keys, Tls};
use serve::{self, Service};

/// Whether PCAP-over-IP at this address is served over TLS.
pub(super) fn feed_is_encrypted(settings: &Settings, address: SocketAddr) -> bool {
    settings.pcap_over_ip_tls || !address.ip().to_canonical().is_loopback()
}

/// Whether anything is served over TLS.
pub(super) fn need_certificates(settings: &Settings) -> bool {
    !settings.listen.is_empty() || encrypted_feed(settings).is_some()
}

/// The first address of PCAP-over-IP that is served over TLS.
fn encrypted_feed(settings: &Settings) -> Option<SocketAddr> {
    settings.pcap_over_ip.iter().copied().find(|&address| feed_is_encrypted(settings, address))
}

/// Reads the certificates, if they are needed.
///
/// # Errors
///
/// When they are missing or wrong.
pub(super) fn keys(settings: &Settings) -> Result<Option<Keys>, Error> {
    if !need_certificates(settings) {
        return Ok(None);
    }
    let keys = Keys::read(&settings.certificates());
    match encrypted_feed(settings).filter(|_| settings.listen.is_empty()) {
        // A user who did not ask for TLS learns why certificates are needed.
        Some(address) => keys.map(Some).map_err(|source| Error::PcapOverIpWithoutKeys { address, source }),
        None => Ok(Some(keys?)),
    }
}

/// The protocol at an address.
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

/// All TCP listeners, bound. Nothing here needs privileges any more.
#[derive(Debug, Default)]
pub(super) struct RemoteListeners {
    pub(super) tls: Option<Arc<Tls>>,
    /// The port of the page, until the service has it.
    pub(super) page: Option<PagePort>,
    listeners: Vec<Listener>,
}

impl RemoteListeners {
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        if let Some(address) = settings.listen_plain.iter().find(|address| !address.ip().to_canonical().is_loopback()) {
            return Err(Error::NotLoopback(*address));
        }
        let tls = keys(settings)?.map(|keys| Arc::new(Tls::new(keys, settings.remote_clients())));
        let mut all = Self { tls, page: page_port(settings)?, listeners: Vec::new() };
        for &address in &settings.listen {
            all.listen(address, true, Protocol::Http)?;
        }
        for &address in &settings.listen_plain {
            all.listen(address, false, Protocol::Http)?;
        }
        for &address in &settings.pcap_over_ip {
            all.listen(address, feed_is_encrypted(settings, address), Protocol::PcapOverIp(settings.feed()))?;
        }
        Ok(all)
    }

    fn listen(&mut self, address: SocketAddr, encrypted: bool, protocol: Protocol) -> Result<(), Error> {
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        // With port 0, the system has chosen one.
        let address = listener.local_addr().map_err(failed)?;
        self.listeners.push(Listener { listener, address, encrypted, protocol });
        Ok(())
    }

    /// Logs each address and who is served there.
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

    /// Serves every address on a task of its own, until shutdown is requested.
    pub(super) fn serve(
        self,
        service: &Arc<Service>,
        shutdown_requested: &watch::Receiver<bool>,
    ) -> std::io::Result<JoinSet<()>> {
        let mut serving = JoinSet::new();
        serving.spawn(serve::serve_page(Arc::clone(service), shutdown_requested.clone()));
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

/// Reserves the port of the page. It stays closed until somebody asks for a link, unless the settings open it.
fn page_port(settings: &Settings) -> Result<Option<PagePort>, Error> {
    if let Some(address) = settings.page.filter(|address| !address.ip().to_canonical().is_loopback()) {
        return Err(Error::PageNotLoopback(address));
    }
    let address = settings.page.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    match (PagePort::reserve(address, settings.page.is_some()), settings.page) {
        (Ok(port), _) => {
            let port = port.with_dissector(settings.page_dissector.clone()).with_idle_max(settings.page_idle);
            Ok(Some(port.with_socket_path(&settings.socket)))
        }
        (Err(source), Some(address)) => Err(Error::Listen { address, source }),
        (Err(error), None) => {
            tracing::warn!("`retrocap page` will not work, because no port could be reserved for it: {error}");
            Ok(None)
        }
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
            let settings = Settings { pcap_over_ip: vec![address], pcap_over_ip_tls: tls, ..Settings::default() };
            assert_eq!(feed_is_encrypted(&settings, address), encrypts, "{address}");
            assert_eq!(need_certificates(&settings), encrypts, "{address}");
        }
    }
}
