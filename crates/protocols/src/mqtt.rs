//! MQTT 3.1 to 5 (OASIS): connections with user and password, topics.

use crate::cursor::Cursor;
use crate::event::Event;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = row("mqtt", "MQTT", Carrier::Tcp, probe, |_| Box::<Mqtt>::default());

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const SUBSCRIBE: u8 = 8;

/// The remaining length of a packet, and the bytes of its fixed header.
fn length(data: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (at, byte) in data.iter().skip(1).take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, 2 + at));
        }
    }
    None
}

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.first();
    if data.first().is_some_and(|first| *first != CONNECT << 4) {
        return Verdict::No;
    }
    if data.len() < 8 {
        return Verdict::More;
    }
    let name = length(data).and_then(|(_, at)| data.get(at..));
    Verdict::from_bool(name.is_some_and(|name| name.starts_with(b"\0\x04MQTT") || name.starts_with(b"\0\x06MQIsdp")))
}

#[derive(Default)]
struct Mqtt {
    skip: [usize; 2],
    version: u8,
}

impl Parser for Mqtt {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let at = input.sender.index();
        if self.skip[at] > 0 {
            let bytes = self.skip[at].min(input.data.len());
            self.skip[at] -= bytes;
            return Step::Used(bytes);
        }
        let Some((len, header)) = length(input.data) else {
            return if input.data.len() < 5 { Step::More } else { Step::Stop };
        };
        let there = input.data.len().min(header + len);
        if there < (header + len).min(4096) {
            return Step::More;
        }
        let body = &input.data[header..there];
        let event = |name| Event::new(name, input.sender, input.offset, header + len);
        match input.data[0] >> 4 {
            CONNECT => {
                if let Some(event) = self.connect(body, event("mqtt.connect")) {
                    out.emit(event);
                }
            }
            PUBLISH => {
                let topic = Cursor(body).long().unwrap_or_default();
                out.emit(event("mqtt.publish").bytes("topic", topic).number("bytes", len).word("write"));
            }
            SUBSCRIBE => {
                let mut cursor = Cursor(body);
                let _ = cursor.u16();
                if self.version >= 5 {
                    let _ = cursor.short();
                }
                let topic = cursor.long().unwrap_or_default();
                out.emit(event("mqtt.subscribe").bytes("topic", topic).word("read"));
            }
            _ => {}
        }
        self.skip[at] = header + len - there;
        Step::Used(there)
    }
}

impl Mqtt {
    fn connect(&mut self, body: &[u8], event: Event) -> Option<Event> {
        let mut cursor = Cursor(body);
        cursor.long()?;
        self.version = cursor.u8()?;
        let flags = cursor.u8()?;
        cursor.u16()?;
        if self.version >= 5 {
            cursor.short()?;
        }
        let mut event = event.bytes("client", cursor.long()?).number("version", self.version);
        if flags & 4 != 0 {
            if self.version >= 5 {
                cursor.short()?;
            }
            cursor.long()?;
            cursor.long()?;
        }
        if flags & 0x80 != 0 {
            event = event.bytes("user", cursor.long()?).word("login");
            if flags & 0x40 != 0 {
                event = event.bytes("password", cursor.long()?).number("plaintext", 1);
            }
        }
        Some(event)
    }
}
