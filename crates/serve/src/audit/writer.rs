//! Appends to a file of the audit log: on the calling thread, until a thread of its own is started.
//!
//! Within the sandbox only that thread makes and renames files. Callers wait for it, because a read may begin only when
//! its line is written.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::file::File;
use evidence::chain::Head;

/// Lines that wait to be written; callers with more lines block.
const LINES_WAITING: usize = 16;

#[derive(Debug)]
pub(super) struct Writer {
    file: Arc<Mutex<File>>,
    thread: OnceLock<SyncSender<Line>>,
}

struct Line {
    file: Arc<Mutex<File>>,
    text: Text,
    written: SyncSender<io::Result<()>>,
}

/// What is appended.
pub(super) enum Text {
    /// This line.
    Line(String),
    /// What this makes of the last line's place in the chain.
    OfHead(Box<dyn FnOnce(Head) -> Option<String> + Send>),
}

impl Writer {
    pub(super) fn new(file: File) -> Self {
        Self { file: Arc::new(Mutex::new(file)), thread: OnceLock::new() }
    }

    /// Starts one thread that writes for all of them. It ends with the last.
    pub(super) fn share_thread(writers: &[&Self], begin: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let (sender, lines) = sync_channel::<Line>(LINES_WAITING);
        std::thread::Builder::new().name("retrocap-audit".to_owned()).spawn(move || {
            begin();
            for Line { file, text, written } in lines {
                // The caller may have been ended.
                let _ = written.send(append(&file, text));
            }
        })?;
        for writer in writers {
            // A thread that was started before stays.
            let _ = writer.thread.set(sender.clone());
        }
        Ok(())
    }

    /// Appends a line, all of it or nothing.
    pub(super) fn append(&self, text: Text) -> io::Result<()> {
        let Some(thread) = self.thread.get() else { return append(&self.file, text) };
        let gone = || io::Error::other("the thread that writes it has ended");
        let (written, outcome) = sync_channel(1);
        thread.send(Line { file: Arc::clone(&self.file), text, written }).map_err(|_| gone())?;
        outcome.recv().map_err(|_| gone())?
    }
}

fn append(file: &Mutex<File>, text: Text) -> io::Result<()> {
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    match text {
        Text::Line(line) => file.append(&line),
        Text::OfHead(compose) => file.append_composed(compose),
    }
}
