//! Connections: how they are accepted, limited and served, on the Unix socket, over TLS and over plain TCP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answer::pins;
use super::connection_limiter::{Admission, ConnectionLimiter, ConnectionSlot};
use super::counters::count;
use super::minimum_rate::MinimumRate;
use super::pcap_over_ip::{self, Feed};
use super::peer::{Peer, PeerSource};
use super::service::Service;
use super::shutdown::shutdown_requested;
use super::tls::{Accepted, Tls};
use super::{health, http, local_user};
use base::time::Timestamp;

/// Headers of a request at most.
const HEADERS_MAX: usize = 64;
/// Bytes of the head of a request at most: room for the longest expression with every byte percent-encoded.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Bytes that a connection reads ahead, and that it buffers before they are written.
const BUFFER_BYTES: usize = 64 << 10;
/// How often counts of refusals are written to the audit log.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(5);
/// How often the clock is looked at.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after the system could not accept a connection, for want of memory or descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time without packets after which TCP probes whether a client is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);

/// How long a client of the socket has at least to send a request; others wait meanwhile.
const GRACE: Duration = Duration::from_millis(100);

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// The Unix socket, for clients that the mode of its file admits.
    Socket(UnixListener),
    /// TLS, for other machines with certificates.
    Tls(TcpListener, Arc<Tls>),
    /// Plain TCP on loopback, for all users of this host.
    Loopback(TcpListener),
    /// The page, on loopback, for browsers that have a link.
    Page(TcpListener),
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Socket(listener)
    }
}

/// What a listener speaks.
#[derive(Clone)]
enum Protocol {
    /// The API.
    Http(Router),
    /// A bare stream of packets.
    PcapOverIp(Feed),
}

/// A connection that was accepted.
enum AcceptedStream {
    Socket(UnixStream, Peer),
    Tls(TcpStream, std::net::SocketAddr, Arc<Tls>),
    Loopback(TcpStream, std::net::SocketAddr),
    Page(TcpStream, std::net::SocketAddr),
}

impl Listener {
    async fn accept(&self) -> io::Result<AcceptedStream> {
        Ok(match self {
            Self::Socket(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = Peer::of_socket(&stream);
                AcceptedStream::Socket(stream, peer)
            }
            Self::Tls(listener, tls) => {
                let (stream, from) = listener.accept().await?;
                prepare(&stream);
                AcceptedStream::Tls(stream, from, Arc::clone(tls))
            }
            Self::Loopback(listener) => {
                let (stream, from) = listener.accept().await?;
                prepare(&stream);
                AcceptedStream::Loopback(stream, from)
            }
            Self::Page(listener) => {
                let (stream, from) = listener.accept().await?;
                prepare(&stream);
                AcceptedStream::Page(stream, from)
            }
        })
    }
}

/// Sends data as it comes, and notices a client that has vanished from an idle link.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_AFTER);
}

impl AcceptedStream {
    fn source(&self) -> PeerSource {
        match self {
            Self::Socket(_, peer) => peer.source(),
            Self::Loopback(_, from) | Self::Page(_, from) | Self::Tls(_, from, _) => PeerSource::of(*from),
        }
    }
}

/// Serves until `shutdown` turns true or its sender is dropped. Then running answers end early but properly, for which
/// they have [`ServiceLimits::stop_timeout`](super::ServiceLimits::stop_timeout). Call it once for each listener of
/// a service.
pub async fn serve(listener: impl Into<Listener>, service: Arc<Service>, shutdown: watch::Receiver<bool>) {
    let router = http::router(Arc::clone(&service));
    accept_connections(listener.into(), Protocol::Http(router), service, shutdown).await;
}

/// As [`serve`], but clients are sent packets at once, as [`pcap_over_ip`] describes.
pub async fn serve_pcap_over_ip(
    listener: Listener,
    what: Feed,
    service: Arc<Service>,
    shutdown: watch::Receiver<bool>,
) {
    // In the clear only this host can reach it: the whole port is excluded from the recording, from before the first
    // connection is accepted.
    let address = match &listener {
        Listener::Loopback(listener) => listener.local_addr().ok(),
        Listener::Socket(_) | Listener::Tls(..) | Listener::Page(_) => None,
    };
    let _left_out = address.and_then(|address| service.own_streams.leave_out(address, None, Timestamp::MIN));
    accept_connections(listener, Protocol::PcapOverIp(what), service, shutdown).await;
}

/// Serves the page from the moment that somebody asks for a link to it.
pub async fn serve_page(service: Arc<Service>, mut shutdown: watch::Receiver<bool>) {
    let Some(port) = service.page.clone() else { return shutdown_requested(&mut shutdown).await };
    let listener = tokio::select! {
        listener = port.listener() => listener,
        () = shutdown_requested(&mut shutdown) => return,
    };
    // Looking at the page is no traffic of the host.
    let _left_out = service.own_streams.leave_out(port.address(), None, Timestamp::MIN);
    let router = http::router(Arc::clone(&service));
    accept_connections(Listener::Page(listener), Protocol::Http(router), service, shutdown).await;
}

async fn accept_connections(
    listener: Listener,
    protocol: Protocol,
    service: Arc<Service>,
    mut shutdown: watch::Receiver<bool>,
) {
    let is_socket = matches!(listener, Listener::Socket(_));
    // Without a grace period, so that thousands of strangers do not keep clients waiting.
    let limiter = ConnectionLimiter::new(if is_socket { GRACE } else { Duration::ZERO });
    let mut connections = JoinSet::new();
    let background = async {
        // Every service has one socket, whose task also runs what is done in the background.
        if is_socket {
            tokio::join!(
                health::sample_periodically(Arc::clone(&service)),
                pins::expire_in_time(Arc::clone(&service)),
                summarize_refusals(Arc::clone(&service)),
                watch_clock(Arc::clone(&service)),
            );
        }
        std::future::pending::<()>().await;
    };
    tokio::pin!(background);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut background => continue,
            Some(_) = connections.join_next() => continue,
            () = shutdown_requested(&mut shutdown) => break,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!("a connection was not accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let limits = service.limits();
        let most = if is_socket { limits.connections_max } else { limits.remote_connections_max };
        let mut admission = limiter.admit(accepted.source(), most);
        while let Admission::Later(moment) = admission {
            sleep(moment).await;
            admission = limiter.admit(accepted.source(), most);
        }
        let slot = match admission {
            Admission::Free(slot) => slot,
            Admission::Displaced(slot) => {
                count(&service.counters.clients_crowded_out);
                slot
            }
            Admission::Later(_) | Admission::Refused => {
                count(&service.counters.clients_refused);
                continue;
            }
        };
        // Reap finished tasks so that the set stays small in a flood.
        while connections.try_join_next().is_some() {}
        let (protocol, service, shutdown) = (protocol.clone(), Arc::clone(&service), shutdown.clone());
        connections.spawn(serve_connection(accepted, Arc::new(slot), protocol, service, shutdown));
    }
    drop(listener);
    service.stopping.store(true, Ordering::Relaxed);
    let ended =
        timeout(service.limits().stop_timeout, async { while connections.join_next().await.is_some() {} }).await;
    if is_socket {
        let asked = Arc::clone(&service);
        let _ = service.blocking(move || end_audit(&asked)).await;
    }
    if ended.is_err() {
        tracing::info!("{} connections are closed before their answers have ended", connections.len());
        connections.shutdown().await;
    }
}

/// Writes the last lines of the audit log.
fn end_audit(service: &Service) {
    service.audit.summarize_refusals(true);
    // A record that is sealed ends later, and is signed then.
    if !service.seals_record() {
        service.audit.sign_head(service.attestation.as_ref(), true);
    }
}

/// Writes the counts of refusals to the audit log from time to time.
async fn summarize_refusals(service: Arc<Service>) {
    loop {
        sleep(SUMMARY_INTERVAL).await;
        let asked = Arc::clone(&service);
        let write = move || {
            asked.audit.summarize_refusals(false);
            asked.audit.sign_head(asked.attestation.as_ref(), false);
        };
        let _ = service.blocking(write).await;
    }
}

/// Looks at the clock once a second, for what exports state about it.
async fn watch_clock(service: Arc<Service>) {
    loop {
        sleep(CLOCK_INTERVAL).await;
        if let Some(attestation) = &service.attestation {
            attestation.clock.observe();
        }
    }
}

/// Serves a connection until it ends, is displaced, or fails.
async fn serve_connection(
    accepted: AcceptedStream,
    slot: Arc<ConnectionSlot>,
    protocol: Protocol,
    service: Arc<Service>,
    mut shutdown: watch::Receiver<bool>,
) {
    service.counters.connections.fetch_add(1, Ordering::Relaxed);
    let _open = OpenConnection(Arc::clone(&service));
    let leaving = Arc::clone(&slot);
    let served = async {
        match accepted {
            AcceptedStream::Socket(stream, peer) => {
                serve_protocol(stream, peer, slot, protocol, service, shutdown).await
            }
            AcceptedStream::Loopback(stream, from) => {
                let peer = loopback_peer(&stream, from, &service, Peer::of_loopback).await;
                serve_protocol(stream, peer, slot, protocol, service, shutdown).await;
            }
            AcceptedStream::Page(stream, from) => {
                let peer = loopback_peer(&stream, from, &service, Peer::of_page).await;
                serve_protocol(stream, peer, slot, protocol, service, shutdown).await;
            }
            AcceptedStream::Tls(stream, from, tls) => {
                // Boxed, so that connections of the socket, which are more, need no room for it.
                let handshake = timeout(service.limits().handshake_timeout, Box::pin(tls.accept(stream, from)));
                let shaken = tokio::select! {
                    shaken = handshake => shaken,
                    () = shutdown_requested(&mut shutdown) => return,
                };
                match shaken {
                    Ok(Ok(Accepted { stream, peer, chain })) => {
                        // A bare stream of packets checks its role itself, so that it ends properly.
                        let revoked = tls.revoked(peer.clone(), chain, matches!(protocol, Protocol::Http(_)));
                        let counted = Arc::clone(&service);
                        let served = Box::pin(serve_protocol(stream, peer.clone(), slot, protocol, service, shutdown));
                        tokio::select! {
                            () = served => {}
                            why = revoked => {
                                // Its answer ends here, and is broken.
                                tracing::info!("{peer} is disconnected: {why}");
                                count(&counted.counters.clients_revoked);
                            }
                        }
                    }
                    Ok(Err(_)) => count(&service.counters.clients_untrusted),
                    Err(_) => count(&service.counters.clients_slow),
                }
            }
        }
    };
    tokio::select! {
        () = served => {}
        () = leaving.displaced() => tracing::debug!("an idle connection was closed to make room for another"),
    }
}

/// The process of this host at the other end of a TCP connection.
async fn loopback_peer(
    stream: &TcpStream,
    from: std::net::SocketAddr,
    service: &Service,
    peer: fn(std::net::SocketAddr, Option<u32>) -> Peer,
) -> Peer {
    let local = stream.local_addr().ok();
    let uid = service.blocking(move || local_user::of_connection(from, local?)).await.ok().flatten();
    peer(from, uid).with_local_address(local)
}

/// Speaks the protocol of the listener.
async fn serve_protocol<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: Peer,
    slot: Arc<ConnectionSlot>,
    protocol: Protocol,
    service: Arc<Service>,
    shutdown: watch::Receiver<bool>,
) {
    match protocol {
        Protocol::Http(router) => serve_http(stream, peer, slot, router, service, shutdown).await,
        Protocol::PcapOverIp(what) => {
            // The connection itself is the request.
            slot.request_began();
            // Boxed, so that connections of the API, which are more, need no room for it.
            Box::pin(pcap_over_ip::feed(stream, peer, service, what, shutdown)).await;
        }
    }
}

async fn serve_http<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: Peer,
    slot: Arc<ConnectionSlot>,
    router: Router,
    service: Arc<Service>,
    mut shutdown: watch::Receiver<bool>,
) {
    let router = TowerToHyperService::new(router);
    let asking = peer.clone();
    let answer = service_fn(move |mut request: Request<Incoming>| {
        slot.request_began();
        let guard = RequestGuard(Arc::clone(&slot));
        request.extensions_mut().insert(asking.clone());
        let answer = router.call(request);
        async move { answer.await.map(|response| response.map(|body| GuardedBody { body, _answering: guard })) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(service.limits().head_timeout)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(MinimumRate::new(stream, Arc::clone(&service))), answer);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shutdown_requested(&mut shutdown) => {
            // Set here too, so that no answer of this connection misses it.
            service.stopping.store(true, Ordering::Relaxed);
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        if error.is_timeout() {
            count(&service.counters.clients_slow);
        } else if error.is_parse() || error.is_incomplete_message() {
            count(&service.counters.clients_garbled);
        }
        tracing::debug!("the connection of {peer} was closed: {error}");
    }
}

/// Counts a connection for as long as it lives.
struct OpenConnection(Arc<Service>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that is being answered, until its answer was sent or abandoned.
struct RequestGuard(Arc<ConnectionSlot>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// A body that ends its request when it is dropped.
struct GuardedBody {
    body: Body,
    _answering: RequestGuard,
}

impl hyper::body::Body for GuardedBody {
    type Data = axum::body::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
