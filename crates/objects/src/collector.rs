//! Puts objects together.

use std::collections::BTreeMap;

use protocols::{ObjectHead, ObjectPart, ProtocolSink};
use streams::Session;

use crate::archive::{self, ArchiveKind, Budget, Unpacked};
use crate::building::PartialObject;
use crate::decoding;
use crate::mail;
use crate::object::{Object, ObjectLimits, ObjectSink};

/// Objects of which ranges have come.
const RANGES_MAX: usize = 256;

/// Puts objects together and passes them on.
pub struct Collector<O: ObjectSink> {
    /// Where objects go.
    pub objects: O,
    limits: ObjectLimits,
    /// Objects in progress, by session and number.
    building: BTreeMap<(u64, u64), PartialObject>,
    /// Objects of which ranges have come, by server, URL and size.
    ranges: BTreeMap<(String, String, u64), (Session, PartialObject)>,
    held_bytes: usize,
    count: u64,
    /// Objects beyond the limit.
    pub left_out: u64,
}

impl<O: ObjectSink> std::fmt::Debug for Collector<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("count", &self.count).finish_non_exhaustive()
    }
}

impl<O: ObjectSink> ProtocolSink for Collector<O> {
    fn object(&mut self, session: &Session, part: ObjectPart<'_>) {
        match part {
            ObjectPart::Begin { head, sender, packet, offset } => {
                let key = (session.number, head.id);
                self.building.insert(key, PartialObject::new(head, sender, packet, offset));
            }
            ObjectPart::Data { id, at, bytes } => {
                let room = self.limits.total_bytes.saturating_sub(self.held_bytes);
                let Some(one) = self.building.get_mut(&(session.number, id)) else { return };
                let before = one.held_bytes();
                one.put(at, bytes, self.limits.object_bytes, room.saturating_add(before));
                self.held_bytes = self.held_bytes + one.held_bytes() - before;
            }
            ObjectPart::End { id, size } => {
                let Some(mut one) = self.building.remove(&(session.number, id)) else { return };
                one.size = size;
                if one.head.range_total.is_some() {
                    self.range(session, one);
                } else {
                    self.held_bytes -= one.held_bytes();
                    self.done(session, one);
                }
            }
        }
    }
}

impl<O: ObjectSink> Collector<O> {
    /// Passes objects to `objects`.
    pub fn new(limits: ObjectLimits, objects: O) -> Self {
        let (building, ranges) = (BTreeMap::new(), BTreeMap::new());
        Self { objects, limits, building, ranges, held_bytes: 0, count: 0, left_out: 0 }
    }

    /// Passes on the objects of which only some ranges have come.
    pub fn finish(&mut self) {
        for (_, (session, one)) in std::mem::take(&mut self.ranges) {
            self.done(&session, one);
        }
    }

    /// Adds a range to the others of its object.
    fn range(&mut self, session: &Session, one: PartialObject) {
        let total = one.head.range_total.unwrap_or(0);
        let key = (session.responder().to_string(), one.head.source.clone(), total);
        self.held_bytes -= one.held_bytes();
        if !self.ranges.contains_key(&key) && self.ranges.len() >= RANGES_MAX {
            self.done(session, one);
            return;
        }
        let head = ObjectHead { range_from: 0, size_declared: Some(total), ..one.head.clone() };
        let (sender, packet, offset, from) = (one.sender, one.packet, one.offset, one.head.range_from);
        let room = self.limits.total_bytes.saturating_sub(self.held_bytes);
        let new = || (session.clone(), PartialObject::new(head, sender, packet, offset));
        let (_, whole) = self.ranges.entry(key.clone()).or_insert_with(new);
        let before = whole.held_bytes();
        let holes = one.holes();
        let content = one.into_content();
        // Only what came is put in: a hole of one answer may be in another.
        let mut at = 0;
        for (hole, len) in holes.into_iter().chain([(content.len() as u64, 0)]) {
            let (start, end) =
                (usize::try_from(at).unwrap_or(0), usize::try_from(hole).unwrap_or(0).min(content.len()));
            if let Some(bytes) = content.get(start..end) {
                whole.put(from.saturating_add(at), bytes, self.limits.object_bytes, room.saturating_add(before));
            }
            at = hole.saturating_add(len);
        }
        self.held_bytes = self.held_bytes + whole.held_bytes() - before;
        if whole.is_whole()
            && let Some((_, whole)) = self.ranges.remove(&key)
        {
            self.held_bytes -= whole.held_bytes();
            self.done(session, whole);
        }
    }

    /// Decodes an object, tells it, and takes it apart.
    fn done(&mut self, session: &Session, one: PartialObject) {
        let holes = one.holes();
        let ended = one.size.is_some() || one.head.range_total.is_some();
        let mut object = Object {
            number: 0,
            part_of: None,
            protocol: one.head.protocol,
            name: one.head.name.clone(),
            mime: "",
            mime_declared: one.head.mime_declared.clone(),
            size_declared: one.head.size_declared,
            source: one.head.source.clone(),
            sender: one.sender,
            packet: one.packet,
            offset: one.offset,
            unpacked: None,
            complete: ended && holes.is_empty() && one.notes.is_empty(),
            missing_bytes: holes.iter().map(|(_, len)| len).sum(),
            holes,
            notes: one.notes.clone(),
            content: Vec::new(),
            hashes: Default::default(),
        };
        let head = one.head.clone();
        object.content = one.into_content();
        if object.content.is_empty() && object.missing_bytes == 0 {
            return;
        }
        self.decode(&head, &mut object);
        object.recognise();
        let multipart = object.mime_declared.to_ascii_lowercase().starts_with("multipart/");
        let mail = if head.is_mail {
            Some(object.content.clone())
        } else if multipart {
            // Its boundary stands in the header of HTTP.
            Some([format!("Content-Type: {}\r\n\r\n", object.mime_declared).as_bytes(), &object.content].concat())
        } else {
            None
        };
        let whole = object.without_content();
        let Some(number) = self.deliver_unpacked(session, object) else { return };
        if let Some(mail) = mail {
            self.take_apart(session, &mail, &Object { number, ..whole });
        }
    }

    /// Undoes the codings, the last one first.
    fn decode(&self, head: &ObjectHead, object: &mut Object) {
        for (number, coding) in head.encodings.iter().rev().enumerate() {
            if number >= self.limits.depth {
                object.notes.push("too many codings; the rest is not undone".to_owned());
                object.complete = false;
                return;
            }
            // Behind a hole, nothing can be undone.
            let whole = object.holes.first().map_or(object.content.len(), |(at, _)| usize::try_from(*at).unwrap_or(0));
            let data = &object.content[..whole.min(object.content.len())];
            let Some(decoded) = decoding::undo(coding, data, &self.limits) else {
                if coding != "identity" {
                    object.notes.push(format!("{coding}: the coding is unknown, and the content is as it was sent"));
                }
                return;
            };
            if decoded.content.is_empty() && !data.is_empty() {
                object.notes.push(decoded.note);
                return;
            }
            if !decoded.note.is_empty() {
                object.notes.push(decoded.note);
                object.complete = false;
            }
            object.holes = Vec::new();
            object.content = decoded.content;
        }
    }

    fn take_apart(&mut self, session: &Session, mail: &[u8], whole: &Object) {
        let (parts, left_out) = mail::parts(mail, &self.limits);
        for part in parts {
            let mut object = Object {
                part_of: Some(whole.number),
                name: part.name,
                mime_declared: part.mime_declared,
                size_declared: None,
                unpacked: None,
                content: part.content,
                notes: Vec::new(),
                ..whole.without_content()
            };
            if !part.note.is_empty() {
                object.notes.push(part.note.to_owned());
            }
            if left_out {
                object.notes.push("the mail has more parts than are listed".to_owned());
            }
            object.recognise();
            if self.deliver_unpacked(session, object).is_none() {
                return;
            }
        }
    }

    /// Passes an object on, and then the parts of it if it is an archive. Returns its number, unless there are too many.
    fn deliver_unpacked(&mut self, session: &Session, object: Object) -> Option<u64> {
        let mut budget = Budget::new(object.content.len(), &self.limits);
        self.deliver_parts(session, object, 0, &mut budget)
    }

    fn deliver_parts(
        &mut self,
        session: &Session,
        mut object: Object,
        depth: usize,
        budget: &mut Budget,
    ) -> Option<u64> {
        let kind = ArchiveKind::of(&object.content);
        let unpacked = match kind {
            Some(_) if depth >= self.limits.depth => Unpacked {
                notes: vec!["archives are nested too deep; this one is not unpacked".to_owned()],
                ..Unpacked::default()
            },
            Some(kind) => archive::unpack(kind, &object.content, &object.name, budget),
            None => Unpacked::default(),
        };
        object.unpacked = kind.map(|_| unpacked.notes.is_empty());
        object.notes.extend(unpacked.notes);
        let whole = object.without_content();
        let number = self.deliver(session, object)?;
        let mut parts = unpacked.parts.into_iter().filter(|part| !part.content.is_empty());
        while let Some(part) = parts.next() {
            let is_all = part.note.is_empty();
            let mut object = Object {
                part_of: Some(number),
                name: part.name,
                mime_declared: String::new(),
                size_declared: None,
                complete: whole.complete && is_all,
                unpacked: None,
                holes: Vec::new(),
                missing_bytes: 0,
                notes: if is_all { Vec::new() } else { vec![part.note] },
                content: part.content,
                ..whole.without_content()
            };
            object.recognise();
            if self.deliver_parts(session, object, depth + 1, budget).is_none() {
                self.left_out += parts.count() as u64;
                return None;
            }
        }
        Some(number)
    }

    /// Numbers an object and passes it on. Returns its number, unless there are too many.
    fn deliver(&mut self, session: &Session, mut object: Object) -> Option<u64> {
        if self.count >= self.limits.objects {
            self.left_out += 1;
            return None;
        }
        self.count += 1;
        object.number = self.count;
        if O::HASHED {
            object.hash();
        }
        self.objects.object(session, object);
        Some(self.count)
    }
}
