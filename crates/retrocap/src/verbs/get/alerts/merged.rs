//! Extracts one capture file from the lines of the answer to all alerts.

use std::io::{BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use hyper::StatusCode;

use super::{AlertQuery, Line, Outcome, OutcomeReader, decoded};
use crate::client::{self, Answer, RefusedRequest};
use crate::terminal::human;
use crate::terminal::progress::ProgressCounts;
use api::bodies::Arrangement;
use base::foreign::Foreign;

impl<'a> AlertQuery<'a> {
    /// Queries all alerts as one stream of packets. Call [`Merged::end`] after reading the stream.
    pub(crate) fn merged(self) -> anyhow::Result<(MergedReader<Answer>, Merged<'a>)> {
        let alerts: Vec<usize> = (0..self.read.alerts.len()).collect();
        let answer = self.ask(Arrangement::Lines, &alerts).map_err(|error| match error.downcast_ref::<RefusedRequest>() {
            Some(refused) if refused.status == StatusCode::PAYLOAD_TOO_LARGE => anyhow!(
                "{} alerts are more than this recorder has memory for in one file: {refused}; or try --split DIR, which \
                 asks in turns",
                alerts.len()
            ),
            _ => error,
        })?;
        let reader = MergedReader::new(answer, alerts.len(), Arc::clone(&self.counts));
        let found = Arc::clone(&reader.found);
        Ok((reader, Merged { job: self, found }))
    }
}

/// The parts of the answer beside the packets.
#[derive(Debug, Default)]
struct MergedState {
    outcomes: Vec<Outcome>,
    read: OutcomeReader,
    note: Foreign,
    packets: u64,
    done: bool,
}

/// The result of a merged answer, to report after the stream was read.
pub(crate) struct Merged<'a> {
    job: AlertQuery<'a>,
    found: Arc<Mutex<MergedState>>,
}

impl Merged<'_> {
    /// Whether the answer has no packet.
    pub(crate) fn is_empty(&self) -> bool {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).packets == 0
    }

    /// Reports the result; `written` names the output.
    pub(crate) fn end(self, written: &str) -> anyhow::Result<()> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if !found.done {
            return Err(anyhow!("the recorder ended its answer early; ask again"));
        }
        let packets = human::counted(found.packets, "packet");
        self.job.end(&found.outcomes, &format!("{packets}{written}"), &found.note, None)
    }
}

/// Reads the capture file in a merged answer.
pub(crate) struct MergedReader<R> {
    lines: BufReader<R>,
    asked: usize,
    found: Arc<Mutex<MergedState>>,
    counts: Arc<ProgressCounts>,
    line: String,
    data: Vec<u8>,
    at: usize,
}

impl<R: Read> MergedReader<R> {
    /// Reads an answer to `asked` selections.
    pub(crate) fn new(answer: R, asked: usize, counts: Arc<ProgressCounts>) -> Self {
        let lines = BufReader::with_capacity(64 << 10, answer);
        Self { lines, asked, found: Arc::default(), counts, line: String::new(), data: Vec::new(), at: 0 }
    }
}

fn unasked() -> std::io::Error {
    std::io::Error::other("the recorder's answer does not fit the request")
}

impl<R: Read> Read for MergedReader<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.data.len() {
            if !client::next_line(&mut self.lines, &mut self.line, client::PIECE_LINE_BYTES_MAX)? {
                return Ok(0);
            }
            let line: Line = serde_json::from_str(&self.line).map_err(std::io::Error::other)?;
            if let Some(data) = line.data {
                self.data = decoded(&data).map_err(std::io::Error::other)?;
                self.counts.add(line.packets, self.data.len() as u64, line.part.unwrap_or_default());
                self.at = 0;
                continue;
            }
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            if line.done {
                (found.done, found.note, found.packets) = (true, line.note, line.packets);
            } else if found.outcomes.len() < self.asked {
                let outcome = found.read.outcome(&self.line, self.asked).map_err(std::io::Error::other)?;
                if outcome.selection >= self.asked {
                    return Err(unasked());
                }
                found.outcomes.push(outcome);
            } else {
                return Err(unasked());
            }
        }
        let bytes = into.len().min(self.data.len() - self.at);
        into[..bytes].copy_from_slice(&self.data[self.at..self.at + bytes]);
        self.at += bytes;
        Ok(bytes)
    }
}
