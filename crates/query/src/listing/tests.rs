use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::tests::{history, udp};
use base::interface::Interfaces;
use base::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use engine::pipeline::{Config, Pipeline};

const WORKERS: u32 = 2;
const MICRO_NS: u64 = 1000;
const START: u64 = 1_700_000_000_000_000_000;

/// Workers that go on to store packets while sessions are listed.
struct Recorder {
    pipelines: Vec<Pipeline>,
    history: History,
    time: u64,
}

impl Recorder {
    fn new(sessions_bytes: u64, store_bytes: u64) -> Self {
        let interfaces = Arc::new(Interfaces::default());
        interfaces.intern("eth0", 2, LinkType::ETHERNET).unwrap();
        let config = || Config { pinned_bytes: 1 << 20, ..Config::new(sessions_bytes, store_bytes) };
        let pipelines: Vec<_> = (0..WORKERS).map(|_| Pipeline::new(config()).unwrap()).collect();
        let history = History::new(pipelines.iter().map(Pipeline::worker).collect(), interfaces);
        Self { pipelines, history, time: START }
    }

    /// One packet of each of these sessions, 7 µs apart.
    fn store(pipelines: &mut [Pipeline], time: &mut u64, sessions: impl Iterator<Item = u32>) {
        for session in sessions {
            *time += 7 * MICRO_NS;
            let host = u8::try_from(session % 199).unwrap();
            let port = u16::try_from(1024 + session / 199).unwrap();
            let data = udp((host, port), (200, 40_000), usize::try_from(session % 5).unwrap());
            let worker = usize::try_from(session % WORKERS).unwrap();
            pipelines[worker].ingest(&[Packet {
                time: Timestamp(*time),
                interface: InterfaceId(0),
                link_type: LinkType::ETHERNET,
                direction: Direction::Unknown,
                flags: PacketFlags::default(),
                original_len: u32::try_from(data.len()).unwrap(),
                drops_before: 0,
                data: &data,
            }]);
        }
        pipelines.iter_mut().for_each(Pipeline::publish);
    }
}

fn number(session: &Session) -> u32 {
    let host = [session.originator(), session.responder()].into_iter().find(|end| end.port != 40_000).unwrap();
    let Some(std::net::IpAddr::V4(ip)) = host.ip else { panic!("not IPv4") };
    (u32::from(host.port) - 1024) * 199 + u32::from(ip.octets()[3])
}

/// Sessions of the first part, and those that arrive while it is listed.
const SESSIONS: u32 = 24_000;
const ROWS_MAX: usize = 600;

/// A listing, while packets are stored between its pages: of new sessions, and of a few old ones.
struct Listed {
    sessions: Vec<u32>,
    identities: Vec<u64>,
    /// Sessions that the listing lost, or was not sure of.
    unsure: u64,
    /// The old sessions that had packets meanwhile.
    changed: BTreeSet<u32>,
}

/// Lists everything, in requests of `limit` sessions if there is a limit.
fn list(recorder: &mut Recorder, sort: Sort, limit: Option<u64>) -> Listed {
    let Recorder { pipelines, history, time } = recorder;
    let changed: BTreeSet<u32> = (SESSIONS - 50..SESSIONS).filter(|session| session % 7 == 0).collect();
    let mut all = Listed { sessions: Vec::new(), identities: Vec::new(), unsure: 0, changed };
    let (mut next, mut after) = (SESSIONS, None);
    let changed = all.changed.clone();
    let mut store = |time: &mut u64| {
        if next < SESSIONS + 20_000 {
            Recorder::store(pipelines, time, next..next + 400);
            Recorder::store(pipelines, time, changed.iter().copied());
            next += 400;
        }
    };
    loop {
        let request = Request { limit, ..Request::default() };
        let options = ListingOptions { after, rows_max: ROWS_MAX, ..sort.into() };
        let mut flows = history.flows(&request, options).unwrap();
        assert!(flows.totals().sessions >= u64::from(SESSIONS));
        loop {
            let page = flows.page(300);
            if page.is_empty() {
                break;
            }
            all.sessions.extend(page.iter().map(|listed| number(&listed.session)));
            all.identities.extend(page.iter().map(|listed| listed.identity));
            store(time);
        }
        all.unsure += flows.unsure() + flows.overtaken();
        after = flows.next_mark();
        if after.is_none() {
            return all;
        }
    }
}

#[test]
fn honest_13_5_every_session_is_listed_once_while_others_arrive() {
    for sort in Sort::ALL {
        let mut recorder = Recorder::new(2 << 20, 16 << 20);
        let Recorder { pipelines, time, .. } = &mut recorder;
        Recorder::store(pipelines, time, 0..SESSIONS);
        let capacity: u32 = recorder.history.workers.iter().map(|worker| worker.sessions.capacity()).sum();
        assert!(capacity < SESSIONS, "the archive is part of the test");
        let Listed { sessions, unsure, .. } = list(&mut recorder, sort, None);
        let distinct: BTreeSet<u32> = sessions.iter().copied().collect();
        // The archive does not tell what began before the listing from what began later in the same millisecond.
        let began_with_it = SESSIONS + 1000 / 7 + 1;
        assert!(distinct.iter().all(|session| *session < began_with_it), "{sort:?}: no new one comes");
        let missing = (0..SESSIONS).filter(|session| !distinct.contains(session)).count();
        let twice = sessions.len() - distinct.len();
        assert_eq!((missing, twice, unsure), (0, 0, 0), "{sort:?}: missing, twice, unsure");
    }
}

#[test]
fn honest_13_5_pages_by_mark_miss_no_session_whatever_grows_or_ends_meanwhile() {
    for sort in Sort::ALL {
        let mut recorder = Recorder::new(2 << 20, 16 << 20);
        let Recorder { pipelines, time, .. } = &mut recorder;
        Recorder::store(pipelines, time, 0..SESSIONS);
        let Listed { sessions, identities, changed, unsure } = list(&mut recorder, sort, Some(700));
        let distinct: BTreeSet<u32> = sessions.iter().copied().collect();
        let missing: Vec<u32> = (0..SESSIONS).filter(|session| !distinct.contains(session)).collect();
        assert!(missing.is_empty() && unsure == 0, "{sort:?}: {missing:?} are missing, {unsure} unsure");
        let twice: Vec<u32> = {
            let mut seen = BTreeSet::new();
            sessions.iter().copied().filter(|session| !seen.insert(*session)).collect()
        };
        // The archive does not tell what came before the first page from what came later in the same millisecond, nor
        // on which side of a mark a session began.
        let of_millisecond = 1000 / 7 + 1;
        let at_first_page = |session: u32| session.abs_diff(SESSIONS) <= 2 * of_millisecond;
        let others = twice.iter().filter(|session| !changed.contains(session) && !at_first_page(**session)).count();
        let divided = if sort.can_change() { 0 } else { usize::try_from(of_millisecond).unwrap() };
        assert!(others <= divided, "{sort:?}: {others} of {} come twice: {twice:?}", twice.len());
        let distinct_identities: BTreeSet<u64> = identities.iter().copied().collect();
        assert_eq!(distinct_identities.len(), distinct.len(), "{sort:?}: and has the same identity");
    }
}

#[test]
fn honest_13_5_a_session_that_grows_past_the_mark_comes_at_the_end() {
    let mut recorder = Recorder::new(8 << 20, 16 << 20);
    Recorder::store(&mut recorder.pipelines, &mut recorder.time, 0..1000);
    let page = |recorder: &Recorder, after: Option<PageCursor>| {
        let request = Request { limit: Some(600), ..Request::default() };
        let options = ListingOptions { after, ..Sort::Packets.into() };
        let mut flows = recorder.history.flows(&request, options).unwrap();
        let listed: Vec<u32> = std::iter::from_fn(|| Some(flows.page(1000)).filter(|page| !page.is_empty()))
            .flatten()
            .map(|listed| number(&listed.session))
            .collect();
        (listed, flows.next_mark())
    };
    let (first, mark) = page(&recorder, None);
    let grows = (0..1000).find(|session| !first.contains(session)).unwrap();
    Recorder::store(&mut recorder.pipelines, &mut recorder.time, [grows, grows, 5000].into_iter());
    let (second, mark) = page(&recorder, mark);
    assert_eq!((first.len(), second.len(), second.contains(&grows)), (600, 399, false));
    let (third, mark) = page(&recorder, mark);
    assert_eq!((third, mark), (vec![grows], None), "the one that grew, and not the one that began later");
}

#[test]
fn a_listing_in_several_passes_is_in_order() {
    let mut recorder = Recorder::new(8 << 20, 16 << 20);
    let Recorder { pipelines, time, .. } = &mut recorder;
    Recorder::store(pipelines, time, 0..SESSIONS);
    Recorder::store(pipelines, time, (0..SESSIONS).filter(|session| session % 3 == 0));
    for sort in Sort::ALL {
        let list = |options: ListingOptions| {
            let flows = recorder.history.flows(&Request::default(), options).unwrap();
            flows.map(|session| sort.key(&session)).collect::<Vec<_>>()
        };
        let in_passes = list(ListingOptions { rows_max: ROWS_MAX, ..sort.into() });
        let groups = |keys: &[SortKey]| keys.iter().map(|key| key.group).collect::<Vec<_>>();
        assert!(groups(&in_passes).is_sorted(), "{sort:?}");
        let at_once = list(sort.into());
        assert!(at_once.is_sorted());
        assert_eq!(groups(&in_passes), groups(&at_once), "{sort:?}");
    }
}

#[test]
fn the_newest_of_a_millisecond_come_first() {
    let mut recorder = Recorder::new(8 << 20, 16 << 20);
    let Recorder { pipelines, time, .. } = &mut recorder;
    Recorder::store(pipelines, time, 0..1000);
    let request = Request { limit: Some(3), ..Request::default() };
    let mut flows = recorder.history.flows(&request, ListingOptions { rows_max: 10, ..Sort::Newest.into() }).unwrap();
    let newest: Vec<u32> = flows.page(10).iter().map(|listed| number(&listed.session)).collect();
    assert_eq!((newest, flows.totals().sessions), (vec![999, 998, 997], 1000));
    assert!(flows.next_mark().is_some());
}

/// A DNS query in an Ethernet/IPv4/UDP frame.
fn dns(from: (u8, u16), label: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, u8::try_from(label.len()).unwrap()];
    message.extend(label.as_bytes());
    message.extend([0, 0, 16, 0, 1]);
    let mut frame = udp(from, (200, 53), message.len());
    let at = frame.len() - message.len();
    frame[at..].copy_from_slice(&message);
    frame
}

#[test]
fn names_are_read_page_by_page_and_only_where_packets_are_left() {
    const SESSIONS: u64 = 2000;
    let mut packets = Vec::new();
    for i in 0..SESSIONS {
        let (host, port) = (u8::try_from(i % 100).unwrap(), u16::try_from(1000 + i).unwrap());
        packets.push((1_000_000_000 + i * 1000, dns((host, port), &format!("Name{i}"))));
    }
    // Each session has its own name, so that a name in the wrong row fails the test.
    let history = history(4 << 20, packets);
    // There are fewer entries than sessions. Sessions without an entry have no packets that a listing knows of.
    let mut kept = BTreeSet::new();
    for sort in [Sort::Start, Sort::Bytes] {
        let mut flows = history.flows(&Request::default(), sort).unwrap();
        let mut listed = Vec::new();
        loop {
            let page = flows.page(1000);
            if page.is_empty() {
                break;
            }
            listed.extend(page);
        }
        assert_eq!((listed.len() as u64, flows.unread()), (SESSIONS, 0));
        for row in &listed {
            let i = u64::from(row.session.originator().port) - 1000;
            // Nothing was evicted, so that what is not counted may be there.
            assert_eq!(row.session.may_have_packets(), row.session.kept_packets == 0);
            let question = Some(format!("Name{i}").into()).filter(|_| row.session.kept_packets > 0);
            assert_eq!(row.names.dns_question, question);
            assert_eq!(row.names.dns_type.is_some(), question.is_some());
            if question.is_some() {
                kept.insert(row.session.originator().port);
            }
        }
    }
    let list = |name: &str, limit: Option<u64>, rows_max: usize| {
        let options = ListingOptions { name: Some(NameFilter::new(name)), rows_max, ..Sort::Last.into() };
        let mut flows = history.flows(&Request { limit, ..Request::default() }, options).unwrap();
        let mut ports: Vec<u16> = Vec::new();
        loop {
            let page = flows.page(100);
            if page.is_empty() {
                return (ports, flows.totals().sessions, flows.searched(), flows.next_mark().is_some());
            }
            ports.extend(page.iter().map(|listed| listed.session.originator().port));
        }
    };
    let expected: Vec<u16> = std::iter::once(1123).chain(2230..2240).filter(|port| kept.contains(port)).collect();
    assert!(expected.len() >= 8, "{expected:?}");
    let matching_sessions = expected.len() as u64;
    assert_eq!(list("NAME123", None, usize::MAX), (expected.clone(), matching_sessions, SESSIONS, false));
    assert_eq!(list("name123", Some(2), usize::MAX), (expected[..2].to_vec(), matching_sessions, SESSIONS, true));
    for rows_max in [7, 100] {
        let (mut ports, matching, searched, more) = list("NAME123", None, rows_max);
        ports.sort_unstable();
        assert_eq!((ports, matching, searched, more), (expected.clone(), matching_sessions, SESSIONS, false));
        let (ports, matching, searched, more) = list("name123", Some(2), rows_max);
        assert_eq!((ports.len(), matching, searched, more), (2, matching_sessions, SESSIONS, true));
    }
}
