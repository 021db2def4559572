//! PCAP-over-IP: a capture as a bare stream over TCP or TLS, first some of the past, then what comes.
//!
//! There is no question: who connects is sent the file's header at once, and what it says is ignored. Every stream is a
//! follower like those of the HTTP API, with the same limits: a place among them, two chunks on their way, and an end when
//! next to nothing is taken for [`Limits::stall_timeout`](super::Limits::stall_timeout).
//!
//! In the clear the protocol knows no users, so it is served on loopback addresses alone, where every user of the host
//! may read. Over TLS a client has a certificate, and reads if that, or the configuration, gives it the role `packets`.
//! How connections are let in, and who gives way, is the same for all of the service (`connections.rs`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::audit::Action;
use super::connections::shutdown_requested;
use super::follow::{FollowCounts, Follower, UnrecordedConnection, audited_question};
use super::minimum_rate::MinimumRate;
use super::packets::{Export, Scope};
use super::parameters::PacketQuery;
use super::peer::{Peer, Role};
use super::problem::Problem;
use super::stream::{Body, stream};
use super::{Service, http, now};
use base::log_limit::LogLimit;
use base::time::Timestamp;
use formats::writer::{Format, Precision};
use query::Request;

/// Bytes that a client may send, all of which are ignored.
const READ_BYTES_MAX: usize = 64 << 10;

/// How often one that says nothing more is looked after.
const SILENT_INTERVAL: Duration = Duration::from_secs(5);

/// What clients are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// Sends one client what there is, for as long as it takes it.
pub(super) async fn feed<S: AsyncRead + AsyncWrite + Unpin>(
    client: S,
    peer: Peer,
    service: Arc<Service>,
    what: Feed,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut client = MinimumRate::new(client, Arc::clone(&service));
    let (body, sent) = match begin(&peer, &service, what).await {
        Ok(begun) => begun,
        Err(problem) => {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.admit() {
                tracing::warn!("{} gets no packets: {}{left_out}", peer.described(), problem.detail);
            }
            let _ = timeout(service.limits().stop_timeout, client.shutdown()).await;
            return;
        }
    };
    tracing::info!("{} reads packets as they come, and those of the last {:?}", peer.described(), what.past);
    let why = {
        let passing_on = pass_on(body, &mut client, &service);
        tokio::pin!(passing_on);
        tokio::select! {
            why = &mut passing_on => why,
            () = shutdown_requested(&mut shutdown) => {
                // So that the last packet is whole.
                service.stopping.store(true, Ordering::Relaxed);
                let _ = timeout(service.limits().stop_timeout, passing_on).await;
                "is disconnected, as the recorder stops".to_owned()
            }
        }
    };
    let _ = timeout(service.limits().stop_timeout, client.shutdown()).await;
    let why = if sent.is_revoked() { "may no longer read packets, and is disconnected" } else { &why };
    tracing::info!("{peer} {why}: {}", sent.text());
}

/// Begins the answer, if the client may have it and there is room.
async fn begin(peer: &Peer, service: &Arc<Service>, what: Feed) -> Result<(Body, Arc<FollowCounts>), Problem> {
    if !service.may_still(peer, Role::Packets) {
        let problem = Problem::forbidden(peer, Role::Packets);
        service.counters.roles_refused.fetch_add(1, Ordering::Relaxed);
        let (asked, peer, why) = (Arc::clone(service), peer.clone(), problem.detail.clone());
        let question = serde_json::json!({ "pcap_over_ip": true });
        http::blocking(service, move || asked.audit().refused(&peer, Action::Packets, question, &why)).await?;
        return Err(problem);
    }
    let refused = |problem: Problem| {
        service.counters.clients_refused.fetch_add(1, Ordering::Relaxed);
        problem
    };
    let follower = Arc::clone(&service.followers).try_acquire_owned();
    let follower = follower.map_err(|_| refused(Problem::busy("followers")))?;
    let place = service.packet_query().await.map_err(refused)?;
    // In the clear the whole port is left out of the recording; over TLS this connection is, now that it is known what it
    // will carry: who knocks and is refused is recorded like everybody else.
    let connection = peer.connection().filter(|_| !peer.is_loopback());
    let left_out = UnrecordedConnection::new(service, connection).map_err(refused)?;
    service.counters.packet_queries.fetch_add(1, Ordering::Relaxed);
    let query = what.query(service);
    let mut audited_question = audited_question(&query);
    audited_question["pcap_over_ip"] = true.into();
    let sent = Arc::new(FollowCounts::default());
    let live = Follower {
        export: Export { service: Arc::clone(service), query, scope: Scope::Matching },
        peer: peer.clone(),
        for_strict_readers: true,
        sent: Arc::clone(&sent),
    };
    let body = stream(service, place, move |sink| {
        let outcome = live.run_audited(sink, audited_question);
        drop((follower, left_out));
        outcome
    });
    Ok((body.await?, sent))
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
            let Ok(chunk) = frame.into_data() else { continue };
            // TLS would keep the end of a chunk that the socket does not take at once.
            let written = match writer.write_all(&chunk).await {
                Ok(()) => writer.flush().await,
                error => error,
            };
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let waited = service.limits().stall_timeout;
                    return format!("has taken next to nothing for {waited:?}, and is disconnected");
                }
                Err(_) => return "has gone".to_owned(),
            }
        }
        "has got everything".to_owned()
    };
    tokio::select! { why = heard => why, why = told => why }
}

impl FollowCounts {
    fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Relaxed)
    }

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
