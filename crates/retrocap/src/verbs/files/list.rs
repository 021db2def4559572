//! Prints objects, and writes them.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::folder::OutputFolder;
use crate::terminal::human;
use crate::terminal::printable::{plain, print, print_json};
use crate::verbs::analysis;
use api::content::ObjectLine;
use base::interface::Interfaces;
use base::time;
use objects::{Object, ObjectFilter, ObjectSink};
use streams::Session;

/// Prints objects, and writes them.
pub(super) struct ObjectList {
    pub(super) filter: ObjectFilter,
    pub(super) json: bool,
    pub(super) tz: TimeZone,
    pub(super) interfaces: Arc<Interfaces>,
    pub(super) folder: Option<OutputFolder>,
    pub(super) count: u64,
    pub(super) incomplete: u64,
    pub(super) bytes: u64,
    pub(super) failed: Option<anyhow::Error>,
}

impl ObjectSink for ObjectList {
    fn object(&mut self, session: &Session, object: Object) {
        if self.failed.is_none()
            && self.filter.matches(&object)
            && let Err(error) = self.add(session, &object)
        {
            self.failed = Some(error);
        }
    }
}

impl ObjectList {
    fn add(&mut self, session: &Session, object: &Object) -> anyhow::Result<()> {
        self.count += 1;
        self.incomplete += u64::from(!object.complete);
        self.bytes += object.content.len() as u64;
        let path = self.folder.as_ref().map(|folder| folder.write(object)).transpose()?;
        let document = serde_json::to_string(&ObjectLine::new(session, object, path, &self.interfaces))?;
        if let Some(folder) = &mut self.folder {
            folder.note(&document)?;
        }
        if self.json {
            return print_json(&format!("{document}\n"));
        }
        let at = time::local(object.packet.time, &self.tz);
        let state = match (object.complete, object.unpacked) {
            (false, _) => "  partial",
            (true, Some(false)) => "  not unpacked to the end",
            (true, _) => "",
        };
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
}
