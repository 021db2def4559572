//! SMB 1 (MS-CIFS): its commands and files. Its use is reported, because it is obsolete and insecure.

use streams::Sender;

use crate::cursor::{u16_le_at, u32_le_at};
use crate::event::Event;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};
use crate::smb_files::FrameRest;
use crate::smb1_commands::{Commands, HEADER_BYTES};

pub(crate) const ROW: Protocol = Protocol {
    resumes: |data| data.get(4..8) == Some(MAGIC),
    ..row("smb1", "Server Message Block 1", Carrier::Tcp, probe, |_| Box::<Smb1>::default())
};

const MAGIC: &[u8] = b"\xffSMB";
/// Bytes of a message that are read at once: its header, its parameters and its names.
const HEAD_BYTES: usize = 512;

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.first();
    let magic = |data: &[u8]| data.get(4..8) == Some(MAGIC);
    if magic(data) {
        // A response in SMB 2 switches the session to SMB 2.
        return if probe.data[1].len() < 8 { Verdict::More } else { Verdict::from_bool(magic(probe.data[1])) };
    }
    let netbios = data.first() == Some(&0x81) && probe.has_port(139);
    if netbios {
        let len = data.get(3).map_or(0, |len| usize::from(*len) + 4);
        return match data.get(len..) {
            Some(rest) if rest.len() >= 8 => Verdict::from_bool(magic(rest)),
            _ => Verdict::More,
        };
    }
    if data.len() < 8 && data.first().is_none_or(|first| *first == 0) { Verdict::More } else { Verdict::No }
}

#[derive(Default)]
struct Smb1 {
    commands: Commands,
    rest: FrameRest,
}

impl Parser for Smb1 {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        if let Some(step) = self.rest.data(input, out) {
            return step;
        }
        let Some(frame) = input.data.first_chunk::<4>() else { return Step::More };
        let len = usize::from(frame[1]) << 16 | usize::from(frame[2]) << 8 | usize::from(frame[3]);
        if frame[0] != 0 && !matches!(frame[0], 0x81..=0x85) {
            return Step::Stop;
        }
        let there = input.data.len().min(4 + len);
        if there < (4 + len).min(HEAD_BYTES) {
            return Step::More;
        }
        let message = &input.data[4..there];
        if message.starts_with(MAGIC) {
            emit_message(message, len, input, out);
            if let Some(content) = self.commands.message(message, input, out)
                && let Some(step) = self.rest.pass(content, message, len, input, out)
            {
                return step;
            }
        }
        self.rest.skip(len, input)
    }

    fn gap(&mut self, sender: Sender, len: u64, _out: &mut ParserOutput<'_>) -> bool {
        self.rest.gap(sender, len)
    }

    fn end(&mut self, out: &mut ParserOutput<'_>) {
        self.commands.files.end(out);
    }
}

fn emit_message(message: &[u8], len: usize, input: Input<'_>, out: &mut ParserOutput<'_>) {
    let (Some(command), Some(status), Some(flags)) = (message.get(4), u32_le_at(message, 5), message.get(9)) else {
        return;
    };
    let response = flags & 0x80 != 0;
    let name = if response { "smb1.response" } else { "smb1.request" };
    let mut event =
        Event::new(name, input.sender, input.offset, 4 + len).number("command", *command).number("length", len);
    let words = usize::from(message.get(HEADER_BYTES).copied().unwrap_or(0));
    let parameters = message.get(HEADER_BYTES + 1..).unwrap_or_default();
    let parameter = |at: usize| u16_le_at(parameters, at * 2);
    // TRANSACTION2 and its secondary have their subcommand in the setup words.
    if matches!(command, 0x32 | 0x25) && !response && words > 13 {
        event = event.number("subcommand", parameter(14).unwrap_or(0)).number("total_data", parameter(1).unwrap_or(0));
    }
    if matches!(command, 0xa0 | 0xa1) && !response {
        let total = parameters.get(7..).and_then(|rest| u32_le_at(rest, 0));
        event = event.number("total_data", total.unwrap_or(0));
        event = event.number("function", parameters.get(36..).and_then(|rest| u16_le_at(rest, 0)).unwrap_or(0));
    }
    let word = match command {
        0x73 => "login",
        0x2e | 0x0a => "read",
        0x2f | 0x0b | 0x06 => "write",
        _ => "",
    };
    let failed = response && status >> 30 == 3 && status != 0xc000_0016;
    let event = if response { event.number("status", status) } else { event.word(word) };
    out.emit(event.word(if failed { "error" } else { "" }));
}
