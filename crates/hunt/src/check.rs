//! Runs a rule on its test conversations.

use base::packet::InterfaceId;
use base::time::Timestamp;
use decode::{Decoded, Network};
use engine::session::SessionKey;
use streams::{PacketRef, Run, Session, Sink as _};

use crate::attack::{Attack, AttackError, Conversation};
use crate::hunter::{Hunter, SearchScope};
use crate::indicators::Indicators;
use crate::matched::{Match, MatchSink};
use crate::patterns::{Builder, unhex};
use crate::plan;

/// Maximum number of rounds of a test conversation.
const ROUNDS_MAX: u32 = 10_000;
/// Bytes of a packet.
const PIECE_BYTES: usize = 512;

#[derive(Default)]
struct FirstMatch(bool);

impl MatchSink for FirstMatch {
    fn found(&mut self, _: &Session, _: Match) {
        self.0 = true;
    }
}

/// Runs all test conversations of a rule. Returns the names of those that passed.
///
/// # Errors
///
/// The first test conversation that failed or cannot be read.
pub fn check(attack: &Attack) -> Result<Vec<String>, AttackError> {
    let wrong = |what: String| AttackError::Rule(attack.name.clone(), what);
    for kind in [true, false] {
        if !attack.cases.iter().any(|case| case.matches == kind) {
            return Err(wrong(format!("it has no [[case]] with matches = {kind}")));
        }
    }
    let mut done = Vec::new();
    for case in &attack.cases {
        let mut builder = Builder::default();
        plan::patterns(attack, &mut builder).map_err(|error| wrong(error.to_string()))?;
        let patterns = builder.build().map_err(|error| wrong(error.to_string()))?;
        let mut hunter = Hunter::new(
            patterns,
            SearchScope::Stream,
            Indicators::default(),
            vec![attack.clone()],
            FirstMatch::default(),
        );
        feed(case, &mut hunter).map_err(wrong)?;
        if hunter.found().0 != case.matches {
            let what = if case.matches { "is not found" } else { "is found, and should not be" };
            return Err(wrong(format!("case {:?} {what}", case.name)));
        }
        done.push(case.name.clone());
    }
    Ok(done)
}

/// Feeds a test conversation to the hunter.
fn feed(case: &Conversation, hunter: &mut Hunter<FirstMatch>) -> Result<(), String> {
    for (number, port) in (1..).zip(&case.knocks) {
        let mut knock = session(case, *port);
        knock.number = number;
        (knock.first, knock.last) = (at(number), at(number));
        hunter.event(&knock, streams::Event::Begin);
        hunter.event(&knock, streams::Event::End);
    }
    let mut session = session(case, case.port);
    session.first = at(case.knocks.len() as u64 + 1);
    session.last = session.first;
    hunter.event(&session, streams::Event::Begin);
    let (mut offsets, mut sequence) = ([0u64; 2], 0);
    for round in 0..case.rounds.min(ROUNDS_MAX) {
        for say in &case.say {
            let mut bytes = match (&say.text, &say.hex) {
                (Some(text), None) => text.replace("{n}", &round.to_string()).into_bytes(),
                (None, Some(hex)) => {
                    unhex(hex).ok_or_else(|| format!("case {:?}: {hex:?} is not hexadecimal", case.name))?
                }
                _ => return Err(format!("case {:?}: say has one of text and hex", case.name)),
            };
            bytes.resize(bytes.len() + say.zeros.min(1 << 20), 0);
            if case.udp
                && let Some(last) = bytes.get_mut(13)
            {
                // Another name in each round of DNS.
                *last = last.wrapping_add(u8::try_from(round % 20).unwrap_or(0));
            }
            let sender = say.from.sender();
            let piece = if case.udp { usize::MAX } else { PIECE_BYTES };
            for data in bytes.chunks(piece) {
                sequence += 1;
                let packet = PacketRef { time: Timestamp::from_unix(1, round), sequence };
                let offset = offsets[sender.index()];
                hunter.event(&session, streams::Event::Run(Run { sender, offset, data, packet }));
                offsets[sender.index()] += data.len() as u64;
            }
        }
    }
    hunter.event(&session, streams::Event::End);
    hunter.finish();
    Ok(())
}

/// Some seconds after the start of all.
fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(seconds, 0)
}

fn session(case: &Conversation, port: u16) -> Session {
    let decoded = Decoded {
        network: Network::Ipv4,
        protocol: if case.udp { 17 } else { 6 },
        source: 0xc000_0201,
        destination: 0xc000_0202,
        source_port: 40_000,
        destination_port: port,
        ..Decoded::default()
    };
    let (key, originator_is) = SessionKey::new(&decoded, InterfaceId(0));
    Session::new(0, key, originator_is, true, Timestamp::MIN)
}
