//! Compares this crate's compiler with libpcap's: the same verdict for every packet, and the same refusals.
//!
//! libpcap's program without its optimizer says what an expression means for every packet, also for one that is cut
//! short. Its optimizer leaves out loads whose result does not matter, so that it accepts some packets that are too
//! short for them; such differences between libpcap's own two programs are counted, and are no fault here.
//!
//! `RETROCAP_JUDGE=all` compares every expression for every link type, which takes minutes.

mod expressions;
mod packets;
mod random;

use crate::compile::dlt;
use crate::compiler::{self, Failure};
use crate::vm::{Program, RawInstruction};
use base::packet::LinkType;
use expressions::Expressions;
use packets::{Packet, Packets};
use random::Random;

/// Compiles with libpcap.
fn libpcap(expression: &str, link_type: u16, optimize: bool) -> Result<Result<Program, String>, String> {
    let handle = pcap::Capture::dead(pcap::Linktype(i32::from(link_type))).map_err(|error| error.to_string())?;
    let compiled = handle.compile(expression, optimize).map_err(|error| error.to_string())?;
    let raw = compiled.get_instructions().iter().map(|instruction| {
        let numbers: Vec<u32> = instruction.to_string().split(' ').map(|number| number.parse().unwrap()).collect();
        RawInstruction {
            code: numbers[0].try_into().unwrap(),
            jump_true: numbers[1].try_into().unwrap(),
            jump_false: numbers[2].try_into().unwrap(),
            k: numbers[3],
        }
    });
    Ok(Program::load(&raw.collect::<Vec<_>>()).map_err(|error| error.to_string()))
}

/// Link types with headers of varying length.
const VARYING: [u16; 6] = [105, 117, 119, 127, 163, 192];

/// What was compared.
#[derive(Debug, Default)]
struct Tally {
    expressions: u32,
    compiled: u32,
    refused: u32,
    verdicts: u64,
    matching: u64,
    /// Programs for which libpcap itself gives another verdict with its optimizer.
    optimizer_differs: u32,
    /// Expressions that are found to match nothing, although libpcap's optimizer does not notice.
    more_refused: u32,
    /// The opposite.
    less_refused: u32,
    /// Programs of libpcap that overwrite the offset of a header, so that their verdict depends on the order of terms.
    overwritten: u32,
    instructions: u64,
    libpcap_instructions: u64,
    faults: Vec<String>,
}

impl Tally {
    fn fault(&mut self, text: String) {
        if self.faults.len() < 40 {
            eprintln!("{text}");
        }
        self.faults.push(text);
    }

    fn compare(&mut self, expression: &str, link_type: u16, packets: &[Packet]) {
        self.expressions += 1;
        let ours = compiler::compile(expression, link_type);
        let of = |what: &str| format!("link type {link_type}: {expression}: {what}");
        let plain = match libpcap(expression, link_type, false) {
            Ok(Ok(program)) => program,
            Ok(Err(_)) | Err(_) => {
                self.refused += 1;
                if ours.is_ok() {
                    let why = libpcap(expression, link_type, false).err();
                    self.fault(of(&format!("libpcap refuses ({why:?})")));
                }
                return;
            }
        };
        let optimized = libpcap(expression, link_type, true);
        let ours = match (ours, &optimized) {
            (Ok(program), Ok(Ok(_))) => program,
            (Err(Failure::Refused { .. } | Failure::Metadata), Err(_) | Ok(Err(_))) => {
                self.refused += 1;
                return;
            }
            (Ok(program), Err(why)) if why.contains("rejects all packets") => {
                self.less_refused += 1;
                if packets.iter().any(|packet| program.matches(&packet.data, packet.len)) {
                    self.fault(of("libpcap says that nothing matches, but a packet does"));
                } else if self.less_refused < 30 {
                    eprintln!("not refused: {}", of("nothing matches"));
                }
                return;
            }
            (Ok(_), Err(why) | Ok(Err(why))) => return self.fault(of(&format!("libpcap's optimizer refuses ({why})"))),
            // libpcap reads the metadata at a varying offset, where it never is.
            (Err(Failure::Metadata), Ok(Ok(_))) => {
                self.refused += 1;
                return;
            }
            (Err(Failure::Refused { message, .. }), Ok(Ok(_)))
                if message.contains("all packets") || message.contains("always") =>
            {
                self.more_refused += 1;
                if self.more_refused < 30 {
                    eprintln!("refused: {}", of("nothing matches"));
                }
                if packets.iter().any(|packet| plain.matches(&packet.data, packet.len)) {
                    self.fault(of("refused, but a packet matches"));
                }
                return;
            }
            (Err(why), Ok(Ok(_))) => return self.fault(of(&format!("libpcap compiles it, not refused: {why:?}"))),
        };
        self.compiled += 1;
        self.instructions += ours.len() as u64;
        let optimized = optimized.unwrap().unwrap();
        self.libpcap_instructions += optimized.len() as u64;
        let mut differs = false;
        for packet in packets {
            let verdict = plain.matches(&packet.data, packet.len);
            self.verdicts += 1;
            self.matching += u64::from(verdict);
            differs |= optimized.matches(&packet.data, packet.len) != verdict;
            if ours.matches(&packet.data, packet.len) != verdict {
                // On link types with headers of varying length, libpcap keeps the offset in a register that it also
                // gives to arithmetic before it, which overwrites the offset.
                let same = compiler::compile_with(expression, link_type, false).unwrap();
                if VARYING.contains(&link_type) && same.matches(&packet.data, packet.len) == verdict {
                    self.overwritten += 1;
                    return;
                }
                return self.fault(of(&format!("libpcap says {verdict} of {:02x?}", packet.data)));
            }
        }
        self.optimizer_differs += u32::from(differs);
    }

    fn finish(self, what: &str) {
        let Self { faults, .. } = &self;
        let faults = faults.len();
        eprintln!("{what}: {:?}", Self { faults: Vec::new(), ..self });
        assert_eq!(faults, 0, "differences from libpcap");
    }
}

/// The link types that the decoder opens, as libpcap numbers them at run time, and Ethernet first.
fn link_types() -> Vec<u16> {
    let mut all = vec![1];
    for number in 0..290 {
        let known = dlt(LinkType(number));
        if decode::opens(LinkType(number)) && !all.contains(&known) {
            all.push(known);
        }
    }
    all
}

fn is_thorough() -> bool {
    std::env::var_os("RETROCAP_JUDGE").is_some_and(|value| value == "all")
}

#[test]
fn ten_thousand_expressions_mean_what_libpcap_means() {
    let mut random = Random::new(20);
    let packets = Packets::new(&mut random);
    let mut expressions = Expressions::new(&packets);
    let link_types = link_types();
    let mut tally = Tally::default();
    for number in 0..10_000 {
        let expression = expressions.next(&mut random, if number % 10 == 0 { 5 } else { 2 });
        let chosen: Vec<u16> = if is_thorough() { link_types.clone() } else { vec![1, *random.choose(&link_types)] };
        for link_type in chosen {
            let sample = packets.sample(link_type, &mut random, if is_thorough() { 24 } else { 60 });
            tally.compare(&expression, link_type, &sample);
        }
    }
    assert!(tally.matching > 10_000 && tally.compiled > 5_000 && tally.refused > 100, "{tally:?}");
    tally.finish("generated");
}

/// Expressions of the documentation, the tests and the seeds, and forms whose meaning is easy to miss.
#[test]
fn known_expressions_mean_what_libpcap_means() {
    let mut random = Random::new(4);
    let packets = Packets::new(&mut random);
    let mut tally = Tally::default();
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/expression");
    let mut all: Vec<String> = expressions::KNOWN.iter().map(|text| (*text).to_owned()).collect();
    for seed in std::fs::read_dir(seeds).unwrap() {
        let bytes = std::fs::read(seed.unwrap().path()).unwrap();
        all.push(String::from_utf8(bytes.split(|byte| *byte == 0).next().unwrap().to_vec()).unwrap());
    }
    for expression in &all {
        let link_types = if is_thorough() { (0..290).collect() } else { link_types() };
        for link_type in link_types {
            let sample = packets.sample(link_type, &mut random, if link_type == 1 { 400 } else { 40 });
            tally.compare(expression, link_type, &sample);
        }
    }
    tally.finish("known");
}

/// What remains of words that have been cut, doubled and exchanged: mostly refused, and by both.
#[test]
fn damaged_expressions_are_refused_as_libpcap_refuses_them() {
    let mut random = Random::new(5);
    let packets = Packets::new(&mut random);
    let mut expressions = Expressions::new(&packets);
    let mut tally = Tally::default();
    let rounds = if is_thorough() { 100_000 } else { 6_000 };
    for _ in 0..rounds {
        let expression = expressions.damaged(&mut random);
        let sample = packets.sample(1, &mut random, 20);
        tally.compare(&expression, 1, &sample);
    }
    assert!(tally.refused > 1_000 && tally.compiled > 300, "{tally:?}");
    tally.finish("damaged");
}

/// The program with all tests in their order and the one without those that are known: the same verdict.
#[test]
fn leaving_out_known_tests_changes_no_verdict() {
    let mut random = Random::new(6);
    let packets = Packets::new(&mut random);
    let mut expressions = Expressions::new(&packets);
    let (mut all, mut kept) = (0, 0);
    for _ in 0..1_500 {
        let expression = expressions.next(&mut random, 4);
        let Ok(simplified) = compiler::compile(&expression, 1) else { continue };
        let plain = compiler::compile_with(&expression, 1, false).unwrap();
        for packet in packets.sample(1, &mut random, 60) {
            let verdict = plain.matches(&packet.data, packet.len);
            assert_eq!(simplified.matches(&packet.data, packet.len), verdict, "{expression} {:02x?}", packet.data);
        }
        (all, kept) = (all + plain.len(), kept + simplified.len());
    }
    assert!(kept * 10 < all * 7, "{kept} of {all} instructions are left");
}
