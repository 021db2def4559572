//! Converts pcapng blocks and options other than packets to host byte order, and keeps them as annotations.

use super::byte_order::ByteOrder;
use super::options::{Options, padding, text};
use super::resolution::Resolution;
use crate::annotations::Annotations;
use crate::constants::*;
use crate::statistics::InterfaceStatistics;
use crate::writer::pcapng::{block, put_option};
use base::packet::InterfaceId;
use base::time::Timestamp;

/// The maximum length of a comment or other text, in bytes.
const TEXT_BYTES_MAX: usize = 65_535;
/// The size in bytes of a section header's body before its options.
const SECTION_FIXED_BYTES: usize = 16;
/// The size in bytes of a statistics block's body before its options: interface and time.
const STATISTICS_FIXED_BYTES: usize = 12;

/// Returns whether blocks of this type are kept as annotations.
pub(super) fn is_kept(kind: u32) -> bool {
    matches!(
        kind,
        SECTION_HEADER
            | NAME_RESOLUTION
            | INTERFACE_STATISTICS
            | JOURNAL_EXPORT
            | DECRYPTION_SECRETS
            | CUSTOM
            | CUSTOM_NOT_COPIED
    )
}

/// Returns the name under which blocks of this type are counted.
pub(super) fn name_of_kind(kind: u32) -> &'static str {
    match kind {
        SECTION_HEADER => "section comments",
        NAME_RESOLUTION => "name resolution blocks",
        INTERFACE_STATISTICS => "interface statistics blocks",
        JOURNAL_EXPORT => "systemd journal blocks",
        DECRYPTION_SECRETS => "decryption secrets blocks",
        CUSTOM => "custom blocks",
        _ => "custom blocks that must not be copied",
    }
}

/// Keeps the contents of a block. An inconsistent block is counted as left out and is not an error, because no packet
/// depends on it.
pub(super) fn keep(
    kind: u32,
    order: ByteOrder,
    body: &[u8],
    interfaces: &[(Option<InterfaceId>, Resolution)],
    annotations: &mut Annotations,
) {
    let name = name_of_kind(kind);
    let kept = match kind {
        SECTION_HEADER => section(order, body, annotations),
        INTERFACE_STATISTICS => {
            annotations.found_one(name);
            statistics(order, body, interfaces, annotations)
        }
        CUSTOM_NOT_COPIED => {
            annotations.found_one(name);
            None
        }
        _ => {
            annotations.found_one(name);
            native_block(kind, order, body, annotations).map(|body| {
                if annotations.room_for(name, body.len() + 12) {
                    block(&mut annotations.blocks, kind, |out| out.extend_from_slice(&body));
                }
            })
        }
    };
    if kept.is_none() {
        annotations.leave_out(name);
    }
}

fn section(order: ByteOrder, body: &[u8], annotations: &mut Annotations) -> Option<()> {
    for (code, value) in (Options { order, rest: body.get(SECTION_FIXED_BYTES..)? }).map_while(Result::ok) {
        let text = text(value, TEXT_BYTES_MAX);
        match code {
            OPTION_COMMENT => annotations.comment(text),
            SHB_HARDWARE | SHB_OS => {
                const NAME: &str = "section options";

                annotations.found_one(NAME);
                if annotations.room_for(NAME, text.len()) {
                    let known = if code == SHB_OS { &mut annotations.os } else { &mut annotations.hardware };
                    match known {
                        None => *known = Some(text),
                        Some(first) if *first == text => {}
                        Some(_) => annotations.leave_out(NAME),
                    }
                }
            }
            SHB_USERAPPL => annotations.comment(format!("captured with {text}")),
            _ => {
                annotations.found_one("section options");
                annotations.leave_out("section options");
            }
        }
    }
    Some(())
}

fn statistics(
    order: ByteOrder,
    body: &[u8],
    interfaces: &[(Option<InterfaceId>, Resolution)],
    annotations: &mut Annotations,
) -> Option<()> {
    if body.len() < STATISTICS_FIXED_BYTES {
        return None;
    }
    let (id, resolution) = *interfaces.get(usize::try_from(order.u32(body, 0)).ok()?)?;
    let mut known = InterfaceStatistics::of(id?);
    for (code, value) in (Options { order, rest: body.get(STATISTICS_FIXED_BYTES..)? }).map_while(Result::ok) {
        if code == OPTION_COMMENT {
            annotations.comment(text(value, TEXT_BYTES_MAX));
            continue;
        }
        if value.len() < 8 {
            continue;
        }
        let count = Some(order.u64(value, 0));
        let time = || -> Option<Timestamp> {
            let units = u64::from(order.u32(value, 0)) << 32 | u64::from(order.u32(value, 4));
            Some(resolution.time(units).0)
        };
        match code {
            ISB_STARTTIME => known.start = time(),
            ISB_ENDTIME => known.end = time(),
            ISB_IFRECV => known.received = count,
            ISB_IFDROP => known.dropped = count,
            ISB_FILTERACCEPT => known.accepted = count,
            ISB_OSDROP => known.os_dropped = count,
            ISB_USRDELIV => known.delivered = count,
            _ => annotations.leave_out("statistics options"),
        }
    }
    if annotations.room_for(name_of_kind(INTERFACE_STATISTICS), size_of::<InterfaceStatistics>()) {
        annotations.statistics.insert(known.interface, known);
    }
    Some(())
}

/// Converts the body of a block to host byte order. Returns `None` if the body is too short.
fn native_block(kind: u32, order: ByteOrder, body: &[u8], annotations: &mut Annotations) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len());
    match kind {
        DECRYPTION_SECRETS => {
            let (header, rest) = body.split_first_chunk::<8>()?;
            let length = usize::try_from(order.u32(header, 4)).ok()?;
            let secrets = rest.get(..length)?;
            for at in [0, 4] {
                out.extend_from_slice(&order.u32(header, at).to_ne_bytes());
            }
            put_padded(&mut out, secrets);
            let options = rest.get(secrets.len() + padding(secrets.len())..).unwrap_or_default();
            block_options(order, options, &mut out, annotations);
        }
        // Text, with zeros at the end.
        JOURNAL_EXPORT => out.extend_from_slice(body),
        NAME_RESOLUTION => {
            let mut rest = body;
            loop {
                let (header, after) = rest.split_first_chunk::<4>()?;
                let (record, length) = (order.u16(header, 0), order.u16(header, 2));
                let value = after.get(..usize::from(length))?;
                put_option(&mut out, record, value);
                if record == 0 {
                    block_options(order, after, &mut out, annotations);
                    break;
                }
                rest = after.get(value.len() + padding(value.len())..)?;
            }
        }
        _ => {
            let (number, rest) = body.split_first_chunk::<4>()?;
            out.extend_from_slice(&order.u32(number, 0).to_ne_bytes());
            put_padded(&mut out, rest);
        }
    }
    Some(out)
}

/// Keeps the options at the end of a block, if there are any.
fn block_options(order: ByteOrder, options: &[u8], out: &mut Vec<u8>, annotations: &mut Annotations) {
    const NAME: &str = "options of blocks";

    let before = out.len();
    for (code, value) in (Options { order, rest: options }).map_while(Result::ok) {
        annotations.found_one(if code == OPTION_COMMENT { "comments" } else { NAME });
        if code == OPTION_COMMENT || NS_SERVER.contains(&code) {
            put_option(out, code, value);
        } else if !put_custom(code, order, value, out) {
            annotations.leave_out(NAME);
        }
    }
    if out.len() > before {
        put_option(out, OPTION_END, &[]);
    }
}

fn put_padded(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(value);
    out.resize(out.len() + padding(value.len()), 0);
}

/// Keeps an option of an interface that the interface table has no field for.
pub(super) fn interface_option(
    code: u16,
    order: ByteOrder,
    value: &[u8],
    out: &mut Vec<u8>,
    annotations: &mut Annotations,
) {
    const NAME: &str = "interface options";

    annotations.found_one(if code == OPTION_COMMENT { "comments" } else { NAME });
    match code {
        OPTION_COMMENT | IF_IPV4 | IF_IPV6 | IF_MAC | IF_EUI | IF_FILTER | IF_FCSLEN | IF_HARDWARE => {
            put_option(out, code, value);
        }
        IF_SPEED | IF_TXSPEED | IF_RXSPEED if value.len() == 8 => {
            put_option(out, code, &order.u64(value, 0).to_ne_bytes());
        }
        _ if put_custom(code, order, value, out) => {}
        _ => annotations.leave_out(NAME),
    }
}

/// Keeps an option of a packet that stored packets have no field for.
pub(super) fn packet_option(
    code: u16,
    order: ByteOrder,
    value: &[u8],
    out: &mut Vec<u8>,
    annotations: &mut Annotations,
) {
    match code {
        OPTION_COMMENT | EPB_HASH | EPB_VERDICT => put_option(out, code, value),
        EPB_PACKETID if value.len() == 8 => put_option(out, code, &order.u64(value, 0).to_ne_bytes()),
        EPB_QUEUE if value.len() == 4 => put_option(out, code, &order.u32(value, 0).to_ne_bytes()),
        _ if put_custom(code, order, value, out) => {}
        _ => {
            annotations.found_one("packet options");
            annotations.leave_out("packet options");
        }
    }
}

/// Writes an option if it is a custom option that may be copied, and returns whether it is one.
fn put_custom(code: u16, order: ByteOrder, value: &[u8], out: &mut Vec<u8>) -> bool {
    if !matches!(code, CUSTOM_TEXT | CUSTOM_BYTES) || matches!(code, CUSTOM_TEXT_NOT_COPIED | CUSTOM_BYTES_NOT_COPIED) {
        return false;
    }
    let Some((number, rest)) = value.split_first_chunk::<4>() else { return false };
    put_option(out, code, &[&order.u32(number, 0).to_ne_bytes()[..], rest].concat());
    true
}
