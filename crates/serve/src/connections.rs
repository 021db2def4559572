//! Connections: over which listener, how many, how long, how large; and who is at the other end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

use super::connection_limiter::{Admission, ConnectionLimiter, ConnectionSlot};
use super::minimum_rate::MinimumRate;
use super::pcap_over_ip::{self, Feed};
use super::peer::{Peer, PeerSource};
use super::tls::{Accepted, Tls};
use super::{Service, health, http, pins};
use base::time::Timestamp;

/// Headers of a request, at most.
const HEADERS_MAX: usize = 64;
/// Bytes of the head of a request, at most: the longest expression, each byte of it percent-encoded, and some.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Bytes that a connection reads ahead, and that wait to be written.
const BUFFER_BYTES: usize = 64 << 10;
/// Pause after the system refused a connection, which it does for want of memory or descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time without packets after which a client is asked whether it is there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);

/// How long who connects to the socket has at least to ask something; the next ones wait meanwhile.
const GRACE: Duration = Duration::from_millis(100);

/// Where clients come in.
#[derive(Debug)]
pub enum Listener {
    /// The socket, for whoever the file's mode lets in.
    Socket(UnixListener),
    /// Other machines, with certificates.
    Tls(TcpListener, Arc<Tls>),
    /// Loopback, for whoever is on this host.
    Loopback(TcpListener),
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Socket(listener)
    }
}

/// What clients are answered.
#[derive(Clone)]
enum Protocol {
    /// The API.
    Http(Router),
    /// A bare stream of packets.
    PcapOverIp(Feed),
}

/// One who came in.
enum AcceptedStream {
    Socket(UnixStream, Peer),
    Tls(TcpStream, std::net::SocketAddr, Arc<Tls>),
    Loopback(TcpStream, Peer),
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
                let at = stream.local_addr().ok();
                AcceptedStream::Loopback(stream, Peer::of_loopback(from).with_local_address(at))
            }
        })
    }
}

/// Packets are sent as they come, and who has gone from an idle link is noticed.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_AFTER);
}

impl AcceptedStream {
    fn source(&self) -> PeerSource {
        match self {
            Self::Socket(_, peer) | Self::Loopback(_, peer) => peer.source(),
            Self::Tls(_, from, _) => PeerSource::of(*from),
        }
    }
}

/// Serves until `shutdown` turns true or its sender is dropped; then answers that are under way end early but well, for
/// which they have [`Limits::stop_timeout`](super::Limits::stop_timeout). Several doors of one service are served by
/// as many calls.
pub async fn serve(listener: impl Into<Listener>, service: Arc<Service>, shutdown: watch::Receiver<bool>) {
    let router = http::router(Arc::clone(&service));
    accept_connections(listener.into(), Protocol::Http(router), service, shutdown).await;
}

/// As [`serve`], but who comes in is sent packets at once, as [`pcap_over_ip`] describes.
pub async fn serve_pcap_over_ip(
    listener: Listener,
    what: Feed,
    service: Arc<Service>,
    shutdown: watch::Receiver<bool>,
) {
    // In the clear it is on an address that only this host can reach: what goes over it is not recorded, from before
    // anybody is accepted.
    let address = match &listener {
        Listener::Loopback(listener) => listener.local_addr().ok(),
        Listener::Socket(_) | Listener::Tls(..) => None,
    };
    let _left_out = address.and_then(|address| service.own_streams.leave_out(address, None, Timestamp::MIN));
    accept_connections(listener, Protocol::PcapOverIp(what), service, shutdown).await;
}

async fn accept_connections(
    listener: Listener,
    protocol: Protocol,
    service: Arc<Service>,
    mut shutdown: watch::Receiver<bool>,
) {
    let is_socket = matches!(listener, Listener::Socket(_));
    // Strangers by the thousand would keep other machines waiting.
    let limiter = ConnectionLimiter::new(if is_socket { GRACE } else { Duration::ZERO });
    let mut connections = JoinSet::new();
    let background = async {
        // Every service has the socket, and one to look after drops and pins is enough.
        if is_socket {
            tokio::join!(health::sample_periodically(Arc::clone(&service)), pins::expire_in_time(Arc::clone(&service)));
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
        // Who comes by the thousand goes by the thousand too.
        while connections.try_join_next().is_some() {}
        let (protocol, service, shutdown) = (protocol.clone(), Arc::clone(&service), shutdown.clone());
        connections.spawn(serve_connection(accepted, Arc::new(slot), protocol, service, shutdown));
    }
    drop(listener);
    service.stopping.store(true, Ordering::Relaxed);
    let ended =
        timeout(service.limits().stop_timeout, async { while connections.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::info!("{} connections are closed before their answers have ended", connections.len());
        connections.shutdown().await;
    }
}

/// Serves one who came in, until it goes, is told to go, or fails.
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
            AcceptedStream::Loopback(stream, peer) => {
                serve_protocol(stream, peer, slot, protocol, service, shutdown).await
            }
            AcceptedStream::Tls(stream, from, tls) => {
                // Boxed, as those on the socket, who are more, need no admission for it.
                let handshake = timeout(service.limits().handshake_timeout, Box::pin(tls.accept(stream, from)));
                let shaken = tokio::select! {
                    shaken = handshake => shaken,
                    () = shutdown_requested(&mut shutdown) => return,
                };
                match shaken {
                    Ok(Ok(Accepted { stream, peer, chain })) => {
                        // A bare stream of packets looks after its role, and ends well.
                        let revoked = tls.revoked(peer.clone(), chain, matches!(protocol, Protocol::Http(_)));
                        let counted = Arc::clone(&service);
                        let served = Box::pin(serve_protocol(stream, peer.clone(), slot, protocol, service, shutdown));
                        tokio::select! {
                            () = served => {}
                            why = revoked => {
                                // What it was being sent ends here, and not well.
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
        () = leaving.displaced() => tracing::debug!("a connection that asked nothing made admission for another"),
    }
}

/// Gives one who was let in what is spoken here.
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
            // To have come is the question.
            slot.request_began();
            // Boxed, as those of the API, who are more, need no admission for it.
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

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Waits until the service is to end.
pub(super) async fn shutdown_requested(shutdown: &mut watch::Receiver<bool>) {
    // Without its sender nobody could tell any more.
    let _ = shutdown.wait_for(|&stop| stop).await;
}

/// Counts a connection for as long as it lives.
struct OpenConnection(Arc<Service>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A question that is being answered, until its answer was given or given up.
struct RequestGuard(Arc<ConnectionSlot>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// An answer whose end is noticed.
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
