//! The log of sessions: rows that add up, files that are whole or absent, and rows that are removed on purpose.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base::interface::Interfaces;
use base::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use base::source::{Batch, Source, SourceCounts, SourceError};
use base::time::Timestamp;
use engine::pipeline::{Config, Pipeline};
use query::History;
use query::logged::{LoggedSession, SessionLog as _};
use sessionlog::collect::{Collector, Due};
use sessionlog::rewrite::remove_rows;
use sessionlog::row::{HOUR_NS, Observer, hour};
use sessionlog::shared::SharedLog;
use sessionlog::tree::LogTree;
use sessionlog::writer::LogWriter;
use spool::encryption::Keys;

const SECOND_NS: u64 = 1_000_000_000;
/// The start of an hour.
const START: u64 = 500_000 * HOUR_NS;

/// A packet: time, host, port and bytes of payload.
type Sent = (u64, u8, u16, usize);

/// A UDP datagram from 10.0.0.`host` to 10.1.0.1.
fn datagram(host: u8, port: u16, payload: usize) -> Vec<u8> {
    let mut frame = vec![2; 12];
    let len = u16::try_from(28 + payload).unwrap();
    frame.extend_from_slice(&[8, 0, 0x45, 0]);
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, host, 10, 1, 0, 1]);
    frame.extend_from_slice(&port.to_be_bytes());
    frame.extend_from_slice(&9000u16.to_be_bytes());
    frame.extend_from_slice(&(len - 20).to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.resize(frame.len() + payload, 7);
    frame
}

/// Packets as a source.
struct Packets<'a> {
    packets: &'a [Sent],
    interface: InterfaceId,
}

impl Source for Packets<'_> {
    fn bursts(&mut self, each: &mut impl FnMut(&[Packet<'_>])) -> Result<Batch, SourceError> {
        for (time, host, port, payload) in self.packets {
            let data = datagram(*host, *port, *payload);
            each(&[Packet {
                time: Timestamp(*time),
                interface: self.interface,
                link_type: LinkType::ETHERNET,
                direction: Direction::Unknown,
                flags: PacketFlags::default(),
                original_len: u32::try_from(data.len()).unwrap(),
                drops_before: 0,
                data: &data,
            }]);
        }
        Ok(Batch::End)
    }

    fn counts(&self) -> SourceCounts {
        SourceCounts::default()
    }
}

struct Recorder {
    pipeline: Pipeline,
    interface: InterfaceId,
    history: Arc<History>,
}

impl Recorder {
    fn new() -> Self {
        let interfaces = Arc::<Interfaces>::default();
        let interface = interfaces.intern("eth0", 0, LinkType::ETHERNET).unwrap();
        let pipeline = Pipeline::new(Config { seed: 5, ..Config::new(2 << 20, 4 << 20) }).unwrap();
        let history = Arc::new(History::new(vec![pipeline.worker()], interfaces));
        Self { pipeline, interface, history }
    }

    fn record(&mut self, packets: &[Sent]) {
        let mut source = Packets { packets, interface: self.interface };
        self.pipeline.run(&mut source, &AtomicBool::new(false)).unwrap();
    }
}

struct Log {
    directory: tempfile::TempDir,
    shared: Arc<SharedLog>,
    writer: LogWriter,
}

impl Log {
    fn new(interfaces: &Arc<Interfaces>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shared = Self::open(&directory, interfaces);
        let observer = Observer { hostname: "host".into(), with_community_id: true, ..Observer::default() };
        let writer = LogWriter::open(Arc::clone(&shared), observer).unwrap();
        Self { directory, shared, writer }
    }

    fn open(directory: &tempfile::TempDir, interfaces: &Arc<Interfaces>) -> Arc<SharedLog> {
        let tree = LogTree::new(std::fs::File::open(directory.path()).unwrap().into(), Keys::none());
        tree.prepare(None).unwrap();
        Arc::new(SharedLog::new(Arc::new(tree), Arc::clone(interfaces)))
    }

    fn look(&mut self, collector: &mut Collector, now: u64, ends: Option<u64>) {
        let due = if ends.is_some() { Due::Hour } else { Due::Ended };
        collector.look(Timestamp(now), due, &mut |row| {
            let hour = LogWriter::hour_of(&row, ends);
            self.writer.put(row, hour, Timestamp(now));
        });
        if ends.is_some() {
            self.writer.close();
        }
        assert_eq!(self.writer.counts().problem, None);
    }

    fn rows(&self) -> Vec<LoggedSession> {
        let mut rows = Vec::new();
        let read = self.shared.read((Timestamp::MIN, Timestamp::MAX), &mut |row| {
            rows.push(row);
            true
        });
        assert_eq!(read.failed, 0);
        rows
    }

    fn files(&self) -> Vec<String> {
        self.shared.files().iter().map(|file| file.path.clone()).collect()
    }
}

/// Sessions of three hours: short ones, and some that go on over the ends of hours, with pauses below their timeout.
fn traffic() -> Vec<Sent> {
    let mut packets = Vec::new();
    for second in 0..3 * 3600u64 {
        let at = START + second * SECOND_NS;
        if second % 3 == 0 {
            let number = u16::try_from(second / 3).unwrap();
            packets.push((at, 1, 10_000 + number, 10));
            packets.push((at + 1000, 1, 10_000 + number, 30));
        }
        if second % 50 == 7 {
            packets.push((at + 5, 2, 1000, 200));
        }
        // Talks for a while, pauses for more than its timeout, and so begins anew.
        if second % 200 < 90 && second % 10 == 0 {
            packets.push((at + 9, 3, 2000, 400));
        }
    }
    packets.sort_unstable();
    packets
}

/// Packets and bytes that a host sent.
fn sent(packets: &[Sent]) -> HashMap<u8, (u64, u64)> {
    let mut sums = HashMap::new();
    for (_, host, _, payload) in packets {
        let sum: &mut (u64, u64) = sums.entry(*host).or_default();
        *sum = (sum.0 + 1, sum.1 + 42 + *payload as u64);
    }
    sums
}

fn host(row: &LoggedSession) -> u8 {
    match row.session.originator().ip {
        Some(std::net::IpAddr::V4(ip)) => ip.octets()[3],
        other => panic!("{other:?}"),
    }
}

/// The same of the rows: without what earlier rows of a session had.
fn logged(rows: &[LoggedSession]) -> HashMap<u8, (u64, u64)> {
    let mut sums = HashMap::new();
    for row in rows {
        let sum: &mut (u64, u64) = sums.entry(host(row)).or_default();
        sum.0 += row.session.packets.sum() - row.earlier[0].sum();
        sum.1 += row.session.bytes.sum() - row.earlier[1].sum();
    }
    sums
}

/// Records the traffic, looks each minute, and ends each hour.
fn record(recorder: &mut Recorder, log: &mut Log, packets: &[Sent], remembered_max: usize) -> Collector {
    let mut collector = Collector::new(Arc::clone(&recorder.history), remembered_max, Timestamp(START));
    let mut left = packets;
    for minute in 1..=3 * 60 {
        let now = START + minute * 60 * SECOND_NS;
        let (before, after) = left.split_at(left.partition_point(|packet| packet.0 < now));
        recorder.record(before);
        left = after;
        let ends = minute.is_multiple_of(60).then(|| hour(Timestamp(now)) - 1);
        log.look(&mut collector, now, ends);
    }
    collector
}

#[test]
fn rows_of_all_hours_add_up_to_what_was_sent() {
    let packets = traffic();
    let (mut recorder, expected) = (Recorder::new(), sent(&packets));
    let mut log = Log::new(&recorder.history.interfaces);
    let mut collector = record(&mut recorder, &mut log, &packets, 10_000);
    assert_eq!(collector.take_missed(), 0, "sessions of this test do not leave memory");
    let rows = log.rows();
    assert_eq!(logged(&rows), expected);
    assert_eq!(log.files().len(), 3, "{:?}", log.files());
    assert_eq!(collector.waiting(), 0);
    // The session that goes on has a row in each hour, and the last one has its totals.
    let long: Vec<&LoggedSession> = rows.iter().filter(|row| host(row) == 2).collect();
    assert_eq!(long.len(), 3);
    assert_eq!(long[2].session.packets.originator, 3 * 72);
    assert!(long.iter().all(|row| row.is_open));
    // Short sessions have one row each.
    assert_eq!(rows.iter().filter(|row| host(row) == 1).count(), 3600);
}

#[test]
fn a_session_without_room_in_memory_waits_for_its_end_and_nothing_is_counted_twice() {
    let packets = traffic();
    let (mut recorder, expected) = (Recorder::new(), sent(&packets));
    let mut log = Log::new(&recorder.history.interfaces);
    let mut collector = record(&mut recorder, &mut log, &packets, 0);
    assert!(collector.waiting() > 0);
    // Everything ends.
    let later = START + 4 * HOUR_NS;
    recorder.record(&[(later, 9, 1, 1)]);
    log.look(&mut collector, later + 400 * SECOND_NS, Some(hour(Timestamp(later))));
    let mut sums = logged(&log.rows());
    sums.remove(&9);
    assert_eq!(sums, expected);
}

#[test]
fn a_recorder_that_takes_over_continues_the_rows_of_the_one_before() {
    let packets = traffic();
    let (mut recorder, expected) = (Recorder::new(), sent(&packets));
    let mut log = Log::new(&recorder.history.interfaces);
    let half = START + 90 * 60 * SECOND_NS;
    let (before, after) = packets.split_at(packets.partition_point(|packet| packet.0 < half));
    let mut collector = Collector::new(Arc::clone(&recorder.history), 10_000, Timestamp(START));
    recorder.record(before);
    log.look(&mut collector, half, Some(hour(Timestamp(half))));
    // The next one finds the same sessions in memory.
    let mut collector = Collector::new(Arc::clone(&recorder.history), 10_000, Timestamp(half));
    recorder.record(after);
    let end = START + 3 * HOUR_NS;
    log.look(&mut collector, end, Some(hour(Timestamp(end)) - 1));
    assert_eq!(logged(&log.rows()), expected);
}

#[test]
fn a_file_is_whole_or_absent_and_damage_is_found() {
    let packets = traffic();
    let mut recorder = Recorder::new();
    let mut log = Log::new(&recorder.history.interfaces);
    record(&mut recorder, &mut log, &packets, 10_000);
    let files = log.files();
    let path = |name: &str| log.directory.path().join(name);
    // What a crash leaves of a file.
    let unfinished = path("sessions/date=2027-01-15/hour=08/sessions-1.tmp");
    std::fs::create_dir_all(unfinished.parent().unwrap()).unwrap();
    std::fs::write(&unfinished, b"PAR1 and not more").unwrap();
    let foreign = path("sessions/notes.txt");
    std::fs::write(&foreign, b"of somebody else").unwrap();
    let mut bytes = std::fs::read(path(&files[1])).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path(&files[1]), bytes).unwrap();

    let shared = Log::open(&log.directory, &recorder.history.interfaces);
    LogWriter::open(Arc::clone(&shared), Observer::default()).unwrap();
    assert!(!unfinished.exists() && foreign.exists());
    let mut rows = 0;
    let read = shared.read((Timestamp::MIN, Timestamp::MAX), &mut |_| {
        rows += 1;
        true
    });
    assert_eq!((read.files, read.failed), (2, 1));
    assert!(rows > 2000, "{rows} rows");
    let hour = shared.files()[2].times();
    let read = shared.read(hour, &mut |_| true);
    assert_eq!((read.files, read.failed), (1, 1), "only the hour that is asked for is read, and the one before");
}

#[test]
fn old_hours_are_removed_first_and_their_directories_with_them() {
    let packets = traffic();
    let mut recorder = Recorder::new();
    let mut log = Log::new(&recorder.history.interfaces);
    record(&mut recorder, &mut log, &packets, 10_000);
    let files = log.files();
    let bytes = log.writer.bytes();
    assert!(log.writer.shrink(bytes), "there is nothing to remove");
    assert_eq!(log.files().len(), 3);
    assert!(log.writer.shrink(bytes - 1));
    assert_eq!(log.files(), files[1..]);
    assert!(!log.directory.path().join(&files[0]).parent().unwrap().exists());
    assert!(log.writer.remove_oldest() && log.writer.remove_oldest());
    assert!(!log.writer.remove_oldest() && log.files().is_empty());
    assert_eq!(std::fs::read_dir(log.directory.path().join("sessions")).unwrap().count(), 0);
}

#[test]
fn removed_rows_are_gone_and_the_others_are_unchanged() {
    let packets = traffic();
    let mut recorder = Recorder::new();
    let mut log = Log::new(&recorder.history.interfaces);
    record(&mut recorder, &mut log, &packets, 10_000);
    let before = log.rows();
    let now = Timestamp(START + 4 * HOUR_NS);
    let removal = remove_rows(log.shared.tree(), now, &mut |row| host(row) == 3).unwrap();
    assert_eq!(removal.rewritten, 3);
    log.shared.publish(log.shared.tree().list().unwrap());
    let after = log.rows();
    assert_eq!(removal.rows, (before.len() - after.len()) as u64);
    let others: Vec<String> = before.iter().filter(|row| host(row) != 3).map(|row| format!("{row:?}")).collect();
    assert_eq!(after.iter().map(|row| format!("{row:?}")).collect::<Vec<_>>(), others);
    let removal = remove_rows(log.shared.tree(), now, &mut |_| true).unwrap();
    assert_eq!((removal.removed, removal.rewritten), (3, 0));
}

#[test]
fn nothing_is_written_twice_while_sessions_leave_memory() {
    // Far more sessions than the table has room for, which are archived while the collector reads.
    let packets: Vec<Sent> = (0..120_000u64)
        .map(|number| {
            let port = u16::try_from(number % 60_000).unwrap();
            (START + number * 20_000_000, u8::try_from(number / 60_000).unwrap(), port, 8)
        })
        .collect();
    let mut recorder = Recorder::new();
    let mut log = Log::new(&recorder.history.interfaces);
    let history = Arc::clone(&recorder.history);
    let mut collector = Collector::new(Arc::clone(&history), 1000, Timestamp(START));
    let mut missed = 0;
    std::thread::scope(|scope| {
        let recording = scope.spawn(|| packets.chunks(2000).for_each(|some| recorder.record(some)));
        while !recording.is_finished() {
            let now = history.totals().newest.unwrap_or_default();
            log.look(&mut collector, now.0, None);
        }
    });
    let end = packets.last().unwrap().0;
    collector.look(Timestamp(end), Due::All, &mut |row| {
        let hour = LogWriter::hour_of(&row, None);
        log.writer.put(row, hour, Timestamp(end));
    });
    log.writer.close();
    missed += collector.take_missed();
    let mut rows: HashMap<(u8, u16), u64> = HashMap::new();
    for row in log.rows() {
        *rows.entry((host(&row), row.session.originator().port)).or_default() += row.session.packets.sum();
    }
    let twice: Vec<_> = rows.iter().filter(|(_, packets)| **packets != 1).take(5).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(rows.len() as u64 + missed >= 120_000, "{} rows, {missed} missed", rows.len());
    assert!(rows.len() > 1000, "{} rows, {missed} missed", rows.len());
}

#[test]
fn a_session_that_waited_is_found_by_the_hours_before_its_row() {
    let packets = traffic();
    let mut recorder = Recorder::new();
    let mut log = Log::new(&recorder.history.interfaces);
    let mut collector = record(&mut recorder, &mut log, &packets, 0);
    let later = START + 4 * HOUR_NS;
    recorder.record(&[(later, 9, 1, 1)]);
    log.look(&mut collector, later + 400 * SECOND_NS, Some(hour(Timestamp(later))));
    // The session of host 2 has one row, in its last hour.
    let first_hour = (Timestamp(START), Timestamp(START + HOUR_NS / 2));
    for shared in [Arc::clone(&log.shared), reopened(&log, &recorder)] {
        let mut hosts = Vec::new();
        shared.read(first_hour, &mut |row| {
            hosts.push(host(&row));
            true
        });
        assert_eq!(hosts.iter().filter(|host| **host == 2).count(), 1, "{hosts:?}");
    }
}

/// The same log, as the next recorder finds it.
fn reopened(log: &Log, recorder: &Recorder) -> Arc<SharedLog> {
    let shared = Log::open(&log.directory, &recorder.history.interfaces);
    LogWriter::open(Arc::clone(&shared), Observer::default()).unwrap();
    shared
}

#[test]
fn a_removal_that_a_crash_interrupts_doubles_no_row() {
    let packets = traffic();
    let mut recorder = Recorder::new();
    let mut log = Log::new(&recorder.history.interfaces);
    record(&mut recorder, &mut log, &packets, 10_000);
    let before = log.rows().len();
    let old = log.files()[1].clone();
    let path = |name: &str| log.directory.path().join(name);
    let bytes = std::fs::read(path(&old)).unwrap();
    let now = Timestamp(START + 4 * HOUR_NS);
    let removal = remove_rows(log.shared.tree(), now, &mut |row| host(row) == 3).unwrap();
    // The crash came before the old file was removed.
    std::fs::write(path(&old), bytes).unwrap();
    assert_eq!(log.shared.tree().list().unwrap().len(), 3, "readers see the new file alone");
    log.shared = reopened(&log, &recorder);
    assert!(!path(&old).exists(), "the next start finishes the removal");
    assert_eq!(log.rows().len() as u64, before as u64 - removal.rows);
}

#[test]
fn a_damaged_file_does_not_keep_others_from_being_cleared() {
    let packets = traffic();
    let mut recorder = Recorder::new();
    let mut log = Log::new(&recorder.history.interfaces);
    record(&mut recorder, &mut log, &packets, 10_000);
    let damaged = log.directory.path().join(&log.files()[0]);
    let mut bytes = std::fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    log.shared = Log::open(&log.directory, &recorder.history.interfaces);
    let now = Timestamp(START + 4 * HOUR_NS);
    let removal = remove_rows(log.shared.tree(), now, &mut |row| host(row) == 3).unwrap();
    assert_eq!((removal.rewritten, removal.failed.len()), (2, 1), "{:?}", removal.failed);
    assert!(damaged.exists());
}

#[test]
fn a_clock_that_is_set_back_loses_no_count() {
    let packets = traffic();
    let (mut recorder, expected) = (Recorder::new(), sent(&packets));
    let mut log = Log::new(&recorder.history.interfaces);
    let mut collector = Collector::new(Arc::clone(&recorder.history), 10_000, Timestamp(START));
    let half = START + 90 * 60 * SECOND_NS;
    let (before, after) = packets.split_at(packets.partition_point(|packet| packet.0 < half));
    let (earlier, later) = before.split_at(before.len() / 2);
    recorder.record(earlier);
    log.look(&mut collector, earlier.last().unwrap().0, None);
    recorder.record(later);
    log.look(&mut collector, half, None);
    // Two hours back, while sessions go on.
    log.look(&mut collector, half - 2 * HOUR_NS, None);
    recorder.record(after);
    let end = START + 4 * HOUR_NS;
    log.look(&mut collector, end, Some(hour(Timestamp(end)) - 1));
    assert_eq!(logged(&log.rows()), expected);
    assert_eq!(collector.take_missed(), 0);
}

#[test]
fn rows_that_could_not_be_written_are_stated_by_answers_and_by_the_next_file() {
    let packets = traffic();
    let mut recorder = Recorder::new();
    let mut log = Log::new(&recorder.history.interfaces);
    let mut collector = Collector::new(Arc::clone(&recorder.history), 10_000, Timestamp(START));
    recorder.record(&packets[..2000]);
    // A file of another program is where the directory of the day would be.
    let day = log.directory.path().join("sessions/date=2027-01-15");
    std::fs::write(&day, b"in the way").unwrap();
    let put = |log: &mut Log, collector: &mut Collector, now| {
        let now = Timestamp(now);
        collector.look(now, Due::All, &mut |row| {
            let hour = LogWriter::hour_of(&row, None);
            log.writer.put(row, hour, now);
        });
        log.writer.close();
    };
    put(&mut log, &mut collector, packets[2000].0);
    let lost = log.writer.counts().lost_rows;
    assert!(lost > 100 && log.writer.counts().problem.is_some(), "{:?}", log.writer.counts());
    let all = (Timestamp::MIN, Timestamp::MAX);
    assert_eq!(log.shared.read(all, &mut |_| true).missed, lost);
    std::fs::remove_file(&day).unwrap();
    recorder.record(&packets[2000..2010]);
    put(&mut log, &mut collector, packets[2010].0);
    assert_eq!(log.writer.counts().problem, None);
    let read = log.shared.read(all, &mut |_| true);
    assert_eq!((read.missed, read.files), (lost, 1), "once, although the footer states it, too");
    assert_eq!(reopened(&log, &recorder).read(all, &mut |_| true).missed, lost, "after a restart, too");
}
