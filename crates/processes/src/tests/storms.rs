//! Tables that are full, names that are used again and again, and events that were lost.

use std::net::{Ipv4Addr, SocketAddr};

use super::alone;
use crate::conntrack::Translation;
use crate::process::{Certainty, Process, Source};
use crate::raw::RawOwner;
use crate::report::{Report, SocketName};
use crate::sockets::Protocol;
use crate::table::{SessionLifetime, SocketTable};

#[test]
fn a_million_connections_stay_within_the_bytes_of_the_table_and_are_counted() {
    let _alone = alone();
    let table = SocketTable::new(64 << 10);
    for number in 0..1_000_000u32 {
        let socket = SocketName {
            protocol: Protocol::Udp,
            local: SocketAddr::new(Ipv4Addr::from(number).into(), 1),
            remote: "10.0.0.2:80".parse().unwrap(),
        };
        let process = Process { path: Some("/usr/bin/x".repeat(3)), ..Process::only_user(number) };
        table.take(Report::Open { time_ns: u64::from(number), socket, process: Box::new(process) });
        assert!(table.bytes() <= 64 << 10);
    }
    let counts = table.counts();
    assert_eq!(counts.sockets + counts.forgotten, 1_000_000);
    assert!(counts.sockets > 50, "{counts:?}");
}

/// The report of a socket, a raw socket or a translation.
fn report(kind: u32, number: u32) -> Report {
    let time_ns = u64::from(number);
    let end = |port| SocketAddr::new(Ipv4Addr::from(number).into(), port);
    let process = Process { pid: Some(number), path: Some("/usr/bin/x".repeat(3)), ..Process::only_user(number) };
    match kind {
        0 => Report::Open {
            time_ns,
            socket: SocketName { protocol: Protocol::Udp, local: end(1), remote: end(2) },
            process: Box::new(process),
        },
        1 => Report::RawOpened { time_ns, id: time_ns, protocol: 1, is_v6: false, process: Box::new(process) },
        _ => Report::Translated {
            time_ns,
            translation: Translation { protocol: 6, before: [end(1), end(2)], after: [end(3), end(2)], is_over: false },
        },
    }
}

#[test]
fn the_table_takes_no_more_memory_than_its_bytes() {
    let _alone = alone();
    for bytes_max in [256 << 10, 1 << 20, 3_000_000] {
        // Sockets fill it, and then the others come.
        for order in [[0, 1, 2], [2, 1, 0], [0, 2, 0]] {
            let mut table = None;
            let used = allocation_counter::measure(|| {
                let filled = SocketTable::new(bytes_max);
                for kind in order {
                    for number in 0..20_000 {
                        filled.take(report(kind, number));
                        assert!(filled.bytes() <= bytes_max, "{order:?} {kind} {number}: {}", filled.bytes());
                    }
                }
                table = Some(filled);
            });
            let bytes = usize::try_from(used.bytes_current).unwrap();
            assert!(bytes <= bytes_max, "{order:?}: {bytes} of {bytes_max}");
            let counted = table.map(|table| table.bytes()).unwrap();
            assert!(bytes * 5 >= counted, "{order:?}: {bytes} are counted as {counted}");
        }
    }
}

#[test]
fn a_name_that_is_used_without_end_takes_no_longer_and_its_sockets_are_counted() {
    let table = SocketTable::new(8 << 20);
    let socket = SocketName {
        protocol: Protocol::Udp,
        local: "10.0.0.1:53".parse().unwrap(),
        remote: "10.0.0.2:53".parse().unwrap(),
    };
    for number in 0..100_000u32 {
        let process = Box::new(Process { pid: Some(number), ..Process::only_user(0) });
        table.take(Report::Open { time_ns: u64::from(number) * 10, socket, process });
        table.take(Report::Closed { time_ns: u64::from(number) * 10 + 5, socket });
    }
    let counts = table.counts();
    assert_eq!(counts.sockets + counts.forgotten, 100_000);
    assert!((64..10_000).contains(&counts.sockets), "{counts:?}");
    let lived = SessionLifetime { first_ns: 999_991, last_ns: 999_992, closed: true };
    let [process, _] = table.of_session(Protocol::Udp, socket.local, socket.remote, lived);
    assert_eq!(process.and_then(|process| process.pid), Some(99_999));
}

#[test]
fn sockets_of_other_namespaces_raw_sockets_and_translations_end_when_events_were_lost() {
    let table = SocketTable::new(1 << 20);
    let socket = SocketName {
        protocol: Protocol::Tcp,
        local: "10.88.0.2:5000".parse().unwrap(),
        remote: "192.0.2.7:443".parse().unwrap(),
    };
    let process = |other_namespace| {
        let process = Process { pid: Some(7), path: Some("/bin/x".to_owned()), ..Process::only_user(0) };
        Box::new(Process { other_namespace, certainty: Certainty::Socket, source: Source::Ebpf, ..process })
    };
    let here = SocketName { local: "10.0.0.1:5000".parse().unwrap(), ..socket };
    table.take(Report::Open { time_ns: 10, socket, process: process(true) });
    table.take(Report::Open { time_ns: 10, socket: here, process: process(false) });
    table.take(Report::RawOpened { time_ns: 10, id: 1, protocol: 1, is_v6: false, process: process(false) });
    table.take(Report::SocketsMissed(20));
    let at = |first_ns, last_ns| SessionLifetime { first_ns, last_ns, closed: false };
    let is_named = |of: SocketName, first, last| {
        table.of_session(Protocol::Tcp, of.local, of.remote, at(first, last))[0].is_some()
    };
    assert!(is_named(socket, 15, 40), "it began before");
    assert!(!is_named(socket, 21, 40), "its end may be among what was lost");
    assert!(is_named(here, 21, 40), "scans see its end");
    assert_eq!(table.of_raw_session(1, false, at(15, 40)), RawOwner::Incomplete);
    assert_eq!(table.of_raw_session(1, false, at(21, 40)), RawOwner::Nobody);
    table.take(report(2, 30));
    let ends = |port| ["0.0.0.30:1".parse().unwrap(), SocketAddr::new(Ipv4Addr::from(30).into(), port)];
    assert!(table.other_side(6, ends(2), at(31, 40)).is_some());
    table.take(Report::TranslationsMissed(50));
    assert!(table.other_side(6, ends(2), at(31, 60)).is_some());
    assert!(table.other_side(6, ends(2), at(51, 60)).is_none());
}

#[test]
fn a_socket_that_receives_from_anybody_names_nobody_after_its_last_examination() {
    let table = SocketTable::new(1 << 20);
    table.take(Report::Addresses(vec!["10.0.0.1".parse().unwrap()]));
    let any = "0.0.0.0:0".parse().unwrap();
    let socket = SocketName { protocol: Protocol::Tcp, local: "0.0.0.0:80".parse().unwrap(), remote: any };
    let (from, to) = ("192.0.2.7:5000".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
    let process = |pid| Box::new(Process { pid: Some(pid), path: Some("/bin/x".to_owned()), ..Process::only_user(0) });
    let pid = |first_ns| {
        let lived = SessionLifetime { first_ns, last_ns: first_ns + 5, closed: true };
        table.of_session(Protocol::Tcp, from, to, lived)[1].as_ref().and_then(|process| process.pid)
    };
    table.take(Report::Open { time_ns: 10, socket, process: process(7) });
    assert_eq!((pid(10), pid(20)), (Some(7), None), "it may have forked since");
    table.take(Report::Examined(30));
    assert_eq!((pid(20), pid(31)), (Some(7), None));
    // Its end is no examination.
    table.take(Report::Closed { time_ns: 40, socket });
    table.take(Report::Examined(50));
    assert_eq!((pid(20), pid(35)), (Some(7), None));
    // What the kernel reports needs none.
    let process = Box::new(Process { source: Source::Ebpf, ..*process(8) });
    table.take(Report::Open { time_ns: 60, socket, process });
    assert_eq!(pid(70), Some(8));
}
