//! A small supervisor: it receives messages and keeps files as systemd does.

use std::fs::File;
use std::io::{IoSliceMut, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

use crate::namespaces::Namespace;

use super::running::{PROGRAM, Recorder, directory};

/// The name under which a recorder hands over its history.
pub(super) const HISTORY: &str = "retrocap-history";
const SEALED: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

type Store = Arc<Mutex<Vec<(String, OwnedFd)>>>;

pub(super) struct Supervisor {
    heard: Receiver<String>,
    store: Store,
    pub(super) path: PathBuf,
    _directory: TempDir,
}

impl Supervisor {
    pub(super) fn new() -> Self {
        let directory = directory();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        // Recorders that run as ordinary users send to it, too.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let (tell, heard) = channel();
        let store = Store::default();
        let keeping = Arc::clone(&store);
        std::thread::spawn(move || {
            while let Some(message) = receive(&socket, &keeping) {
                if message.is_some_and(|message| tell.send(message).is_err()) {
                    break;
                }
            }
        });
        Self { heard, store, path, _directory: directory }
    }

    /// The next message that is not about files; `None` when there is none in time.
    pub(super) fn hear(&self, within: Duration) -> Option<String> {
        self.heard.recv_timeout(within).ok()
    }

    pub(super) fn expect(&self, message: &str) {
        let heard = self.hear(Duration::from_secs(20)).unwrap_or_else(|| panic!("not heard: {message}"));
        assert!(heard.starts_with(message), "{heard}, not {message}");
    }

    /// Starts a recorder in a namespace and passes it the kept files.
    pub(super) fn record(&self, namespace: &Namespace, folder: TempDir, arguments: &[&str]) -> Recorder {
        let store = self.store.lock().unwrap();
        let names: Vec<&str> = store.iter().map(|(name, _)| name.as_str()).collect();
        // Descriptors are passed from number 3 on, with the process that they are for.
        let opened: String = (3..)
            .zip(store.iter())
            .map(|(number, (_, file))| format!("exec {number}</proc/{}/fd/{}; ", std::process::id(), file.as_raw_fd()))
            .collect();
        let script = format!("{opened}export LISTEN_PID=$$; exec \"$@\"");
        let mut command = Command::new("bash");
        command.args(["-c", &script, "bash", "ip", "netns", "exec", &namespace.name, PROGRAM, "run"]).args(arguments);
        command.env("NOTIFY_SOCKET", &self.path);
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let recorder = Recorder::start(command, folder);
        drop(store);
        recorder
    }

    /// The number of kept files.
    pub(super) fn kept(&self) -> usize {
        self.store.lock().unwrap().len()
    }

    /// The content of the kept files.
    pub(super) fn contents(&self) -> Vec<Vec<u8>> {
        let store = self.store.lock().unwrap();
        let contents = store.iter().map(|(name, file)| {
            assert_eq!(name, HISTORY);
            let mut file = File::from(file.try_clone().unwrap());
            file.rewind().unwrap();
            let mut content = Vec::new();
            file.read_to_end(&mut content).unwrap();
            content
        });
        contents.collect()
    }

    /// Replaces the kept files.
    pub(super) fn exchange(&self, contents: &[Vec<u8>], sealed: bool) {
        let make = |content: &Vec<u8>| {
            let mut file = File::from(memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap());
            file.write_all(content).unwrap();
            if sealed {
                fcntl_add_seals(&file, SEALED).unwrap();
            }
            (HISTORY.to_owned(), OwnedFd::from(file))
        };
        *self.store.lock().unwrap() = contents.iter().map(make).collect();
    }
}

/// Receives one message: `None` when there will be no more, `Some(None)` when it was about files.
fn receive(socket: &UnixDatagram, store: &Store) -> Option<Option<String>> {
    let mut bytes = [0; 512];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let message = String::from_utf8_lossy(&bytes[..received.bytes]).into_owned();
    let files: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| if let RecvAncillaryMessage::ScmRights(files) = message { Some(files) } else { None })
        .flatten()
        .collect();
    let name = message.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
    let first = message.lines().next().unwrap_or_default();
    match first {
        "FDSTORE=1" => store.lock().unwrap().extend(files.into_iter().map(|file| (name.clone(), file))),
        "FDSTOREREMOVE=1" => store.lock().unwrap().retain(|(other, _)| *other != name),
        // Closing the descriptor is the answer.
        "BARRIER=1" => drop(files),
        first if first.starts_with("EXTEND_TIMEOUT_USEC=") => {}
        _ => return Some(Some(message)),
    }
    Some(None)
}
