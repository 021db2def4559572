//! `retrocap push`: sends packets as they come to a listening program (PCAP-over-IP in the other direction).
//!
//! When the listener disconnects, push waits until it is back and resumes where it stopped. Packets of the connection
//! itself must not be sent, because each would cause further ones. The recorder does not record them if this user may
//! ask for that; otherwise the filter leaves them out.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use hyper::StatusCode;
use jiff::tz::TimeZone;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::rustls::AlertDescription;

use crate::client::stream::Stream;
use crate::client::tls::{ConnectionLost, Peer, Tls, alert};
use crate::client::{self, Answer, Interrupt, RefusedRequest};
use crate::error::Usage;
use crate::options::Common;
use crate::terminal::human;
use crate::terminal::printable::note;
use crate::verbs::interfaces::Interfaces as ListInterfaces;
use crate::verbs::selection::Selection;
use crate::verbs::trailers;
use api::path;
use api::question::{ExportQuestion, PacketsQuestion};
use base::interface::Interfaces;
use base::packet::LinkType;
use base::source::{Batch, Source as _};
use base::time::Timestamp;
use daemon::settings::FeedFormat;
use formats::reader::FileSource;
use formats::writer::Options;
use formats::writer::one_link_type::FittingExporter;
use query::status::Status;

/// Pause between attempts to connect.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a listener may read nothing.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes per write, each of which must be done within [`STALL_TIMEOUT`].
const PIECE_BYTES: usize = 64 << 10;
/// How long to wait for the reason of a disconnect.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// Send packets as they come to a program that listens for them: NetworkMiner, Arkime, netcat
#[derive(Debug, Args)]
#[command(after_help = "\
Without --since, push begins with the next packet. If the listener goes away, push waits until it is back.

Examples:
  retrocap push 127.0.0.1:57012                       to a listener on this host
  retrocap push --since 1h 127.0.0.1:57012 not port 22     the last hour, then new packets
  retrocap push --tls sensor2.example:57013           to another host, over TLS with certificates on both sides
  retrocap push --plain 10.0.0.9:57012                to another host, unencrypted")]
pub(crate) struct Push {
    /// Address of the listener
    #[arg(value_name = "HOST:PORT", required_unless_present_any = ["list", "read"])]
    listener: Option<String>,
    #[command(flatten)]
    selection: Selection,
    /// End after N packets
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Format of the stream
    #[arg(long, default_value = "pcap", value_parser = feed_format())]
    format: FeedFormat,
    /// Send over TLS: verify the listener with --ca, and authenticate with --cert
    #[arg(long)]
    tls: bool,
    /// Send to another host unencrypted; everybody on the path can read the packets
    #[arg(long, conflicts_with = "tls")]
    plain: bool,
}

fn feed_format() -> impl clap::builder::TypedValueParser<Value = FeedFormat> {
    PossibleValuesParser::new(FeedFormat::WORDS).try_map(|word| word.parse::<FeedFormat>())
}

/// The packets sent so far.
#[derive(Debug, Default)]
struct SendProgress {
    packets: u64,
    left_out: u64,
    /// The time of the last packet, and the number of packets with that time.
    last: Option<(Timestamp, u64)>,
}

/// Why a connection to the listener ended.
enum Ended {
    /// All packets were sent.
    Well,
    /// The listener disconnected or stalled, for this reason.
    Listener(String),
}

/// A connection to the listener.
struct Connection {
    runtime: Runtime,
    writer: WriteHalf<Box<dyn Stream>>,
    reader: Option<ReadHalf<Box<dyn Stream>>>,
    /// A task that ends when the listener disconnects, with the error if there was one.
    listening: Option<JoinHandle<Option<std::io::Error>>>,
    ours: SocketAddr,
    theirs: SocketAddr,
}

impl Push {
    fn listener(&self) -> &str {
        self.listener.as_deref().unwrap_or_default()
    }

    /// Sends packets until `--count`, `--until` or a signal ends it.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        if self.selection.habits.lists_interfaces() {
            return ListInterfaces::all().run(common);
        }
        if let Some(file) = self.selection.read.first() {
            return Err(Usage::of(format_args!(
                "push sends packets of a recorder, not of a file; to send a file, try retrocap get -r {} --format pcap -w - \
                 | nc 127.0.0.1 57012",
                file.display()
            )));
        }
        if self.selection.spool().is_some() || self.selection.archive.archive.is_some() {
            return Err(Usage::of(
                "push sends packets of a recorder: try retrocap get --spool DIR -w - | nc 127.0.0.1 57012",
            ));
        }
        self.selection.habits.check_no_lines("push sends packets to a program and prints none; try get -X")?;
        let (now, tz) = (Timestamp::from(std::time::SystemTime::now()), TimeZone::system());
        let mut selection = self.selection.clone();
        selection.ahead(now, &tz)?;
        if !selection.has_start() {
            selection.begin(now);
        }
        // Check the selection before connecting to anybody.
        selection.question(None, now, &tz)?;
        let tls = if self.tls { Some(Tls::new(&common.files(), Peer::Listener)?) } else { None };
        let link_type = self.link_type(common)?;
        let mut sent = SendProgress::default();
        loop {
            let mut connection = self.connect(tls.as_ref())?;
            let ended = self.send(common, &selection, &mut connection, link_type, &mut sent)?;
            // A refusal may arrive after all packets were sent, because a TLS 1.3 client does not wait for it.
            if let Some(tls) = &tls
                && let Some(alert) = connection.alert()
            {
                return Err(tls.alerted(self.listener(), alert));
            }
            match ended {
                Ended::Well => {
                    if !common.quiet {
                        note(&sent.text(self.listener()));
                    }
                    return Ok(());
                }
                Ended::Listener(why) => {
                    note(&format!(
                        "retrocap: the listener {} {why} after {}; packets in transit at that moment are lost. Waiting until it is back",
                        self.listener(),
                        human::counted(sent.packets, "packet")
                    ));
                    std::thread::sleep(RETRY_INTERVAL);
                }
            }
        }
    }

    /// The link type of a pcap stream, whose header precedes the first packet.
    fn link_type(&self, common: &Common) -> anyhow::Result<LinkType> {
        let status = client::get(common, path::STATUS)?.document()?;
        let status: Status = serde_json::from_str(&status).context("cannot read the recorder's status")?;
        let ethernet = LinkType::ETHERNET.to_string();
        let names: Vec<&str> = status.interfaces.iter().map(|interface| interface.link_type.untrusted()).collect();
        let only_ip = !names.is_empty() && !names.contains(&ethernet.as_str());
        Ok(if only_ip { LinkType::RAW } else { LinkType::ETHERNET })
    }

    /// Resolves the listener's addresses. Returns an error if cleartext to another host was not allowed.
    fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let addresses: Vec<SocketAddr> = match self.listener().to_socket_addrs() {
            Ok(addresses) => addresses.collect(),
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                return Err(Usage::of(format_args!(
                    "cannot read the listener {:?}: try 127.0.0.1:57012",
                    self.listener()
                )));
            }
            Err(error) => return Err(error).with_context(|| format!("cannot find {}", self.listener())),
        };
        let local = addresses.iter().all(|address| address.ip().to_canonical().is_loopback());
        if !self.plain && !self.tls && !local {
            return Err(Usage::of(format_args!(
                "packets would cross the network to {0} unencrypted: use --tls, or push into a tunnel, as in `ssh -L \
                 57012:{0} HOST` and `retrocap push 127.0.0.1:57012`, or allow it with --plain",
                self.listener()
            )));
        }
        Ok(addresses)
    }

    /// Connects to the listener, and retries until it is there.
    fn connect(&self, tls: Option<&Tls>) -> anyhow::Result<Connection> {
        // A second thread notices a disconnect while this thread waits for packets.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("cannot start")?;
        let host = self.listener().rsplit_once(':').map_or(self.listener(), |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let mut waiting = false;
        loop {
            let addresses = self.addresses()?;
            let connected: anyhow::Result<ConnectOutcome> = runtime.block_on(async {
                let stream = match connect(&addresses).await {
                    Ok(stream) => stream,
                    Err(error) => return Ok(ConnectOutcome::Later(format!("does not listen ({error})"))),
                };
                let (ours, theirs) = (stream.local_addr()?, stream.peer_addr()?);
                let Some(tls) = tls else { return Ok(ConnectOutcome::Done(Box::new(stream), ours, theirs)) };
                match tls.connect(host, self.listener(), stream).await {
                    Ok(stream) => Ok(ConnectOutcome::Done(Box::new(stream), ours, theirs)),
                    Err(error) if error.is::<ConnectionLost>() => {
                        Ok(ConnectOutcome::Later(format!("is not ready ({error})")))
                    }
                    Err(error) => Err(error),
                }
            });
            let why = match connected? {
                ConnectOutcome::Done(stream, ours, theirs) => {
                    let (reader, writer) = tokio::io::split(stream);
                    return Ok(Connection { runtime, writer, reader: Some(reader), listening: None, ours, theirs });
                }
                ConnectOutcome::Later(why) => why,
            };
            if !std::mem::replace(&mut waiting, true) {
                note(&format!("retrocap: the listener {} {why}; waiting until it listens", self.listener()));
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
    }

    /// Sends packets over one connection.
    fn send(
        &self,
        common: &Common,
        selection: &Selection,
        connection: &mut Connection,
        link_type: LinkType,
        sent: &mut SendProgress,
    ) -> anyhow::Result<Ended> {
        let mut answer = self.ask(common, selection, (connection.ours, connection.theirs), sent)?;
        let (trailers, gone) = (answer.trailers(), answer.interruption());
        connection.listen(gone.clone());
        let (format, precision) = self.format.format();
        let options = Options { precision, link_type: Some(link_type), ..Options::default() };
        let mut exporter = FittingExporter::new(format, options).for_strict_readers();
        let interfaces = Arc::new(Interfaces::default());
        let mut source = FileSource::from_reader(Box::new(answer), Arc::clone(&interfaces));
        let mut out = Vec::new();
        exporter.begin(&mut out, &[]);
        let mut skip = sent.last.map_or(0, |(_, count)| count);
        let (resumed, before) = (sent.last.map(|(time, _)| time), sent.left_out);
        loop {
            if let Err(error) = connection.write(&out) {
                let stalled = error.kind() == ErrorKind::TimedOut;
                let stalled = stalled.then(|| format!("has read nothing for {STALL_TIMEOUT:?}"));
                return Ok(Ended::Listener(stalled.unwrap_or_else(|| "has gone".to_owned())));
            }
            out.clear();
            let batch = source.batch(&mut |packet| {
                // Skip packets that the previous connection sent.
                if skip > 0 && Some(packet.time) == resumed {
                    skip -= 1;
                    return;
                }
                let Some(interface) = interfaces.interface(packet.interface) else { return };
                if exporter.packet(&mut out, &interface, packet, None) {
                    sent.packets += 1;
                }
                sent.last = Some(match sent.last {
                    Some((time, count)) if time == packet.time => (time, count + 1),
                    _ => (packet.time, 1),
                });
                sent.left_out = before + exporter.left_out();
            });
            if gone.is_interrupted() {
                return Ok(Ended::Listener("has gone".to_owned()));
            }
            if batch? == Batch::End {
                connection.write(&out).context("cannot send the last packets")?;
                connection.end();
                trailers::complete(&trailers)?;
                return Ok(Ended::Well);
            }
        }
    }

    /// Requests packets from the last one sent on, without those of the connection itself.
    fn ask(
        &self,
        common: &Common,
        selection: &Selection,
        (ours, theirs): (SocketAddr, SocketAddr),
        sent: &SendProgress,
    ) -> anyhow::Result<Answer> {
        let (now, tz) = (Timestamp::from(std::time::SystemTime::now()), TimeZone::system());
        let mut selection = selection.clone();
        if let Some((time, _)) = sent.last {
            selection.begin(time);
        }
        // The recorder also counts the packets that are skipped.
        let again = sent.last.map_or(0, |(_, count)| count);
        let left = self.count.map(|count| count.saturating_sub(sent.packets).max(1) + again);
        let export =
            ExportQuestion { follow: Some(true), count: left.and_then(NonZeroU64::new), ..ExportQuestion::default() };
        let target = |selection: &Selection, export| {
            let selection = selection.question(None, now, &tz)?;
            Ok::<_, anyhow::Error>(PacketsQuestion { selection, export }.target())
        };
        let carried_by = Some(format!("{ours} {theirs}"));
        let carried = target(&selection, ExportQuestion { carried_by, ..export.clone() })?;
        match client::get(common, &carried) {
            Err(error) if error.downcast_ref::<RefusedRequest>().is_some_and(|r| r.status == StatusCode::FORBIDDEN) => {
                if !common.quiet {
                    note(
                        "retrocap: the recorder also records this connection, because only root can exclude it; its packets are not sent",
                    );
                }
                selection.and(&not_between(ours, theirs));
                client::get(common, &target(&selection, export)?)
            }
            answer => answer,
        }
    }
}

/// The outcome of an attempt to connect.
enum ConnectOutcome {
    Done(Box<dyn Stream>, SocketAddr, SocketAddr),
    /// Retry later; the reason why it failed.
    Later(String),
}

async fn connect(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(ErrorKind::NotFound, "it has no address");
    for address in addresses {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

impl Connection {
    /// Interrupts `answer` when the listener disconnects. Bytes from the listener are ignored.
    fn listen(&mut self, answer: Interrupt) {
        let Some(mut reader) = self.reader.take() else { return };
        self.listening = Some(self.runtime.spawn(async move {
            let mut ignored = [0; 512];
            let error = loop {
                match reader.read(&mut ignored).await {
                    Ok(0) => break None,
                    Ok(_) => {}
                    Err(error) => break Some(error),
                }
            };
            answer.interrupt();
            error
        }));
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let writer = &mut self.writer;
        self.runtime.block_on(async {
            for piece in bytes.chunks(PIECE_BYTES) {
                timeout(STALL_TIMEOUT, async {
                    writer.write_all(piece).await?;
                    // Flush, because TLS buffers what the socket does not take at once.
                    writer.flush().await
                })
                .await
                .unwrap_or(Err(ErrorKind::TimedOut.into()))?;
            }
            Ok(())
        })
    }

    /// Shuts the connection down.
    fn end(&mut self) {
        let writer = &mut self.writer;
        let _ = self.runtime.block_on(async { timeout(STALL_TIMEOUT, writer.shutdown()).await });
    }

    /// The TLS alert with which the listener disconnected, if any.
    fn alert(&mut self) -> Option<AlertDescription> {
        let listening = self.listening.take()?;
        let error = self.runtime.block_on(async { timeout(REASON_TIMEOUT, listening).await.ok()?.ok()? });
        alert(&error?)
    }
}

/// A tcpdump expression that excludes one TCP connection.
fn not_between(ours: SocketAddr, theirs: SocketAddr) -> String {
    let host = |ip: IpAddr| ip.to_canonical();
    format!(
        "not (tcp and host {} and host {} and port {} and port {})",
        host(ours.ip()),
        host(theirs.ip()),
        ours.port(),
        theirs.port()
    )
}

impl SendProgress {
    /// The summary: `12 packets, 3 left out because their link type does not fit -> 127.0.0.1:57012`.
    fn text(&self, listener: &str) -> String {
        let left_out = match self.left_out {
            0 => String::new(),
            count => format!(", {count} left out because their link type does not fit: try --format pcapng"),
        };
        format!("{}{left_out} -> {listener}", human::counted(self.packets, "packet"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use filter::FilterSet;

    #[test]
    fn the_connection_is_left_out_by_an_expression_that_compiles() {
        for (ours, theirs) in [("10.0.0.1:4000", "10.0.0.2:57012"), ("[::1]:4000", "[::1]:57012")] {
            let expression = not_between(ours.parse().unwrap(), theirs.parse().unwrap());
            assert!(FilterSet::for_link_types(&expression, &[LinkType::ETHERNET]).is_ok(), "{expression}");
        }
    }
}
