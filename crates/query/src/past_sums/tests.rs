use std::sync::Arc;

use crate::tests::udp;
use crate::timeline::Timeline;
use crate::{History, Request};
use base::interface::Interfaces;
use base::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use base::time::Timestamp;
use engine::pipeline::{Config, Pipeline};

const START: u64 = 1_700_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// A recorder whose archive overwrites its oldest sessions. Every 50th session lasts for an hour, the others a second.
fn recorder(sessions: u64) -> (Pipeline, History) {
    let interfaces = Arc::new(Interfaces::default());
    interfaces.intern("eth0", 2, LinkType::ETHERNET).unwrap();
    let mut pipeline = Pipeline::new(Config::new(3 << 20, 2 << 20)).unwrap();
    let mut history = History::new(vec![pipeline.worker()], interfaces);
    history.past_sums.rings_bytes_min = 0;
    store(&mut pipeline, 0..sessions);
    (pipeline, history)
}

fn store(pipeline: &mut Pipeline, sessions: std::ops::Range<u64>) {
    for number in sessions {
        let mut ingest = |time: u64, of: u64, payload: usize| {
            // Without a pattern that compresses well.
            let port = u16::try_from(1024 + (of.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 60_000).unwrap();
            let host = u8::try_from(of % 199).unwrap();
            let data = udp((host, port), (200, 40_000), payload);
            pipeline.ingest(&[Packet {
                time: Timestamp(time),
                interface: InterfaceId(0),
                link_type: LinkType::ETHERNET,
                direction: Direction::Unknown,
                flags: PacketFlags::default(),
                original_len: u32::try_from(data.len()).unwrap(),
                drops_before: 0,
                data: &data,
            }]);
        };
        // Busy and quiet times.
        let time = START + number * SECOND + number / 5000 * 1000 * SECOND;
        ingest(time, number, usize::try_from((number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 30) % 900).unwrap());
        if number >= 50 && number.is_multiple_of(50) {
            ingest(time + 1, number - 50, 900);
        }
    }
    pipeline.publish();
}

/// The same, read session by session.
fn exact(history: &History, since: Option<u64>, until: Option<u64>, spans: u64) -> Timeline {
    let request = Request { port: Some("1-65535".parse().unwrap()), ..window(since, until) };
    history.timeline(&request, spans).unwrap()
}

fn window(since: Option<u64>, until: Option<u64>) -> Request {
    Request { since: since.map(Timestamp), until: until.map(Timestamp), ..Request::default() }
}

/// The largest part of the whole by which sums up to a span differ.
fn distance(a: &[u64], b: &[u64]) -> f64 {
    let (mut left, mut right, mut most) = (0i128, 0i128, 0);
    for (a, b) in a.iter().zip(b) {
        (left, right) = (left + i128::from(*a), right + i128::from(*b));
        most = most.max((left - right).abs());
    }
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let share = most as f64 / right.max(1) as f64;
    share
}

#[test]
fn a_timeline_from_sums_is_that_of_the_sessions() {
    let (mut pipeline, history) = recorder(150_000);
    for more in 0..4u64 {
        let sessions = &history.workers[0].sessions;
        assert!(sessions.past() > 20_000 && sessions.oldest_archived() > 0, "{}", sessions.past());
        for spans in [1, 50, 600] {
            let (sums, exact) =
                (history.timeline(&Request::default(), spans).unwrap(), exact(&history, None, None, spans));
            let total = |list: &[u64]| list.iter().sum::<u64>();
            assert_eq!(total(&sums.sessions), total(&exact.sessions), "{spans}");
            assert_eq!(total(&sums.bytes), total(&exact.bytes), "{spans}");
            assert!(distance(&sums.sessions, &exact.sessions) < 0.01 && distance(&sums.bytes, &exact.bytes) < 0.01);
            let kept =
                |timeline: Timeline| (timeline.kept_bytes, timeline.first_packet, timeline.first_kb, timeline.whole);
            assert_eq!(kept(sums), kept(exact), "{spans}");
        }
        assert!(!history.past_sums.workers.lock().unwrap()[0].groups.is_empty());
        store(&mut pipeline, 150_000 + more * 3000..153_000 + more * 3000);
    }
}

#[test]
fn a_short_window_is_exact() {
    let (_pipeline, history) = recorder(60_000);
    history.sum_up_past();
    let oldest = history.workers[0].sessions.earliest().unwrap().0;
    for (from, seconds) in [(3000, 1100), (9000, 2000), (20_000, 1500)] {
        let (since, until) = (oldest + from * SECOND, oldest + (from + seconds) * SECOND);
        let sums = history.timeline(&window(Some(since), Some(until)), 600).unwrap();
        let exact = exact(&history, Some(since), Some(until), 600);
        assert!(exact.bytes.iter().sum::<u64>() > 0, "{from}");
        assert_eq!(sums, exact, "{from}");
    }
}

#[test]
fn the_sums_are_bounded_and_those_of_overwritten_sessions_go() {
    let (mut pipeline, history) = recorder(40_000);
    for number in 0..20u64 {
        store(&mut pipeline, 40_000 + number * 5000..45_000 + number * 5000);
        history.sum_up_past();
        let sums = history.past_sums.workers.lock().unwrap();
        let (groups, oldest) = (&sums[0].groups, history.workers[0].sessions.oldest_archived());
        assert!(groups.iter().all(|group| group.first >= oldest && group.cells.len() <= 128));
        assert!(groups.len() as u64 * super::GROUP_BYTES <= history.past_sums_bytes());
    }
}
