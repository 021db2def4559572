//! Passes packets to the standard input of another process.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::process::ChildStdin;

use base::interface::Interface;
use base::packet::Packet;
use formats::writer::{ExportError, Exporter, Format, Options};

/// Bytes that are passed on at once.
const PASSED_BYTES: usize = 64 << 10;

/// The standard input of a process that reads a capture file.
pub(super) struct PacketPipe {
    stdin: Option<ChildStdin>,
    exporter: Exporter,
    buffer: Vec<u8>,
}

impl PacketPipe {
    /// Begins the file.
    pub(super) fn new(stdin: Option<ChildStdin>, format: Format, options: Options) -> Self {
        let (mut exporter, mut buffer) = (Exporter::new(format, options), Vec::new());
        exporter.begin(&mut buffer, &[]);
        Self { stdin, exporter, buffer }
    }

    /// Passes a packet on. Breaks off when the process reads no more.
    ///
    /// # Errors
    ///
    /// If the format has no place for the packet, which is then left out.
    pub(super) fn packet(
        &mut self,
        interface: &Interface,
        packet: &Packet<'_>,
    ) -> Result<ControlFlow<()>, ExportError> {
        self.exporter.packet(&mut self.buffer, interface, packet)?;
        Ok(if self.buffer.len() >= PASSED_BYTES { self.pass() } else { ControlFlow::Continue(()) })
    }

    /// Passes on what waits.
    pub(super) fn pass(&mut self) -> ControlFlow<()> {
        let Some(stdin) = &mut self.stdin else { return ControlFlow::Break(()) };
        let written = stdin.write_all(&self.buffer);
        self.buffer.clear();
        if written.is_err() {
            // The process has ended, and its status says why.
            self.stdin = None;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Ends the file and the input.
    pub(super) fn end(&mut self) {
        self.exporter.end(&mut self.buffer, &[], &[]);
        let _ = self.pass();
        self.stdin = None;
    }
}
