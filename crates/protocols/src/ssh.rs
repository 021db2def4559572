//! SSH: banners (RFC 4253) and the fingerprint HASSH of the algorithms that a side offers.

use streams::Sender;

use crate::cursor::Cursor;
use crate::event::Event;
use crate::fingerprint::md5;
use crate::lines::{self, Line};
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol =
    Protocol { encrypted: true, ..row("ssh", "Secure Shell", Carrier::Tcp, probe, |_| Box::<Ssh>::default()) };

const KEXINIT: u8 = 20;

fn probe(probe: &Probe<'_>) -> Verdict {
    match lines::starts(probe.first(), b"SSH-") {
        Some(true) => Verdict::Yes,
        Some(false) => Verdict::No,
        None => Verdict::More,
    }
}

#[derive(Default)]
struct Ssh {
    greeted: [bool; 2],
    offered: [bool; 2],
}

impl Parser for Ssh {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let at = input.sender.index();
        if self.offered[at] {
            return Step::Used(input.data.len());
        }
        if !self.greeted[at] {
            let Line::Whole(line, used) = lines::line(input.data) else { return Step::More };
            if line.starts_with(b"SSH-") {
                self.greeted[at] = true;
                let event = Event::new("ssh.banner", input.sender, input.offset, used);
                out.emit(event.bytes("banner", line).word("banner"));
            }
            return Step::Used(used);
        }
        let mut cursor = Cursor(input.data);
        let (Some(len), Some(padding)) = (cursor.u32(), cursor.u8()) else { return Step::More };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if !(12..=35_000).contains(&len) {
            return Step::Stop;
        }
        let Some(packet) = input.data.get(5..4 + len) else { return Step::More };
        let message = packet.get(..packet.len().saturating_sub(usize::from(padding))).unwrap_or_default();
        self.offered[at] = true;
        if message.first() == Some(&KEXINIT)
            && let Some(event) = offer(message, input, 4 + len)
        {
            out.emit(event);
        }
        Step::Used(4 + len)
    }
}

fn offer(message: &[u8], input: Input<'_>, used: usize) -> Option<Event> {
    let mut cursor = Cursor(message);
    cursor.skip(17)?;
    let mut lists = Vec::new();
    for _ in 0..8 {
        let len = usize::try_from(cursor.u32()?).ok()?;
        lists.push(String::from_utf8_lossy(cursor.take(len)?).into_owned());
    }
    // Encryption, MAC and compression, each for the direction of the sender.
    let (name, from) = if input.sender == Sender::Originator { ("hassh", 2) } else { ("hassh_server", 3) };
    let hash = md5(&[&lists[0], &lists[from], &lists[from + 2], &lists[from + 4]].map(String::as_str).join(";"));
    Some(Event::new("ssh.offer", input.sender, input.offset, used).text(name, hash))
}
