//! The port of the page: reserved when the recorder starts, and open from the moment that somebody asks for a link.
//!
//! A socket that is bound and does not listen keeps its port and refuses connections. So nothing is open that nobody asked for,
//! and opening it later needs no privilege that the sandbox took.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::peer::Peer;
use super::polls::Polls;
use api::page_answers::PageLink;
use page::{Secret, Sessions};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// The port of the page.
#[derive(Debug)]
pub struct PagePort {
    address: SocketAddr,
    /// Until it listens.
    socket: Mutex<Option<OwnedFd>>,
    /// Whether somebody asked, and whether it listens.
    asked: watch::Sender<bool>,
    listens: watch::Sender<bool>,
    pub(crate) sessions: Sessions<PageOwner>,
    /// Where the dissector is.
    pub(crate) dissector: Option<PathBuf>,
    /// The path of the recorder's socket, for commands that the page shows.
    pub(crate) socket_path: String,
}

/// Whoever asked for a link.
#[derive(Clone, Debug)]
pub(crate) struct PageOwner {
    peer: Peer,
    /// The user of the browser, if root named another one.
    browser_uid: Option<u32>,
    polls: Arc<Polls>,
}

impl PagePort {
    /// Reserves a port at this address; 0 for any. `listens` opens it at once.
    ///
    /// # Errors
    ///
    /// When the system refuses, for example because the port is taken.
    pub fn reserve(address: SocketAddr, listens: bool) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        // With SO_REUSEADDR, Linux would give the port to another process, too, as long as nobody listens. It is needed only
        // where connections of a recorder that ran before have not ended yet.
        if bind(&socket, &address).is_err() {
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &address)?;
        }
        let address = SocketAddr::try_from(getsockname(&socket)?)?;
        Ok(Self {
            address,
            socket: Mutex::new(Some(socket)),
            asked: watch::Sender::new(listens),
            listens: watch::Sender::new(false),
            sessions: Sessions::default(),
            dissector: None,
            socket_path: String::new(),
        })
    }

    /// Sets where the dissector is.
    #[must_use]
    pub fn with_dissector(self, dissector: Option<PathBuf>) -> Self {
        Self { dissector, ..self }
    }

    /// Sets the time without a use after which links and sessions end.
    #[must_use]
    pub fn with_idle_max(self, idle_max: Duration) -> Self {
        Self { sessions: Sessions::new(idle_max), ..self }
    }

    /// Sets the path of the recorder's socket.
    #[must_use]
    pub fn with_socket_path(self, path: &std::path::Path) -> Self {
        Self { socket_path: path.display().to_string(), ..self }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until somebody asks, and listens.
    pub(crate) async fn listener(&self) -> TcpListener {
        let mut asked = self.asked.subscribe();
        loop {
            // The sender lives as long as this port.
            let _ = asked.wait_for(|asked| *asked).await;
            let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
            let listening = socket.ok_or_else(|| io::Error::other("it listens already")).and_then(|socket| {
                // Connections inherit it, so that they do not keep the port from the next recorder.
                sockopt::set_socket_reuseaddr(&socket, true)?;
                listen(&socket, BACKLOG)?;
                TcpListener::from_std(std::net::TcpListener::from(socket))
            });
            match listening {
                Ok(listener) => {
                    tracing::info!("the page is served on {}, for browsers that have a link", self.address);
                    self.listens.send_replace(true);
                    return listener;
                }
                Err(error) => {
                    tracing::error!("the page cannot be served on {}: {error}", self.address);
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Opens the port, and makes a link for `peer`, or for the user of a browser that root names.
    ///
    /// # Errors
    ///
    /// Why there is none, in words.
    pub(crate) async fn link(&self, peer: &Peer, browser_uid: Option<u32>) -> Result<PageLink, &'static str> {
        self.asked.send_replace(true);
        let mut listens = self.listens.subscribe();
        let open = tokio::time::timeout(OPEN_WITHIN, listens.wait_for(|listens| *listens)).await;
        if !matches!(open, Ok(Ok(_))) {
            return Err("the port of the page could not be opened; the recorder's log says why");
        }
        let browser_uid = browser_uid.filter(|_| peer.process().0 == Some(0));
        let owner = PageOwner { peer: peer.clone(), browser_uid, polls: Arc::default() };
        let secret = self.sessions.link(owner, Instant::now()).ok_or("the system has no random numbers")?;
        let url = format!("http://{}/#link={}", self.address, secret.reveal());
        Ok(PageLink { url: url.into(), idle_s: self.sessions.idle_max().as_secs() })
    }

    /// Exchanges a link for a session, if the browser may use it.
    pub(crate) fn exchange(&self, link: &str, browser: &Peer) -> Option<Secret> {
        self.sessions.exchange(link, Instant::now(), |owner| owner.admits(browser))
    }

    /// Whoever asked for the link of this session, if the browser may use it.
    pub(crate) fn owner(&self, token: &str, browser: &Peer) -> Option<Peer> {
        let owner = self.sessions.owner(token, Instant::now())?;
        owner.admits(browser).then(|| owner.peer.in_browser(browser, owner.polls))
    }
}

/// How long the port may take to open.
const OPEN_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

impl PageOwner {
    /// Whether a browser belongs to the owner, so that a link that another user has seen is of no use. Where the kernel does
    /// not say whose it is, the secret alone decides.
    fn admits(&self, browser: &Peer) -> bool {
        let (owner, _) = self.peer.process();
        browser.process().0.is_none_or(|uid| Some(uid) == owner || Some(uid) == self.browser_uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_refuses_connections_until_somebody_asks() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(asked());
    }

    async fn asked() {
        let port = Arc::new(PagePort::reserve("127.0.0.1:0".parse().unwrap(), false).unwrap());
        let connect = || std::net::TcpStream::connect(port.address());
        assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(PagePort::reserve(port.address(), false).is_err(), "nobody else gets it");
        let listening = tokio::spawn({
            let port = Arc::clone(&port);
            async move { port.listener().await }
        });
        let peer = Peer::of_page("127.0.0.1:1".parse().unwrap(), Some(7));
        let link = port.link(&peer, Some(8)).await.unwrap();
        let url = link.url.untrusted().to_owned();
        let secret = url.strip_prefix(&format!("http://{}/#link=", port.address())).unwrap();
        let _listener = listening.await.unwrap();
        assert!(connect().is_ok());
        let browser = |uid| Peer::of_page("127.0.0.1:2".parse().unwrap(), uid);
        assert!(port.exchange(secret, &browser(Some(8))).is_none(), "only root may name another user");
        let token = port.exchange(secret, &browser(Some(7))).unwrap();
        assert!(port.owner(token.reveal(), &browser(Some(7))).is_some_and(|owner| owner.has_page_session()));
        assert!(port.owner(token.reveal(), &browser(Some(1000))).is_none());
    }
}
