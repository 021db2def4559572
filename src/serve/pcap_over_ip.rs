//! PCAP-over-IP: a capture as a bare stream over TCP, first some of the past, then what comes.
//!
//! There is no handshake: who connects is sent the file's header at once, and what it says is ignored. Every stream is a
//! follower like those of the HTTP API, with the same limits: a place among them, two chunks on their way, and an end when
//! nothing is taken for [`Limits::stall_timeout`](super::Limits::stall_timeout).
//!
//! [`feed`] takes any stream of bytes, so that what it is wrapped in is for others to decide. This protocol knows no
//! users: in the clear it belongs on the loopback address alone, where every user of the host may read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt as _;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connections::{ACCEPT_PAUSE, told};
use super::follow::{Live, Sent, asked_for};
use super::packets::{Export, Wide};
use super::parameters::PacketQuery;
use super::peer::Peer;
use super::stream::{Body, stream};
use super::{Service, now};
use crate::export::{Format, Precision};
use crate::query::Request;
use crate::time::Timestamp;

/// Bytes that a client may send, all of which are ignored.
const READ_BYTES_MAX: usize = 64 << 10;

/// Time without packets after which a client is asked whether it is there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// How often one that says nothing more is looked after.
const SILENT_INTERVAL: Duration = Duration::from_secs(5);

/// What clients are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feed {
    /// How much of the past comes first.
    pub past: Duration,
    /// In which format.
    pub format: Format,
    /// How exact times are.
    pub precision: Precision,
}

impl Feed {
    fn query(&self, service: &Service) -> PacketQuery {
        // The newest packet of a replayed capture can be years old.
        let newest = service.history().totals().newest;
        let now = if service.recorder().live { now() } else { newest.unwrap_or(Timestamp::MIN) };
        let request = Request { since: Some(now.saturating_sub(self.past)), ..Request::default() };
        PacketQuery {
            request,
            format: self.format,
            precision: self.precision,
            follow: true,
            carried_by: None,
            whole_sessions: false,
        }
    }
}

/// Serves until `shutdown` turns true or its sender is dropped.
///
/// The listener's address is one that only this host can reach: what goes over it is not recorded.
pub async fn serve(listener: TcpListener, service: Arc<Service>, what: Feed, mut shutdown: watch::Receiver<bool>) {
    let address = listener.local_addr().ok();
    // Before anybody is accepted.
    let _left_out = address.and_then(|address| service.own_streams.leave_out(address, None));
    let mut clients = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = clients.join_next() => continue,
            () = told(&mut shutdown) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Who has gone from an idle link is noticed so.
                let _ = stream.set_nodelay(true);
                let _ = sockopt::set_socket_keepalive(&stream, true);
                let _ = sockopt::set_tcp_keepidle(&stream, KEEPALIVE_AFTER);
                let shutdown = shutdown.clone();
                clients.spawn(feed(stream, peer, Arc::clone(&service), what, shutdown));
            }
            Err(error) => {
                tracing::debug!("a connection was not accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let ended = timeout(service.limits().stop_timeout, async { while clients.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        clients.shutdown().await;
    }
}

/// Sends one client what there is, for as long as it takes it.
///
/// `stream` is a connection that is ready for use, in the clear or not. One that is not on the loopback address has to be
/// left out of the recording by who accepted it: see [`OwnStreams`](crate::own_streams::OwnStreams).
pub async fn feed<S: AsyncRead + AsyncWrite + Unpin>(
    mut client: S,
    peer: SocketAddr,
    service: Arc<Service>,
    what: Feed,
    mut shutdown: watch::Receiver<bool>,
) {
    let Ok(follower) = Arc::clone(&service.followers).try_acquire_owned() else {
        service.activity.clients_refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!("{peer} is turned away: as many follow as the memory budget bears");
        return;
    };
    let place = match service.packet_query().await {
        Ok(place) => place,
        Err(problem) => {
            service.activity.clients_refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("{peer} is turned away: {}", problem.detail);
            return;
        }
    };
    tracing::info!("{peer} reads packets as they come, and those of the last {:?}", what.past);
    service.activity.packet_queries.fetch_add(1, Ordering::Relaxed);
    let sent = Arc::new(Sent::default());
    let query = what.query(&service);
    let asked_for = asked_for(&query);
    let live = Live {
        export: Export { service: Arc::clone(&service), query, wide: Wide::No },
        who: peer.to_string(),
        for_strict_readers: true,
        sent: Arc::clone(&sent),
    };
    let body =
        match stream(&service, place, move |sink| live.run_audited(sink, &Peer::of_loopback(peer), asked_for)).await {
            Ok(body) => body,
            Err(problem) => return tracing::warn!("{peer} cannot be served: {}", problem.detail),
        };
    let why = {
        let passing_on = pass_on(body, &mut client, &service);
        tokio::pin!(passing_on);
        tokio::select! {
            why = &mut passing_on => why,
            () = told(&mut shutdown) => {
                // So that the last packet is whole.
                service.stopping.store(true, Ordering::Relaxed);
                let _ = timeout(service.limits().stop_timeout, passing_on).await;
                "is disconnected, as the recorder stops".to_owned()
            }
        }
    };
    drop(follower);
    let _ = timeout(service.limits().stop_timeout, client.shutdown()).await;
    tracing::info!("{peer} {why}: {}", sent.text());
}

/// Writes the body to the client; says how that ended.
async fn pass_on<S: AsyncRead + AsyncWrite + Unpin>(mut body: Body, client: &mut S, service: &Service) -> String {
    let (mut reader, mut writer) = tokio::io::split(client);
    let heard = async {
        let mut bytes = [0; 512];
        let mut heard = 0;
        loop {
            match reader.read(&mut bytes).await {
                // It will say no more, but may well listen.
                Ok(0) => sleep(SILENT_INTERVAL).await,
                Err(_) => return "has gone".to_owned(),
                Ok(count) => heard += count,
            }
            if heard > READ_BYTES_MAX {
                return "talks instead of listening, and is disconnected".to_owned();
            }
        }
    };
    let told = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(mut chunk) = frame.into_data() else { continue };
            while !chunk.is_empty() {
                match timeout(service.limits().stall_timeout, writer.write_buf(&mut chunk)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) => return "has gone".to_owned(),
                    Err(_) => {
                        service.activity.clients_stalled.fetch_add(1, Ordering::Relaxed);
                        let waited = service.limits().stall_timeout;
                        return format!("has taken nothing for {waited:?}, and is disconnected");
                    }
                }
            }
        }
        "has got everything".to_owned()
    };
    tokio::select! { why = heard => why, why = told => why }
}

impl Sent {
    /// `12 packets sent, 3 evicted before they could be sent`
    fn text(&self) -> String {
        let mut text = format!("{} packets sent", self.packets.load(Ordering::Relaxed));
        for (count, what) in [
            (&self.overtaken, "evicted before they could be sent"),
            (&self.left_out, "left out because their link type does not fit"),
            (&self.cut, "cut because they were too long"),
        ] {
            match count.load(Ordering::Relaxed) {
                0 => {}
                count => text.push_str(&format!(", {count} {what}")),
            }
        }
        text
    }
}
