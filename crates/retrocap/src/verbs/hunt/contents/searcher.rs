//! The side that feeds the process, and takes what it found.

use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};

use super::super::yara::{Scan, Unscanned, YaraRules};
use super::frame::{self, Answer, ObjectAnswer, ObjectRules, Summary};
use crate::verbs::packet_pipe::PacketPipe;
use api::content::MatchedObject;
use base::interface::Interface;
use base::packet::{InterfaceId, Packet};
use formats::writer::{Format, Options};
use hunt::{Kind, Match};
use rustix::event::{PollFd, PollFlags, Timespec};
use streams::Session;

/// Seconds after which contents are scanned, however few.
const SCAN_AFTER_S: i64 = 1;

/// A match in an object.
pub(in super::super) struct FoundObject {
    pub(in super::super) session: Session,
    pub(in super::super) one: Match,
    pub(in super::super) file: Box<MatchedObject>,
}

/// The interfaces whose packets were passed on, in their order.
type Passed = Arc<Mutex<Vec<InterfaceId>>>;

/// The process, and a thread that reads what it says. The process is never kept waiting by this side, so that both cannot
/// wait for each other.
pub(in super::super) struct ObjectSearcher {
    child: Child,
    pipe: PacketPipe,
    passed: Passed,
    found: Receiver<FoundObject>,
    reader: JoinHandle<anyhow::Result<(Summary, Unscanned)>>,
}

impl ObjectSearcher {
    /// Starts the process.
    pub(in super::super) fn start(rules: &ObjectRules, yara: Option<Arc<YaraRules>>) -> anyhow::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("search-objects").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the process that searches objects")?;
        let (mut stdin, stdout) = (child.stdin.take(), child.stdout.take());
        if let Some(stdin) = &mut stdin {
            frame::write(stdin, rules).context("cannot ask the process that searches objects")?;
        }
        let scan = yara.map(Scan::new).transpose()?;
        let stdout = stdout.context("the process that searches objects has no output")?;
        let pipe = PacketPipe::new(stdin, Format::Pcapng, Options::default());
        let (passed, (found, finds)) = (Passed::default(), mpsc::channel());
        let known = Arc::clone(&passed);
        let reader = std::thread::Builder::new().name("objects".to_owned());
        let reader = reader.spawn(move || read(stdout, scan, &known, &found)).context("cannot start a thread")?;
        Ok(Self { child, pipe, passed, found: finds, reader })
    }

    /// Passes a packet on. If the process reads no more, [`end`](Self::end) says why.
    pub(in super::super) fn packet(&mut self, interface: &Interface, packet: &Packet<'_>) {
        {
            let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
            if passed.last() != Some(&interface.id) && !passed.contains(&interface.id) {
                passed.push(interface.id);
            }
        }
        // A packet that the format cannot hold does not exist: it is that of the recorder.
        let _ = self.pipe.packet(interface, packet);
    }

    /// Passes on what was found so far.
    pub(in super::super) fn found(&self, each: &mut dyn FnMut(FoundObject)) {
        self.found.try_iter().for_each(each);
    }

    /// Passes on the packets that wait, in a search that goes on.
    pub(in super::super) fn catch_up(&mut self) {
        let _ = self.pipe.pass();
    }

    /// Ends the process, which is not asked any more.
    pub(in super::super) fn abandon(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.reader.join();
    }

    /// Ends the input, and passes on the rest. Returns what was looked at, and what YARA could not do.
    pub(in super::super) fn end(mut self, each: &mut dyn FnMut(FoundObject)) -> anyhow::Result<(Summary, Unscanned)> {
        self.pipe.end();
        self.found.iter().for_each(each);
        let read = self.reader.join().map_err(|_| anyhow!("the search of objects ended early"))?;
        let status = self.child.wait().context("cannot wait for the process that searches objects")?;
        if read.is_ok() && !status.success() {
            return Err(anyhow!(
                "the process that searches objects ended early ({status}); what was found before is valid"
            ));
        }
        read
    }
}

/// Reads what the process says to its end.
fn read(
    stdout: impl Read + AsFd,
    mut scan: Option<Scan<ObjectAnswer>>,
    passed: &Passed,
    found: &Sender<FoundObject>,
) -> anyhow::Result<(Summary, Unscanned)> {
    let mut input = BufReader::with_capacity(64 << 10, stdout);
    let told = |object: &ObjectAnswer, one: Match| {
        let interfaces = passed.lock().unwrap_or_else(PoisonError::into_inner);
        let session = object.session.session(&interfaces);
        let one =
            Match { sender: Some(object.sender()), stream_offset: Some(object.offset), packet: object.packet(), ..one };
        // If nobody waits for it any more, the search ends soon.
        let _ = found.send(FoundObject { session, one, file: Box::new(object.file.clone()) });
    };
    loop {
        // Contents that wait to be scanned together do not wait for further ones for long.
        if let Some(scan) = scan.as_mut().filter(|scan| scan.has_items())
            && input.buffer().is_empty()
            && !is_readable(input.get_ref())?
        {
            scan.finish(&mut |object: &ObjectAnswer, one, _| told(object, one))?;
        }
        let Some((answer, content)) = frame::read_answer(&mut input).map_err(damaged)? else { break };
        let object = match answer {
            Answer::End(summary) => {
                let unscanned = match &mut scan {
                    Some(scan) => {
                        scan.finish(&mut |object: &ObjectAnswer, one, _| told(object, one))?;
                        scan.unscanned
                    }
                    None => Unscanned::default(),
                };
                return Ok((summary, unscanned));
            }
            Answer::Object(object) => *object,
        };
        for one in &object.matches {
            let kind =
                [Kind::Text, Kind::Bytes, Kind::Regex, Kind::Ioc].into_iter().find(|kind| kind.name() == one.kind);
            let Some(kind) = kind else { continue };
            told(
                &object,
                Match {
                    rule: one.rule.clone(),
                    kind,
                    stage: String::new(),
                    sender: None,
                    stream_offset: None,
                    packet: object.packet(),
                    length: one.length,
                    context: one.context.clone(),
                    gap_before: false,
                    detail: one.detail.clone(),
                },
            );
        }
        if let Some(scan) = &mut scan {
            scan.add(&content, object, &mut |object: &ObjectAnswer, one, _| told(object, one))?;
        }
    }
    Err(anyhow!("the process that searches objects said nothing at its end"))
}

/// Whether more comes soon.
fn is_readable(input: &impl AsFd) -> anyhow::Result<bool> {
    let mut waits = [PollFd::new(input, PollFlags::IN)];
    let wait = Timespec { tv_sec: SCAN_AFTER_S, tv_nsec: 0 };
    Ok(rustix::event::poll(&mut waits, Some(&wait)).context("cannot wait for the process that searches objects")? > 0)
}

fn damaged(error: io::Error) -> anyhow::Error {
    anyhow!("cannot read what the process that searches objects says: {error}")
}
