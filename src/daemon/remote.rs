//! Where other machines connect, and programs of this one that speak no Unix sockets.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::Error;
use crate::serve::Door;
use crate::serve::tls::{Clients, Files, Keys, Tls};

/// Addresses to listen on, beside the socket; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// For clients with certificates, over TLS.
    pub listen: Vec<SocketAddr>,
    /// For anybody on this host, without encryption; loopback alone.
    pub listen_plain: Vec<SocketAddr>,
    /// The certificates; needed where TLS is served.
    pub files: Option<Files>,
    /// What clients may, where that is not left to their certificates.
    pub clients: Clients,
}

/// The same, listening. Everything here that takes rights has been done.
#[derive(Debug, Default)]
pub(super) struct Listening {
    pub(super) tls: Option<Arc<Tls>>,
    listeners: Vec<(TcpListener, SocketAddr, bool)>,
}

impl Listening {
    pub(super) fn new(remote: &Remote) -> Result<Self, Error> {
        if let Some(address) = remote.listen_plain.iter().find(|address| !address.ip().to_canonical().is_loopback()) {
            return Err(Error::NotLoopback(*address));
        }
        let mut listening = Self::default();
        if !remote.listen.is_empty() {
            let files = remote.files.as_ref().ok_or(Error::NoCertificates)?;
            listening.tls = Some(Arc::new(Tls::new(Keys::read(files)?, remote.clients.clone())));
        }
        let all = remote.listen.iter().map(|a| (a, true)).chain(remote.listen_plain.iter().map(|a| (a, false)));
        for (&address, encrypted) in all {
            let failed = |source| Error::Listen { address, source };
            let listener = TcpListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            // The port may have been left to the system.
            let address = listener.local_addr().map_err(failed)?;
            listening.listeners.push((listener, address, encrypted));
        }
        Ok(listening)
    }

    /// Says where it listens, and for whom.
    pub(super) fn announce(&self) {
        for (_, address, encrypted) in &self.listeners {
            match (&self.tls, encrypted) {
                (Some(tls), true) => {
                    tracing::info!("listening on {address} for clients with certificates, as {}", tls.certificate())
                }
                _ => tracing::warn!(
                    "listening on {address} without encryption: every user of this host can read packets there"
                ),
            }
        }
    }

    /// Where clients come in. Call it within the runtime.
    pub(super) fn doors(self) -> std::io::Result<Vec<Door>> {
        let Self { tls, listeners } = self;
        listeners
            .into_iter()
            .map(|(listener, _, encrypted)| {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                Ok(match &tls {
                    Some(tls) if encrypted => Door::Tls(listener, Arc::clone(tls)),
                    _ => Door::Loopback(listener),
                })
            })
            .collect()
    }
}
