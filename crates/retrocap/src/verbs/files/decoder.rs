//! The process that puts objects together and decodes them.
//!
//! Content of the network is hostile, and decoders have mistakes. So the client starts itself once more: that process reads
//! packets from its standard input, and may compute, print, and create files in the one folder. It has no socket, reaches no
//! other file and starts nothing.

use std::io::Read;
use std::ops::ControlFlow;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Args;
use jiff::tz::TimeZone;

use super::arguments::ObjectArgs;
use super::folder::OutputFolder;
use super::list::ObjectList;
use crate::error::AlreadyReported;
use crate::options::Common;
use crate::terminal::human;
use crate::terminal::printable::note;
use crate::verbs::packet_pipe::PacketPipe;
use base::interface::{Interface, Interfaces};
use base::packet::Packet;
use base::source::{Batch, Source as _};
use daemon::sandbox::decoder;
use formats::reader::FileSource;
use formats::writer::{Format, Options};
use objects::{Collector, ObjectLimits};
use protocols::Protocols;
use streams::{Cause, Streams};

/// The process that decodes, from the side that feeds it.
pub(super) struct Decoder {
    child: Child,
    pipe: PacketPipe,
}

impl Decoder {
    /// Starts the process.
    pub(super) fn start(common: &Common, objects: &ObjectArgs, of_recorder: bool) -> anyhow::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("decode-objects").args(objects.words());
        command.args(of_recorder.then_some("--of-recorder"));
        command.args(common.json.then_some("--json")).args(common.quiet.then_some("--quiet"));
        let mut child =
            command.stdin(Stdio::piped()).spawn().context("cannot start the process that decodes objects")?;
        let pipe = PacketPipe::new(child.stdin.take(), Format::Pcapng, Options::default());
        Ok(Self { child, pipe })
    }

    /// Passes a packet on. Breaks off when the process reads no more.
    pub(super) fn packet(&mut self, interface: &Interface, packet: &Packet<'_>) -> ControlFlow<()> {
        self.pipe.packet(interface, packet).unwrap_or(ControlFlow::Break(()))
    }

    /// Ends the process, which then reports nothing.
    pub(super) fn abandon(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends the input, and waits for the process, which reports by itself what it found.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        self.pipe.end();
        let status = self.child.wait().context("cannot wait for the process that decodes objects")?;
        match status.code() {
            Some(0) => Ok(()),
            Some(1 | 2) => Err(AlreadyReported.into()),
            _ => {
                Err(anyhow!("the process that decodes objects ended early ({status}); what it listed before is valid"))
            }
        }
    }
}

/// The second process of `files`
#[derive(Debug, Args)]
pub(crate) struct DecodeObjects {
    #[command(flatten)]
    objects: ObjectArgs,
    #[arg(long)]
    of_recorder: bool,
}

impl DecodeObjects {
    /// Confines the process, and decodes the packets of its standard input.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        let interfaces = Arc::<Interfaces>::default();
        let list = ObjectList {
            filter: self.objects.filter(),
            json: common.json,
            // Read before files are out of reach.
            tz: TimeZone::system(),
            interfaces: Arc::clone(&interfaces),
            folder: self.objects.output.as_deref().map(OutputFolder::open).transpose()?,
            count: 0,
            incomplete: 0,
            bytes: 0,
            failed: None,
        };
        let missing = decoder::confine(self.objects.output.as_deref()).context("cannot confine the decoder")?;
        if let Some(missing) = missing {
            note(&format!("retrocap: the decoder is confined in part: {missing}"));
        }
        let mut protocols = Protocols::new(Collector::new(ObjectLimits::default(), list));
        let cause = if self.of_recorder { Cause::Cut } else { Cause::Missing };
        let mut streams = Streams::default().with_cause(cause);
        let input: Box<dyn Read + Send> = Box::new(std::io::stdin());
        let (mut source, mut sequence) = (FileSource::from_reader(input, interfaces), 0);
        loop {
            let batch = source.batch(&mut |packet| {
                sequence += 1;
                if protocols.sink.objects.failed.is_none() {
                    streams.packet(packet, sequence, &mut protocols);
                }
            })?;
            if batch == Batch::End || protocols.sink.objects.failed.is_some() {
                break;
            }
        }
        streams.finish(&mut protocols);
        protocols.sink.finish();
        let left_out = protocols.sink.left_out;
        report(&mut protocols.sink.objects, left_out, common)
    }
}

/// Says what was found.
fn report(list: &mut ObjectList, left_out: u64, common: &Common) -> anyhow::Result<()> {
    if let Some(error) = list.failed.take() {
        return Err(error);
    }
    if left_out > 0 {
        note(&format!(
            "retrocap: {left_out} more objects are not listed: the limit is {}; narrow the selection",
            ObjectLimits::default().objects
        ));
    }
    if list.count == 0 {
        return Err(anyhow!("no object matches in the packets that are kept; encrypted sessions reveal no objects"));
    }
    if !common.quiet {
        let partial =
            if list.incomplete > 0 { format!(", {} of them partial", list.incomplete) } else { String::new() };
        let of = human::counted(list.count, "object");
        note(&format!("retrocap: {of}, {}{partial}", human::size(list.bytes)));
    }
    Ok(())
}
