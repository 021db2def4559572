//! One run: packets go in, the disk misbehaves, and an oracle says what must come out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use base::interface::Interface;
use base::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use base::time::Timestamp;
use spool::band::Band;
use spool::board::KEYS_MAX;
use spool::catalogue::Catalogue;
use spool::check::check_file;
use spool::coding::{Coding, Decoder};
use spool::encryption::Keys;
use spool::index::Condition;
use spool::medium::Medium as _;
use spool::read::{Packets, Selection};
use spool::writer::{Options, SizeLimit, Spool, WriteOutcome};

use super::disk::{Disk, Faults, Random};

/// What a packet is, as the oracle knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    time: Timestamp,
    interface: u16,
    address: u32,
    data: Vec<u8>,
}

/// What a run does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) compressed: bool,
    pub(crate) encrypted: bool,
    pub(crate) limit: SizeLimit,
    pub(crate) capacity: u64,
    pub(crate) faults: Faults,
    pub(crate) rounds: u64,
    pub(crate) packets: u64,
    /// Whether the machine loses power, or only the process is killed.
    pub(crate) power: bool,
}

pub(crate) struct Run {
    plan: Plan,
    pub(crate) disk: Disk,
    random: Random,
    now: Timestamp,
    next: u64,
    known: HashMap<u64, Known>,
    unsynced: [Vec<u64>; Band::COUNT],
    pub(crate) durable: HashSet<u64>,
    refused: u64,
    interfaces: Vec<Interface>,
}

const START: u64 = 1_790_000_000;

impl Run {
    pub(crate) fn new(plan: Plan) -> Self {
        let interface = |id: u16| Interface {
            id: InterfaceId(id),
            name: format!("eth{id}"),
            index: u32::from(id) + 1,
            link_type: LinkType::ETHERNET,
            description: None,
            os: None,
            up: true,
            gone: None,
            since: Timestamp::MIN,
        };
        let keys = if plan.encrypted { Keys::parse(&[b'a'; 64]).unwrap() } else { Keys::none() };
        Self {
            plan,
            disk: Disk::new(plan.seed ^ 0x5555, plan.capacity, keys),
            random: Random(plan.seed),
            now: Timestamp::from_unix(START, 0),
            next: 1,
            known: HashMap::new(),
            unsynced: Default::default(),
            durable: HashSet::new(),
            refused: 0,
            interfaces: (0..5).map(interface).collect(),
        }
    }

    fn options(&self) -> Options {
        Options {
            limit: self.plan.limit,
            keep: None,
            level: self.plan.compressed.then_some(1),
            comments: vec!["a simulated spool".to_owned()],
            keys_max: KEYS_MAX,
        }
    }

    /// Records, crashes, and verifies, several times on the same disk.
    pub(crate) fn go(&mut self) {
        for _ in 0..self.plan.rounds {
            self.disk.set_faults(Faults::default());
            let (mut spool, opening) = Spool::open(self.disk.clone(), self.options(), self.now).unwrap();
            assert!(opening.failed.is_empty(), "{:?}", opening.failed);
            self.verify("after opening");
            self.disk.set_faults(self.plan.faults);
            self.record(&mut spool);
            self.disk.set_faults(Faults { short_read: 3, ..Faults::default() });
            if self.random.one_in(3) {
                let turn = spool.close(self.now);
                self.learn(&turn);
            }
            let board = spool.board();
            self.verify_catalogue(&board.catalogue(), "while it is written");
            drop(spool);
            // What was not durable may be lost now.
            self.unsynced = Default::default();
            if self.plan.power {
                self.disk.crash()
            } else {
                self.disk.kill()
            }
            let (unfinished, _) = Catalogue::open(&self.disk, false).unwrap();
            self.verify_catalogue(&unfinished, "unfinished, read only");
        }
        self.disk.set_faults(Faults::default());
        let (spool, _) = Spool::open(self.disk.clone(), self.options(), self.now).unwrap();
        self.verify("at the end");
        drop(spool);
    }

    fn record(&mut self, spool: &mut Spool<Disk>) {
        let mut again: Vec<(usize, u64)> = Vec::new();
        for _ in 0..self.plan.packets {
            self.now = self.now.saturating_add(Duration::from_micros(self.random.below(60_000)));
            let (band, id) = match again.pop() {
                Some(again) => again,
                None => self.new_packet(),
            };
            if self.put(spool, band, id).is_err() {
                self.refused += 1;
            }
            let turn = spool.turn(self.now);
            self.learn(&turn);
            for band in &turn.rewound {
                let lost = std::mem::take(&mut self.unsynced[band.index()]);
                again.extend(lost.into_iter().map(|id| (band.index(), id)));
            }
        }
    }

    fn new_packet(&mut self) -> (usize, u64) {
        let id = self.next;
        self.next += 1;
        let address = 0x0a00_0000 + u32::try_from(self.random.below(50)).unwrap();
        let longest = if self.random.one_in(20) { 9000 } else { 600 };
        let len = 16 + self.random.below(longest);
        let mut data = vec![2; 12];
        data.extend_from_slice(&[8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
        data.extend_from_slice(&address.to_be_bytes());
        data.extend_from_slice(&[192, 168, 0, 1, 0, 53, 0, 99, 0, 8, 0, 0]);
        data.extend_from_slice(b"<id:");
        data.extend_from_slice(&id.to_le_bytes());
        let filler = if self.random.one_in(2) { 0 } else { self.random.next() };
        data.extend((0..len).map(|i| (filler.rotate_left(u32::try_from(i % 64).unwrap()) & 0xff) as u8));
        let time = self.now.saturating_sub(Duration::from_millis(self.random.below(40)));
        let interface = u16::try_from(self.random.below(5)).unwrap();
        self.known.insert(id, Known { time, interface, address, data });
        (usize::try_from(self.random.below(Band::COUNT as u64)).unwrap(), id)
    }

    fn put(&mut self, spool: &mut Spool<Disk>, band: usize, id: u64) -> Result<(), spool::writer::WriteRefusal> {
        let known = &self.known[&id];
        let packet = Packet {
            time: known.time,
            interface: InterfaceId(known.interface),
            link_type: LinkType::ETHERNET,
            direction: Direction::In,
            flags: PacketFlags::default(),
            original_len: u32::try_from(known.data.len()).unwrap(),
            drops_before: 0,
            data: &known.data,
        };
        let interface = &self.interfaces[usize::from(known.interface)];
        let band_of = Band::all().nth(band).unwrap();
        spool.put(band_of, interface, &packet, self.now)?;
        self.unsynced[band].push(id);
        Ok(())
    }

    fn learn(&mut self, turn: &WriteOutcome) {
        for band in &turn.synced {
            // A band that was rewound in the same turn lost what came after its last sync.
            if !turn.rewound.contains(band) {
                self.durable.extend(self.unsynced[band.index()].drain(..));
            }
        }
    }

    fn verify(&mut self, when: &str) {
        let (catalogue, _) = Catalogue::open(&self.disk, false).unwrap();
        self.verify_catalogue(&catalogue, when);
    }

    fn all(&self, catalogue: &Catalogue, selection: &Selection, when: &str) -> BTreeMap<u64, u64> {
        let mut found: BTreeMap<u64, u64> = BTreeMap::new();
        let mut packets = Packets::new(self.disk.clone(), catalogue, selection);
        let mut latest = Timestamp::MIN;
        while let Some(packet) = packets.next() {
            let id = id_of(packet.packet.data).unwrap_or_else(|| panic!("{when}: a packet without id"));
            let known = self.known.get(&id).unwrap_or_else(|| panic!("{when}: packet {id} was never there"));
            assert_eq!(known.data, packet.packet.data, "{when}: packet {id} differs");
            assert_eq!(known.time, packet.packet.time, "{when}: packet {id}");
            assert_eq!(packet.interface.name, format!("eth{}", known.interface), "{when}: packet {id}");
            assert!(packet.packet.time >= latest, "{when}: packet {id} is out of order");
            latest = packet.packet.time;
            *found.entry(id).or_default() += 1;
        }
        found
    }

    fn verify_catalogue(&mut self, catalogue: &Catalogue, when: &str) {
        let seed = self.plan.seed;
        let when = &format!("seed {seed}, {when}");
        let found = self.all(catalogue, &Selection::default(), when);
        let removed = self.removed();
        for id in &self.durable {
            assert!(found.contains_key(id) || removed.contains(id), "{when}: durable packet {id} is lost");
        }
        if self.plan.faults.append + self.plan.faults.sync + self.plan.faults.truncate == 0 {
            let twice: Vec<_> = found.iter().filter(|(_, count)| **count > 1).collect();
            assert!(twice.is_empty(), "{when}: twice: {twice:?}");
        }
        // What was found after a crash is on disk now, and must stay.
        let address = 0x0a00_0000 + u32::try_from(self.random.below(50)).unwrap();
        let conditions = vec![Condition::Ipv4(address, address)];
        let with_address = self.all(catalogue, &Selection { conditions, ..Selection::default() }, when);
        for id in found.keys().filter(|id| self.known[id].address == address) {
            assert!(with_address.contains_key(id), "{when}: the index hides packet {id}");
        }
        let from = self.now.saturating_sub(Duration::from_secs(self.random.below(40)));
        let until = from.saturating_add(Duration::from_secs(self.random.below(10)));
        let window = Selection { since: Some(from), until: Some(until), ..Selection::default() };
        let in_window = self.all(catalogue, &window, when);
        let expected = found.keys().filter(|id| from <= self.known[id].time && self.known[id].time <= until);
        assert!(in_window.keys().eq(expected), "{when}: a window");
    }

    fn removed(&self) -> HashSet<u64> {
        let mut ids = HashSet::new();
        for content in self.disk.removed() {
            let mut plain = Vec::new();
            let coding = match content.first() {
                Some(0x1f) => Coding { compressed: true, encrypted: false },
                Some(b'R') => Coding { compressed: self.plan.compressed, encrypted: true },
                _ => Coding::default(),
            };
            let bytes = if coding.is_plain() {
                content
            } else {
                let mut decoder = Decoder::new(self.disk.keys());
                let mut rest = &content[..];
                while let Some(len) = decoder.unit(coding, rest, &mut plain) {
                    rest = &rest[len..];
                }
                plain
            };
            ids.extend(bytes.windows(12).filter(|window| window.starts_with(b"<id:")).filter_map(id_at));
        }
        ids
    }

    /// Flips bits of sealed files, one at a time. The check must find each, and nothing but the packets of one commit may
    /// be missing. Returns how many cost packets.
    pub(crate) fn flip_bits(&mut self, flips: u64) -> u64 {
        let mut costly = 0;
        let (catalogue, _) = Catalogue::open(&self.disk, false).unwrap();
        let before = self.all(&catalogue, &Selection::default(), "before flips");
        for _ in 0..flips {
            let undo = self.disk.clone_contents();
            let Some(name) = self.disk.flip() else { return costly };
            let when = &format!("seed {}, a flipped bit in {name}", self.plan.seed);
            let len = self.disk.list().unwrap().into_iter().find(|(other, _)| *other == name).unwrap().1;
            let report = check_file(&self.disk, &name, len).unwrap();
            let (catalogue, _) = Catalogue::open(&self.disk, false).unwrap();
            let found = self.all(&catalogue, &Selection::default(), when);
            // The bits between the end of a deflate stream and the next byte carry nothing.
            let harmless = self.plan.compressed && !self.plan.encrypted && found == before;
            assert!(!report.is_whole() || !report.sealed || harmless, "{when}: not found");
            let missing = before.len() - found.len();
            costly += u64::from(missing > 0);
            let reported: u64 = report.damage.iter().filter_map(|damage| damage.packets).sum();
            assert!(
                !report.sealed || reported == missing as u64,
                "{when}: {missing} are missing, not {reported}: {report:?}"
            );
            assert!(report.packets + reported >= missing as u64, "{when}");
            self.disk.restore(undo);
        }
        costly
    }

    /// Packets that the spool refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }
}

fn id_at(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(4..)?.first_chunk()?))
}

fn id_of(data: &[u8]) -> Option<u64> {
    let at = data.windows(4).position(|window| window == b"<id:")?;
    id_at(&data[at..])
}
