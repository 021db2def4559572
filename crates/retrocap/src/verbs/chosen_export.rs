//! Reads packets once more that were found by what they say, and exports them: `get --app` and `hunt -w`.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::Context as _;

use crate::terminal::output::Output;
use crate::verbs::analysis::{InputEvent, SessionInput};
use crate::verbs::trailers;
use base::interface::Interfaces;
use formats::writer::{Exporter, Format, Options, Precision};
use streams::ChosenPackets;

/// Packets that were found, to be read once more and exported.
pub(super) struct ChosenExport<'a> {
    pub(super) question: SessionInput<'a>,
    pub(super) chosen: ChosenPackets,
    pub(super) interfaces: Arc<Interfaces>,
    pub(super) format: Format,
    pub(super) precision: Precision,
    /// Packets after which the export ends.
    pub(super) limit: u64,
    /// What the file says of itself, where its format has comments.
    pub(super) comments: &'a [String],
}

/// What was exported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exported {
    pub(super) packets: u64,
    /// Their captured bytes.
    pub(super) bytes: u64,
    pub(super) file_bytes: u64,
}

impl ChosenExport<'_> {
    /// The file, from its start.
    pub(super) fn into_file(self) -> anyhow::Result<File> {
        let mut file = tempfile::tempfile().context("cannot make a temporary file")?;
        self.write(&mut |bytes| {
            file.write_all(bytes)?;
            bytes.clear();
            Ok(())
        })?;
        file.rewind()?;
        Ok(file)
    }

    /// Writes the file to `output`.
    pub(super) fn into_output(self, mut output: Output) -> anyhow::Result<Exported> {
        let (packets, bytes) = self.write(&mut |bytes| {
            output.buffer().append(bytes);
            output.write_some()
        })?;
        Ok(Exported { packets, bytes, file_bytes: output.finish()? })
    }

    /// Passes the file on in parts, and says which packets were evicted meanwhile. Returns how many packets and captured bytes it holds.
    fn write(mut self, to: &mut dyn FnMut(&mut Vec<u8>) -> anyhow::Result<()>) -> anyhow::Result<(u64, u64)> {
        let mut exporter = Exporter::new(self.format, Options { precision: self.precision, ..Options::default() });
        let (mut buffer, mut packets, mut bytes, mut failed) = (Vec::new(), 0u64, 0u64, None);
        exporter.begin(&mut buffer, self.comments);
        let (interfaces, chosen, limit) = (&self.interfaces, &mut self.chosen, self.limit);
        let trailers = self.question.read(interfaces, &mut |moment| {
            let InputEvent::Packet(packet, _) = moment else { return ControlFlow::Continue(()) };
            let Some(interface) = interfaces.interface(packet.interface).filter(|_| chosen.has(packet)) else {
                return ControlFlow::Continue(());
            };
            (packets, bytes) = (packets + 1, bytes + packet.data.len() as u64);
            let written = exporter.packet(&mut buffer, &interface, packet).map_err(anyhow::Error::from);
            match written.and_then(|()| to(&mut buffer)) {
                Ok(()) if packets >= limit => ControlFlow::Break(()),
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        exporter.end(&mut buffer, &[], &[]);
        to(&mut buffer)?;
        trailers::ended(&trailers, self.question.common)?;
        Ok((packets, bytes))
    }
}
