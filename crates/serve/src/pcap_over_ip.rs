//! PCAP-over-IP: a capture as a bare stream over TCP or TLS, first some of the past, then packets as they arrive.
//!
//! There is no request: a client is sent the header of the file at once, and what it sends is ignored. Every stream is a
//! follower like those of the HTTP API, with the same limits: a share of places, two chunks on their way, and an end when
//! the client takes less than the minimum rate ([`ServiceLimits::stall_timeout`](super::ServiceLimits::stall_timeout)).
//!
//! In the clear it is served on loopback addresses alone, where every user of the host may read; the audit log has the user
//! of each connection. Over TLS a client needs the role `packets`, from its certificate or the configuration.
//! `connections.rs` accepts and limits connections.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::answer::follow::{FollowCounts, Follower, UnrecordedConnection, audited};
use super::answer::packets::{Export, Scope};
use super::answer::stream::{AnswerPart, Body};
use super::audit::Action;
use super::clock::now;
use super::counters::count;
use super::minimum_rate::MinimumRate;
use super::peer::Peer;
use super::service::Service;
use super::shutdown::shutdown_requested;
use api::parameters::PacketQuery;
use api::{Problem, Role};
use base::log_limit::LogLimit;
use base::time::Timestamp;
use formats::writer::{Format, Precision};
use query::Request;

/// Bytes that a client may send; they are ignored.
const READ_BYTES_MAX: usize = 64 << 10;

/// How often a client that has ended its side is polled.
const SILENT_INTERVAL: Duration = Duration::from_secs(5);

/// What clients are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feed {
    /// How much of the past is sent first.
    pub past: Duration,
    /// In which format.
    pub format: Format,
    /// The resolution of times.
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
            app: None,
            seal: false,
        }
    }
}

/// Sends a client packets as long as it takes them.
pub(crate) async fn feed<S: AsyncRead + AsyncWrite + Unpin>(
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
                tracing::warn!("{} gets no packets: {}{left_out}", peer.described(), problem.detail.log());
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

/// Begins the answer, if the client has the role and there is room.
async fn begin(peer: &Peer, service: &Arc<Service>, what: Feed) -> Result<(Body, Arc<FollowCounts>), Problem> {
    if !service.may_still(peer, Role::Packets) {
        let problem = Problem::forbidden(&peer.to_string(), peer.roles(), Role::Packets);
        count(&service.counters.roles_refused);
        let (asked, peer, why) = (Arc::clone(service), peer.clone(), problem.detail.clone());
        let question = serde_json::json!({ "pcap_over_ip": true });
        service.blocking(move || asked.audit().refused(&peer, Action::Packets, question, why.untrusted())).await?;
        return Err(problem);
    }
    let refused = |problem: Problem| {
        count(&service.counters.clients_refused);
        problem
    };
    let shares = service.follower_at_once(peer).await.map_err(refused)?;
    // In the clear the whole port is excluded from the recording; over TLS this connection is, now that it is known what
    // it will carry: a client that is refused is recorded like all others.
    let connection = peer.connection().filter(|_| !peer.is_loopback());
    let excluded = UnrecordedConnection::new(service, connection).map_err(refused)?;
    let query = what.query(service);
    let mut audited = audited(&query);
    audited["pcap_over_ip"] = true.into();
    let sent = Arc::new(FollowCounts::default());
    let follower = Follower {
        export: Export { service: Arc::clone(service), query, scope: Scope::Matching },
        peer: peer.clone(),
        for_strict_readers: true,
        sent: Arc::clone(&sent),
        is_ended: Arc::default(),
    };
    Ok((follower.stream(shares, excluded, audited).await?, sent))
}

/// Writes the body to the client; says how that ended.
async fn pass_on<S: AsyncRead + AsyncWrite + Unpin>(mut body: Body, client: &mut S, service: &Service) -> String {
    let (mut reader, mut writer) = tokio::io::split(client);
    let heard = async {
        let mut bytes = [0; 512];
        let mut heard = 0;
        loop {
            match reader.read(&mut bytes).await {
                // It has ended its side, but may still read.
                Ok(0) => sleep(SILENT_INTERVAL).await,
                Err(_) => return "has gone".to_owned(),
                Ok(count) => heard += count,
            }
            if heard > READ_BYTES_MAX {
                return "sends data instead of reading, and is disconnected".to_owned();
            }
        }
    };
    let shutdown_requested = async {
        while let Some(AnswerPart::Data(chunk)) = body.part().await {
            // TLS would keep the end of a chunk that the socket does not take at once.
            let written = match writer.write_all(&chunk).await {
                Ok(()) => writer.flush().await,
                error => error,
            };
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let waited = service.limits().stall_timeout;
                    return format!("has read too slowly for {waited:?}, and is disconnected");
                }
                Err(_) => return "has gone".to_owned(),
            }
        }
        "has got everything".to_owned()
    };
    tokio::select! { why = heard => why, why = shutdown_requested => why }
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
