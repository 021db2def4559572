//! One worker with its oracle and all packets that were sent to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use retrocap::counters::Totals;
use retrocap::filter::FilterSet;
use retrocap::judge::{Class, Classes, Pins};
use retrocap::pipeline::{Config, Pipeline, Worker};
use retrocap::session::SessionSlot;
use retrocap::store::compress::{Compression, Pace};
use retrocap::store::retention::Policy;
use retrocap::time::Timestamp;

use super::oracle::{Oracle, Terms};
use super::setup::Setup;
use super::traffic::Sent;

/// Port that the filter excludes while it is active.
pub(crate) const UNWANTED_PORT: u16 = 53;

pub(crate) struct Recorder {
    pub(crate) pipeline: Pipeline,
    pub(crate) worker: Worker,
    /// `None` if a run checks only invariants.
    pub(crate) oracle: Option<Oracle>,
    /// Stored packets by sequence number, each with its session slot once a reader has seen it.
    pub(crate) stored: Vec<(Sent, Option<u32>)>,
    policy: Policy,
    filtering: bool,
    received: (u64, u64),
    filtered: (u64, u64),
    /// Sessions that were seen without their first packet: slot and number of that packet.
    pub(crate) headless: BTreeSet<(u32, u64)>,
    pub(crate) gaps: u64,
    pub(crate) looked_at: u64,
}

impl Recorder {
    pub(crate) fn new(setup: &Setup, pins: &Arc<Pins>) -> Self {
        let classes: Vec<Class> = setup.classes.iter().map(class).collect();
        let config = Config {
            policy: setup.policy.clone(),
            classes: Classes::new(&classes, setup.store_bytes).unwrap(),
            pins: Arc::clone(pins),
            pinned_bytes: setup.pinned_bytes,
            ..Config::new(setup.sessions_bytes, setup.store_bytes)
        };
        let mut pipeline = Pipeline::new(config).unwrap();
        if setup.compressing {
            let compression = Compression { share: 1.0, pace: Pace::Replay, readers_bytes: 1 << 20 };
            let compressor = pipeline.compress(&compression).unwrap();
            std::thread::spawn(move || compressor.run());
        }
        let worker = pipeline.worker();
        let pages = usize::try_from(worker.segments.capacity_bytes() / 4096).unwrap();
        let oracle = || Oracle::new(pages, setup.pinned_bytes, setup.policy.clone(), setup.classes.clone());
        Self {
            worker,
            oracle: setup.oracle.then(oracle),
            pipeline,
            stored: Vec::new(),
            policy: setup.policy.clone(),
            filtering: false,
            received: (0, 0),
            filtered: (0, 0),
            headless: BTreeSet::new(),
            gaps: 0,
            looked_at: 0,
        }
    }

    /// Sends packets to the pipeline in groups of `burst`.
    pub(crate) fn receive(&mut self, sent: &[Sent], burst: usize) {
        for sent in sent.chunks(burst) {
            let frames: Vec<Vec<u8>> = sent.iter().map(Sent::frame).collect();
            let packets: Vec<_> = sent.iter().zip(&frames).map(|(sent, frame)| sent.packet(frame)).collect();
            self.pipeline.ingest(&packets);
        }
        self.pipeline.publish();
        for sent in sent {
            self.received = (self.received.0 + 1, self.received.1 + sent.captured as u64);
            if self.filtering && [sent.pair.a.1, sent.pair.b.1].contains(&UNWANTED_PORT) {
                self.filtered = (self.filtered.0 + 1, self.filtered.1 + sent.captured as u64);
                continue;
            }
            let Some(oracle) = &mut self.oracle else {
                self.stored.push((*sent, None));
                continue;
            };
            let sessions = &self.worker.sessions;
            let before = oracle.dropped;
            oracle.receive(sent, |session| {
                let slot = SessionSlot(u32::try_from(session).unwrap());
                let flood = sessions.session(slot).expect("the session begins there, too").marks().flood;
                // The session may already have left the flood of unanswered sessions.
                if flood == 7 { 1 } else { flood }
            });
            if oracle.dropped == before {
                self.stored.push((*sent, None));
            }
        }
    }

    /// Switches to another filter and other weights.
    pub(crate) fn change(&mut self, filtering: bool, policy: &Policy) {
        self.filtering = filtering;
        self.policy = policy.clone();
        let filter = filtering.then(|| FilterSet::new(&format!("not port {UNWANTED_PORT}")).unwrap());
        self.pipeline.change(filter, policy);
        if let Some(oracle) = &mut self.oracle {
            oracle.policy = policy.clone();
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        self.worker.published.totals()
    }

    /// Checks that `received = stored + filtered + dropped` and `stored = retained + evicted`, and that the counters
    /// match the packets sent.
    pub(crate) fn check_counts(&self) {
        let totals = self.totals();
        let dropped = totals.dropped.iter().copied().sum::<retrocap::counters::Volume>();
        for (received, stored, filtered, dropped, retained, evicted) in [
            (
                totals.received.packets,
                totals.stored.packets,
                totals.filtered.packets,
                dropped.packets,
                totals.retained.packets,
                totals.evicted.packets,
            ),
            (
                totals.received.bytes,
                totals.stored.bytes,
                totals.filtered.bytes,
                dropped.bytes,
                totals.retained.bytes,
                totals.evicted.bytes,
            ),
        ] {
            assert_eq!(received, stored + filtered + dropped, "{totals:?}");
            assert_eq!(stored, retained + evicted, "{totals:?}");
        }
        assert_eq!((totals.received.packets, totals.received.bytes), self.received);
        assert_eq!((totals.filtered.packets, totals.filtered.bytes), self.filtered);
        if let Some(oracle) = &self.oracle {
            assert_eq!((dropped.packets, dropped.bytes), oracle.dropped);
            assert_eq!(totals.stored.packets, self.stored.len() as u64);
            assert_eq!((totals.carried.volume.packets, totals.carried.lost), (oracle.carried, oracle.lost), "carried");
            assert_eq!(totals.lost_until, oracle.lost_until.map(Timestamp), "whole since");
        }
    }
}

fn class(terms: &Terms) -> Class {
    Class {
        name: format!("port {}", terms.port),
        filter: format!("port {}", terms.port),
        weight: terms.weight,
        cutoff_bytes: terms.cutoff,
        reserve_bytes: terms.reserve,
        important: None,
    }
}
