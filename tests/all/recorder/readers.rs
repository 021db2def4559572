//! Readers: one that asks at once on a quiet link, and one that stops reading.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::generate;
use crate::namespaces::{Namespace, available};
use crate::service::asking;

use super::running::{BEYOND_BUDGET, MIB, Recorder, Sender, datagram, have, tshark, unanswered};

#[test]
fn a_lone_ping_can_be_queried_at_once() {
    if !available("ping") || !have("ping", &["ping", "tshark"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    near.ip("addr add 10.9.0.1/24 dev near");
    far.ip("addr add 10.9.0.2/24 dev far");
    let recorder = Recorder::live(&far, &["-m", "32M"]);
    near.exec(&["ping", "-q", "-c", "1", "10.9.0.2"]);
    // The promised 100 ms, and more for a busy machine.
    std::thread::sleep(Duration::from_millis(500));
    let file = recorder.export("ping.pcapng", &["icmp"]);
    assert_eq!(tshark(&file, "icmp.type"), ["8", "0"]);
}

#[test]
fn a_packet_can_be_queried_soon_after_its_arrival() {
    if !available("freshness") {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "32M"]);
    let mut sender = Sender::new(&near, "near");
    let mut waits = Vec::new();
    for number in 0..20_u8 {
        // Arrive anywhere in the period of the kernel's timer, on a link without other traffic.
        std::thread::sleep(Duration::from_millis(120 + 7 * u64::from(number)));
        let mut frame = unanswered(60);
        frame[20] = number;
        let sent = Instant::now();
        sender.send(&frame);
        let question = format!("/v1/packets?filter=ether+proto+0x88b5+and+ether%5B20%5D+%3D+{number}");
        while asking::get(recorder.socket(), &question).status != 200 {
            assert!(sent.elapsed() < Duration::from_secs(20), "packet {number}");
        }
        waits.push(sent.elapsed());
    }
    waits.sort();
    eprintln!("from arrival to answer: median {:?}, longest {:?}", waits[10], waits[19]);
}

/// The CPU set with only the `nth` of the processors we may use.
fn processor(nth: usize) -> Option<(usize, CpuSet)> {
    let allowed = sched_getaffinity(None).ok()?;
    let mine = (0..CpuSet::MAX_CPU).filter(|&number| allowed.is_set(number)).nth(nth)?;
    let mut one = CpuSet::new();
    one.set(mine);
    Some((mine, one))
}

#[test]
fn a_stalled_reader_costs_nobody_a_packet() {
    const FIRST: u32 = 50_000;
    const MANY: u32 = 1_000_000;
    let test = "a reader that stops";
    if !available(test) || !have(test, &["taskset"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    let number = processor(1).map(|(number, _)| number.to_string());
    let pinned = number.as_deref().map_or(vec![], |number| vec!["taskset", "-c", number]);
    let recorder = Recorder::live_under(&far, &pinned, &["-m", "256M"]);
    let mut sender = Sender::new(&near, "near");
    // Bulk traffic, most of which is evicted once memory is full.
    sender.send_paced(FIRST, 100_000, |number, frame| datagram(number % 4, 200, frame));
    recorder.arrived(u64::from(FIRST));

    let mut stalled = UnixStream::connect(recorder.socket()).unwrap();
    stalled.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    asking::send(&mut stalled, "/v1/packets");
    let mut answer = vec![0; 100];
    stalled.read_exact(&mut answer).unwrap();
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || {
            if let Some((_, one)) = processor(0) {
                sched_setaffinity(None, &one).unwrap();
            }
            // Spread over ten seconds.
            sender.send_paced(MANY, MANY / 10, |number, frame| datagram(1000 + number % 1000, 200, frame));
        });
        let mut answered = 0;
        while !sending.is_finished() {
            assert_eq!(recorder.packets(&["-c", "10", "--since", "1s"]).len(), 10);
            recorder.status();
            answered += 1;
            std::thread::sleep(Duration::from_millis(200));
        }
        assert!(answered >= 10, "{answered} other readers were answered");
    });
    let status = recorder.arrived(u64::from(FIRST + MANY));
    assert_eq!((status.packets.kernel_dropped, status.packets.dropped), (0, 0));
    assert!(status.packets.evicted > 0, "memory came round meanwhile");
    let peak = recorder.resident_peak();
    assert!(peak <= 256 * MIB + BEYOND_BUDGET, "{} MiB", peak / MIB);

    // When the reader continues, it gets a valid file that states what it has missed.
    stalled.read_to_end(&mut answer).unwrap();
    let answer = asking::parse(&answer);
    let file = recorder.path("stalled.pcapng");
    std::fs::write(&file, &answer.body).unwrap();
    let (packets, end) = generate::read(&file);
    assert!(end.is_ok() && packets.is_sorted_by_key(|packet| packet.0));
    assert_eq!(answer.trailer("retrocap-packets").unwrap(), packets.len().to_string());
    let overtaken: u64 = answer.trailer("retrocap-overtaken").unwrap().parse().unwrap();
    eprintln!("the one that stopped got {} packets, and lost {overtaken}", packets.len());
    assert!(overtaken > 0 && packets.len() as u64 + overtaken == u64::from(FIRST), "{overtaken}");
    assert!(answer.trailer("retrocap-note").unwrap().contains("evicted before they could be sent"));
}

/// The niceness of each thread of this name; the lower one runs first.
fn niceness(recorder: &Recorder, name: &str) -> Vec<i64> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", recorder.child.id())).unwrap();
    let tasks = tasks.map(|task| task.unwrap().path());
    let named = tasks.filter(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == name);
    let nice = named.map(|task| {
        let stat = std::fs::read_to_string(task.join("stat")).unwrap();
        // In proc(5) the fields after the name begin with number 3; niceness is number 19.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    });
    nice.collect()
}

#[test]
fn workers_have_a_higher_priority_than_queries() {
    if !available("readers") {
        return;
    }
    let far = Namespace::new();
    let recorder = Recorder::live(&far, &["-m", "32M", "--user", "nobody"]);
    assert_eq!(recorder.ask(&["get"]).code, 1, "nothing was sent");
    let [worker] = niceness(&recorder, "retrocap-w0")[..] else { panic!("one worker") };
    let usual = niceness(&recorder, "retrocap")[0];
    assert_eq!(niceness(&recorder, "retrocap-serve"), [usual; 2]);
    // A single reader is answered at the usual priority; of many that stay, all but two get a lower one.
    assert_eq!(niceness(&recorder, "retrocap-query"), [usual]);
    let crowd = [(); 4].map(|()| {
        let mut stream = UnixStream::connect(recorder.socket()).unwrap();
        asking::send(&mut stream, "/v1/packets?follow=true");
        stream.read_exact(&mut [0; 12]).unwrap();
        stream
    });
    let mut answering = niceness(&recorder, "retrocap-query");
    answering.sort_unstable();
    assert!(answering.len() >= crowd.len() && answering[..2] == [usual; 2], "{answering:?}");
    assert!(answering[2..].iter().all(|&nice| nice >= 10 && nice - worker >= 10), "packets: {worker}, {answering:?}");
    assert!(niceness(&recorder, "retrocap-z0")[0] == 19);
    // Root may raise a priority, so a recorder that root starts does.
    if rustix::process::getpriority_process(None).unwrap() == 0 {
        assert_eq!((worker, usual), (-10, 0));
    }
}
