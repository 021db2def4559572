//! A recording and a service for it.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use retrocap::formats::reader::FileSource;
use retrocap::formats::writer::{Exporter, Format, Options};
use retrocap::interface::Interfaces;
use retrocap::packet::{Direction, LinkType, Packet, PacketFlags};
use retrocap::pipeline::{Config, Pipeline};
use retrocap::query::{History, Memory};
use retrocap::serve::{Recorder, Service, ServiceLimits, serve};
use retrocap::source::{Batch, Source};
use retrocap::time::Timestamp;
use tokio::sync::watch;

/// The time of the first packet.
pub(super) const START_S: u64 = 1_000_000_000;

/// Builds a capture with one packet per second.
pub(super) struct Recording {
    bytes: Vec<u8>,
    exporter: Exporter,
    interfaces: Interfaces,
    packets: u64,
}

impl Default for Recording {
    fn default() -> Self {
        let mut recording = Self {
            bytes: Vec::new(),
            exporter: Exporter::new(Format::Pcapng, Options::default()),
            interfaces: Interfaces::default(),
            packets: 0,
        };
        recording.exporter.begin(&mut recording.bytes, &[]);
        recording
    }
}

impl Recording {
    fn packet(&mut self, interface: &str, link_type: LinkType, data: &[u8]) {
        let id = self.interfaces.intern(interface, 0, link_type).unwrap();
        let packet = Packet {
            time: Timestamp::from_unix(START_S + self.packets, 0),
            interface: id,
            link_type,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: u32::try_from(data.len()).unwrap(),
            drops_before: 0,
            data,
        };
        self.packets += 1;
        self.exporter.packet(&mut self.bytes, &self.interfaces.interface(id).unwrap(), &packet).unwrap();
    }

    /// Adds datagrams of one session.
    pub(super) fn udp(mut self, packets: u64, payload_bytes: usize) -> Self {
        let data = datagram([10, 0, 0, 1], 5353, payload_bytes);
        for _ in 0..packets {
            self.packet("eth0", LinkType::ETHERNET, &data);
        }
        self
    }

    /// Adds a packet of an interface with this name.
    pub(super) fn odd_interface(mut self, name: &str) -> Self {
        let data = datagram([10, 0, 0, 9], 9, 10);
        self.packet(name, LinkType::ETHERNET, &data);
        self
    }

    /// Adds large datagrams of eight sessions.
    pub(super) fn bulk(mut self, packets: u64) -> Self {
        let sessions: Vec<_> = (0..8).map(|host| datagram([10, 0, 1, host], 7000, 1400)).collect();
        for i in 0..packets {
            self.packet("eth0", LinkType::ETHERNET, &sessions[usize::try_from(i % 8).unwrap()]);
        }
        self
    }

    /// Adds five packets from 10.0.0.1:40000 to 10.0.0.2:80.
    pub(super) fn tcp_session(mut self) -> Self {
        let (client, server) = (([10, 0, 0, 1], 40000), ([10, 0, 0, 2], 80));
        for (from, to, syn, ack, sequence) in [
            (client, server, true, false, 0),
            (server, client, true, true, 0),
            (client, server, false, true, 1),
            (client, server, false, true, 1),
            (server, client, false, true, 1),
        ] {
            let mut tcp = ethernet(from.0, to.0).tcp(from.1, to.1, sequence, 1000);
            if syn {
                tcp = tcp.syn();
            }
            if ack {
                tcp = tcp.ack(1);
            }
            let mut data = Vec::new();
            tcp.write(&mut data, b"").unwrap();
            self.packet("eth0", LinkType::ETHERNET, &data);
        }
        self
    }

    /// Adds a datagram on an interface without a link layer.
    pub(super) fn other_link_type(mut self) -> Self {
        let data = datagram([10, 0, 0, 9], 5353, 100);
        self.packet("tun0", LinkType::RAW, &data[14..]);
        self
    }

    /// Returns the capture file.
    pub(super) fn file(mut self) -> Vec<u8> {
        self.exporter.end(&mut self.bytes, &[], &[]);
        self.bytes
    }
}

fn ethernet(from: [u8; 4], to: [u8; 4]) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4(from, to, 64)
}

fn datagram(from: [u8; 4], port: u16, payload_bytes: usize) -> Vec<u8> {
    let mut data = Vec::new();
    ethernet(from, [10, 0, 0, 2]).udp(port, 53).write(&mut data, &vec![0xa5; payload_bytes]).unwrap();
    data
}

/// The number of packets in a file, which must be complete.
pub(super) fn packets_in(file: &[u8]) -> usize {
    let mut source = FileSource::from_reader(Box::new(std::io::Cursor::new(file.to_vec())), Arc::default());
    let mut packets = 0;
    while source.batch(&mut |_| packets += 1).unwrap_or_else(|error| panic!("{error}")) != Batch::End {}
    packets
}

/// The number of packets in a file according to another tool.
pub(super) fn packets_by(tool: &str, file: &[u8]) -> usize {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(file).unwrap();
    let output = Command::new(tool).args(["-n", "-r"]).arg(on_disk.path()).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().count()
}

/// A service for a recording.
pub(super) struct Server {
    pub(super) socket: PathBuf,
    _directory: tempfile::TempDir,
    shutdown: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(recording: Recording) -> Self {
        Self::with(recording, ServiceLimits::default())
    }

    pub(super) fn with(recording: Recording, limits: ServiceLimits) -> Self {
        let interfaces = Arc::new(Interfaces::default());
        let mut pipeline =
            Pipeline::new(Config { pinned_bytes: 1 << 20, seed: 7, ..Config::new(1 << 20, 32 << 20) }).unwrap();
        let file = std::io::Cursor::new(recording.file());
        let mut source = FileSource::from_reader(Box::new(file), Arc::clone(&interfaces));
        pipeline.run(&mut source, &AtomicBool::new(false)).unwrap();
        let history = History {
            memory: Memory {
                budget_bytes: 40 << 20,
                rings_bytes: 0,
                queries_bytes: 2 << 20,
                compression_bytes: 0,
                spool_bytes: 0,
            },
            ..History::new(vec![pipeline.worker()], interfaces)
        };
        let recorder = Recorder {
            history: Arc::new(history),
            live: false,
            start: Timestamp::from_unix(START_S, 0),
            started: Instant::now(),
            recording: Arc::new(AtomicUsize::new(0)),
            queries_bytes: 2 << 20,
        };
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (shutdown, shutdown_requested) = watch::channel(false);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                serve(listener, Arc::new(Service::new(recorder, limits)), shutdown_requested).await;
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        Self { socket, _directory: directory, shutdown, thread: Some(thread) }
    }

    pub(super) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Requests a stop without waiting for it.
    pub(super) fn request_shutdown(&self) {
        self.shutdown.send(true).unwrap();
    }

    /// Waits for the end of the service.
    pub(super) fn wait_for_end(&mut self) {
        self.thread.take().unwrap().join().unwrap();
    }

    /// Waits for a line of the metrics.
    pub(super) fn wait_for(&self, line: &str) {
        let start = Instant::now();
        loop {
            let metrics = super::get(self, "/metrics").text();
            if metrics.lines().any(|there| there == line) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{line} does not come: {metrics}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl AsRef<Path> for Server {
    fn as_ref(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.shutdown.send(true);
        if let Some(thread) = self.thread.take() {
            let joined = thread.join();
            assert!(joined.is_ok() || std::thread::panicking());
        }
    }
}
