//! Copies the packets of a file into another one.

use std::io;

use crate::blocks::SpooledInterface;
use crate::file::FileWriter;
use crate::layout::Header;
use crate::medium::Medium;
use crate::read::{FoundPacket, Packets};
use base::interface::Interface;
use base::packet::{InterfaceId, Packet};
use base::time::Timestamp;

/// Compression level of copies, where the original is compressed.
const LEVEL: u8 = 1;

/// Writes the packets that `is_kept` selects to a new file, which is durable, but not finished.
///
/// # Errors
///
/// If the medium does not take the file.
pub(crate) fn copy_packets<M: Medium, N: Medium>(
    packets: &mut Packets<M>,
    to: &N,
    header: Header,
    comments: &[String],
    is_kept: &mut dyn FnMut(&FoundPacket<'_>) -> bool,
) -> io::Result<FileWriter<N>> {
    let mut file = FileWriter::create(to, header, LEVEL, comments)?;
    // Make it durable first: after a crash, an unfinished file that replaces another is ignored.
    file.flush(to)?;
    file.sync(to)?;
    to.sync_names()?;
    while let Some(one) = packets.next() {
        if !is_kept(&one) {
            continue;
        }
        let packet = one.packet;
        let number = InterfaceId(u16::try_from(packet.interface).unwrap_or(u16::MAX));
        let interface = interface(number, one.interface);
        let packet = Packet {
            time: packet.time,
            interface: number,
            link_type: interface.link_type,
            direction: packet.direction,
            flags: packet.flags,
            original_len: packet.original_len,
            drops_before: packet.drops_before,
            data: packet.data,
        };
        file.put(&interface, &packet);
        if file.is_behind() {
            file.write(to)?;
        }
    }
    Ok(file)
}

/// Seals the file and makes it durable.
///
/// # Errors
///
/// If that is not certain.
pub(crate) fn finish<N: Medium>(mut file: FileWriter<N>, to: &N) -> io::Result<()> {
    file.seal(to)?;
    file.sync(to)?;
    to.sync_names()
}

fn interface(id: InterfaceId, spooled: &SpooledInterface) -> Interface {
    Interface {
        id,
        name: spooled.name.clone(),
        index: 0,
        link_type: spooled.link_type,
        description: spooled.description.clone(),
        os: spooled.os.clone(),
        up: true,
        gone: None,
        since: Timestamp::MIN,
    }
}
