//! The process that puts objects together, decodes and searches them. It reads packets from its standard input, and may
//! compute and print: it opens no file and no socket, and starts nothing.

use std::collections::HashMap;
use std::io::{BufWriter, Read, StdoutLock, Write as _};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Args;

use super::frame::{self, Answer, MatchInObject, ObjectAnswer, ObjectRules, SessionSeed, Summary};
use crate::options::Common;
use crate::terminal::printable::note;
use api::content::MatchedObject;
use base::interface::Interfaces;
use base::source::{Batch, Source as _};
use daemon::sandbox::decoder;
use formats::reader::FileSource;
use hunt::ContentPatterns;
use hunt::indicators::Indicators;
use hunt::narrow::LiteralFilter;
use hunt::patterns::unhex;
use objects::{Collector, Object, ObjectLimits, ObjectSearch, ObjectSink};
use protocols::Protocols;
use streams::{Cause, Streams};

/// Matches of one rule in one object that are reported. Further ones are counted.
const MATCHES_MAX: u32 = 100;

/// Objects that are searched. None is kept, so that there may be more of them than `files` lists.
const OBJECTS_MAX: u64 = 10_000_000;

/// The second process of `hunt`
#[derive(Debug, Args)]
pub(crate) struct SearchObjects;

/// Searches objects, and says what it found.
struct Searched<'a> {
    search: ObjectSearch,
    pass_contents: bool,
    pass_if: Option<LiteralFilter>,
    /// Whether hashes are searched for.
    needs_hashes: bool,
    out: BufWriter<StdoutLock<'a>>,
    summary: Summary,
    failed: bool,
}

impl ObjectSink for Searched<'_> {
    // Of most objects nothing is reported.
    const HASHED: bool = false;

    fn object(&mut self, session: &streams::Session, mut object: Object) {
        self.summary.objects += 1;
        self.summary.incomplete += u64::from(!object.is_whole());
        if self.needs_hashes {
            object.hash();
        }
        let (mut matches, mut counts) = (Vec::new(), HashMap::<String, u32>::new());
        self.search.find(&object, |one| {
            let count = counts.entry(one.rule.clone()).or_default();
            *count += 1;
            if *count > MATCHES_MAX {
                self.summary.more_matches += 1;
                return;
            }
            let kind = one.kind.name().to_owned();
            let (rule, length, context, detail) = (one.rule, one.length, one.context, one.detail);
            matches.push(MatchInObject { rule, kind, length, context, detail });
        });
        let passes =
            self.pass_contents && self.pass_if.as_ref().is_none_or(|literals| literals.may_be_in(&object.content));
        if matches.is_empty() && !passes {
            return;
        }
        object.hash();
        let content: &[u8] = if passes { &object.content } else { &[] };
        let answer = Answer::Object(Box::new(ObjectAnswer {
            session: SessionSeed::of(session),
            file: MatchedObject::new(&object),
            from_originator: object.sender == streams::Sender::Originator,
            offset: object.offset,
            time: object.packet.time.0,
            sequence: object.packet.sequence,
            matches,
            content_bytes: content.len() as u64,
        }));
        let written = frame::write(&mut self.out, &answer).and_then(|()| self.out.write_all(content));
        // Matches show as soon as they are found.
        self.failed |= written.and_then(|()| self.out.flush()).is_err();
    }
}

impl SearchObjects {
    /// Confines the process, and searches the objects in the packets of its standard input.
    pub(crate) fn run(&self, _: &Common) -> anyhow::Result<()> {
        let missing = decoder::confine(None).context("cannot confine the decoder")?;
        if let Some(missing) = missing {
            note(&format!("retrocap: the decoder is confined in part: {missing}"));
        }
        let mut input = std::io::stdin();
        let rules = frame::read::<ObjectRules>(&mut input, frame::QUESTION_BYTES_MAX)?;
        let rules = rules.ok_or_else(|| anyhow!("there is no question"))?;
        let wanted = ContentPatterns {
            texts: rules.texts,
            bytes: rules.bytes,
            regexes: rules.regexes,
            ..ContentPatterns::default()
        };
        let mut indicators = Indicators::default();
        rules.hashes.iter().for_each(|hash| indicators.read(hash));
        let pass_if = rules.pass_if.iter().filter_map(|hex| unhex(hex)).collect::<Vec<_>>();
        let search = ObjectSearch { patterns: wanted.object_patterns()?, indicators };
        let objects = Searched {
            search,
            pass_contents: rules.pass_contents,
            pass_if: LiteralFilter::new(&pass_if),
            needs_hashes: !rules.hashes.is_empty(),
            out: BufWriter::new(std::io::stdout().lock()),
            summary: Summary::default(),
            failed: false,
        };
        let mut protocols =
            Protocols::new(Collector::new(ObjectLimits { objects: OBJECTS_MAX, ..ObjectLimits::default() }, objects));
        let cause = if rules.of_recorder { Cause::Cut } else { Cause::Missing };
        let mut streams = Streams::default().with_cause(cause);
        let input: Box<dyn Read + Send> = Box::new(input);
        let (mut source, mut sequence) = (FileSource::from_reader(input, Arc::<Interfaces>::default()), 0);
        loop {
            let batch = source.batch(&mut |packet| {
                sequence += 1;
                streams.packet(packet, sequence, &mut protocols);
            })?;
            if batch == Batch::End || protocols.sink.objects.failed {
                break;
            }
        }
        streams.finish(&mut protocols);
        protocols.sink.finish();
        let summary = Summary { left_out: protocols.sink.left_out, ..protocols.sink.objects.summary };
        let out = &mut protocols.sink.objects.out;
        frame::write(out, &Answer::End(summary))?;
        out.flush().map_err(Into::into)
    }
}
