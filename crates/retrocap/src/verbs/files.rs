//! `retrocap files`: files, bodies and mails out of the past.

mod arguments;
pub(crate) mod decoder;
mod folder;
mod list;

use std::ops::ControlFlow;
use std::sync::Arc;

use clap::Args;

use crate::archived::{ReadsArchive, Wanted};
use crate::options::Common;
use crate::verbs::analysis::{self, InputEvent, SessionInput};
use crate::verbs::apps;
use crate::verbs::selection::{Selection, TimeWindowArgs};
use crate::verbs::trailers;
use arguments::ObjectArgs;
use base::interface::Interfaces;
use decoder::Decoder;
use protocols::AppFilter;

/// List or extract files, HTTP bodies and mails that were transferred
#[derive(Debug, Args)]
#[command(after_help = "\
files finds objects in HTTP, SMTP, IMAP, POP3, FTP, SMB 2 and 3, and TFTP, on any port. The type of an object is detected
from its content; the type that the sender claimed is listed separately. An object with missing bytes is marked partial.

Examples:
  retrocap files --since 1h                         the objects of the last hour
  retrocap files --kind http --type application/pdf -o out/    the PDF files, into a folder
  retrocap files --sha256 275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f      who got this file?
  retrocap files -r odd.pcapng --json | jq .name    from a capture file, for scripts")]
pub(crate) struct Files {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    around: TimeWindowArgs,
    /// Only sessions of this application protocol, in which this was said: http, smtp:login
    #[arg(long, value_name = "NAME[:WORD]", help_heading = "Selection")]
    app: Option<AppFilter>,
    #[command(flatten)]
    objects: ObjectArgs,
}

impl ReadsArchive for Files {
    fn asked(&mut self) -> (&mut Selection, &mut TimeWindowArgs, Wanted) {
        let wanted = Wanted { sessions: false, whole_sessions: false, follows: false };
        (&mut self.selection, &mut self.around, wanted)
    }

    fn run_verb(&self, common: &Common) -> anyhow::Result<()> {
        self.run(common)
    }
}

impl Files {
    /// Lists or writes the objects.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        self.objects.check()?;
        analysis::reading(common, &self.selection, |common| self.ask(common))
    }

    /// Reads the packets, and passes them on to a process that decodes them.
    fn ask(&self, common: &Common) -> anyhow::Result<()> {
        let interfaces = Arc::<Interfaces>::default();
        let question = SessionInput {
            common,
            selection: &self.selection,
            around: &self.around,
            follow: false,
            whole_sessions: false,
            narrowed: None,
        };
        let mut chosen = self.app.as_ref().map(|app| apps::find(app, &question, &interfaces, true)).transpose()?;
        // A recorder cuts sessions. A capture file does not say why packets are missing.
        let of_recorder = self.selection.read.is_empty() && self.selection.spool().is_none();
        let mut decoder = Decoder::start(common, &self.objects, of_recorder)?;
        let read = question.read(&interfaces, &mut |moment| {
            let InputEvent::Packet(packet, _) = moment else { return ControlFlow::Continue(()) };
            let wanted = chosen.as_mut().is_none_or(|chosen| chosen.has(packet));
            match interfaces.interface(packet.interface).filter(|_| wanted) {
                Some(interface) => decoder.packet(&interface, packet),
                None => ControlFlow::Continue(()),
            }
        });
        match read {
            Ok(trailers) => {
                trailers::missing(&trailers, common);
                decoder.end()?;
                trailers::complete(&trailers)
            }
            Err(error) => {
                decoder.abandon();
                Err(error)
            }
        }
    }
}
