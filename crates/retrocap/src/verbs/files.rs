//! `retrocap files`: files, bodies and mails out of the past.

mod folder;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::error::Usage;
use crate::offline;
use crate::options::Common;
use crate::terminal::human;
use crate::terminal::printable::{note, plain, print, print_json};
use crate::verbs::analysis::{self, InputEvent, SessionInput};
use crate::verbs::selection::{Around, Selection};
use crate::verbs::trailers;
use base::interface::Interfaces;
use base::time;
use engine::budget::ByteSize;
use folder::OutputFolder;
use objects::{Collector, Object, ObjectLimits, ObjectSink};
use protocols::Protocols;
use streams::{Cause, Session, Streams};

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
    around: Around,
    /// Write the objects to this folder, under safe names, with manifest.jsonl
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Only objects of this protocol: http, smtp, imap, pop3, ftp, smb, tftp
    #[arg(long, value_name = "PROTOCOL")]
    kind: Vec<String>,
    /// Only objects whose content is of this type: image/png, image/
    #[arg(long = "type", value_name = "MIME")]
    mime: Option<String>,
    /// Only the object with this hash
    #[arg(long, value_name = "HASH", value_parser = sha256)]
    sha256: Option<String>,
    /// Only objects of at least this size: 10K
    #[arg(long, value_name = "SIZE")]
    min: Option<ByteSize>,
}

fn sha256(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text)
    } else {
        Err("a SHA-256 has 64 hexadecimal digits".to_owned())
    }
}

impl Files {
    /// Lists or writes the objects.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        for kind in &self.kind {
            if !["http", "smtp", "imap", "pop3", "ftp", "smb", "smb2", "tftp"].contains(&kind.as_str()) {
                return Err(Usage::of(format_args!(
                    "--kind {kind} is not a protocol with objects: use http, smtp, imap, pop3, ftp, smb or tftp"
                )));
            }
        }
        offline::reading(common, &self.selection.read, |common| self.ask(common))
    }

    fn ask(&self, common: &Common) -> anyhow::Result<()> {
        let interfaces = Arc::<Interfaces>::default();
        let folder = self.output.as_deref().map(OutputFolder::open).transpose()?;
        let list = ObjectList {
            files: self,
            json: common.json,
            tz: TimeZone::system(),
            interfaces: Arc::clone(&interfaces),
            folder,
            count: 0,
            incomplete: 0,
            bytes: 0,
            failed: None,
        };
        let mut protocols = Protocols::new(Collector::new(ObjectLimits::default(), list));
        let cause = if self.selection.read.is_empty() { Cause::Cut } else { Cause::Missing };
        let mut streams = Streams::default().with_cause(cause);
        let question = SessionInput {
            common,
            selection: &self.selection,
            around: &self.around,
            follow: false,
            whole_sessions: false,
        };
        let trailers = question.read(&interfaces, &mut |moment| {
            if let InputEvent::Packet(packet, sequence) = moment {
                streams.packet(packet, sequence, &mut protocols);
            }
            if protocols.sink.objects.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        streams.finish(&mut protocols);
        protocols.sink.finish();
        let left_out = protocols.sink.left_out;
        let list = &mut protocols.sink.objects;
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
            return Err(anyhow!(
                "no object matches in the packets that are kept; encrypted sessions reveal no objects"
            ));
        }
        if !common.quiet {
            let partial =
                if list.incomplete > 0 { format!(", {} of them partial", list.incomplete) } else { String::new() };
            let of = human::counted(list.count, "object");
            note(&format!("retrocap: {of}, {}{partial}", human::size(list.bytes)));
        }
        trailers::ended(&trailers, common)
    }

    fn wants(&self, object: &Object) -> bool {
        let kind = |kind: &String| kind == object.protocol || (kind == "smb" && object.protocol == "smb2");
        (self.kind.is_empty() || self.kind.iter().any(kind))
            && self.mime.as_ref().is_none_or(|mime| object.mime.starts_with(mime.as_str()))
            && self.sha256.as_ref().is_none_or(|hash| *hash == object.hashes[2])
            && self.min.is_none_or(|least| object.content.len() as u64 >= least.0)
    }
}

/// Prints objects, and writes them.
struct ObjectList<'a> {
    files: &'a Files,
    json: bool,
    tz: TimeZone,
    interfaces: Arc<Interfaces>,
    folder: Option<OutputFolder>,
    count: u64,
    incomplete: u64,
    bytes: u64,
    failed: Option<anyhow::Error>,
}

impl ObjectSink for ObjectList<'_> {
    fn object(&mut self, session: &Session, object: Object) {
        if self.failed.is_none()
            && self.files.wants(&object)
            && let Err(error) = self.add(session, &object)
        {
            self.failed = Some(error);
        }
    }
}

impl ObjectList<'_> {
    fn add(&mut self, session: &Session, object: &Object) -> anyhow::Result<()> {
        self.count += 1;
        self.incomplete += u64::from(!object.complete);
        self.bytes += object.content.len() as u64;
        let path = self.folder.as_ref().map(|folder| folder.write(object)).transpose()?;
        let document = self.document(session, object, path.as_deref());
        if let Some(folder) = &mut self.folder {
            folder.note(&document)?;
        }
        if self.json {
            return print_json(&format!("{document}\n"));
        }
        let at = time::local(object.packet.time, &self.tz);
        let state = if object.complete { "" } else { "  partial" };
        let part = object.part_of.map(|number| format!("  part of {number}")).unwrap_or_default();
        let name = if object.name.is_empty() { "-" } else { &object.name };
        print(&format!(
            "{:>5}  {at}  {:<5} {:>9}  {:<28} {}{state}{part}\n       {}  {}\n",
            object.number,
            object.protocol,
            human::size(object.content.len() as u64),
            object.mime,
            plain(name),
            analysis::line(session),
            object.hashes[2],
        ))
    }

    fn document(&self, session: &Session, object: &Object, path: Option<&str>) -> Value {
        json!({
            "time": object.packet.time,
            "protocol": object.protocol,
            "name": object.name,
            "mime": object.mime,
            "mime_declared": object.mime_declared,
            "size": object.content.len(),
            "size_declared": object.size_declared,
            "complete": object.complete,
            "missing_bytes": object.missing_bytes,
            "md5": object.hashes[0],
            "sha1": object.hashes[1],
            "sha256": object.hashes[2],
            "flow": analysis::flow(session, &self.interfaces, ""),
            "direction": object.sender.name(),
            "source": object.source,
            "path": path,
            "number": object.number,
            "part_of": object.part_of,
            "packet": { "time": object.packet.time, "sequence": object.packet.sequence },
            "stream_offset": object.offset,
            "holes": object.holes.iter().take(1000).map(|(at, len)| json!({ "offset": at, "length": len })).collect::<Vec<_>>(),
            "notes": object.notes,
        })
    }
}
