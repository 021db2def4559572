//! Who appends to the audit log: whoever writes, until a thread of its own is started.
//!
//! That thread alone makes and renames files once the recorder has shut itself in. Whoever writes waits for it: what
//! may be read depends on it.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::file::File;

/// Lines that wait; whoever has another waits too.
const LINES_WAITING: usize = 16;

#[derive(Debug)]
pub(super) struct Writer {
    file: Arc<Mutex<File>>,
    thread: OnceLock<SyncSender<Line>>,
}

struct Line {
    text: Vec<u8>,
    written: SyncSender<io::Result<()>>,
}

impl Writer {
    pub(super) fn new(file: File) -> Self {
        Self { file: Arc::new(Mutex::new(file)), thread: OnceLock::new() }
    }

    /// Starts the thread. It ends with the log.
    pub(super) fn start(&self, begin: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let (sender, lines) = sync_channel::<Line>(LINES_WAITING);
        let file = Arc::clone(&self.file);
        std::thread::Builder::new().name("retrocap-audit".to_owned()).spawn(move || {
            begin();
            for Line { text, written } in lines {
                // Who waited may have been ended.
                let _ = written.send(append(&file, &text));
            }
        })?;
        // The first one stays, if there is one.
        let _ = self.thread.set(sender);
        Ok(())
    }

    /// Appends a line, all of it or nothing.
    pub(super) fn append(&self, text: Vec<u8>) -> io::Result<()> {
        let Some(thread) = self.thread.get() else { return append(&self.file, &text) };
        let gone = || io::Error::other("what writes it has ended");
        let (written, outcome) = sync_channel(1);
        thread.send(Line { text, written }).map_err(|_| gone())?;
        outcome.recv().map_err(|_| gone())?
    }
}

fn append(file: &Mutex<File>, text: &[u8]) -> io::Result<()> {
    file.lock().unwrap_or_else(PoisonError::into_inner).append(text)
}
