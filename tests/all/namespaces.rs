//! Network namespaces for tests: made here, entered by a thread, and removed on drop.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Whether namespaces can be made; prints why not.
pub(crate) fn available(test: &str) -> bool {
    let root = rustix::process::getuid().is_root();
    if !root {
        crate::machine::skipped(test, "it needs root");
    }
    root
}

/// A network namespace without IPv6, so that only the test sends packets in it.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("retrocap-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Self { name };
        namespace.python(
            "import glob\nfor path in glob.glob('/proc/sys/net/ipv6/conf/*/disable_ipv6'): open(path, 'w').write('1')",
        );
        namespace
    }

    /// Two namespaces joined by a cable, `near` in the first and `far` in the second. Both ends are up and take jumbo
    /// frames.
    pub(crate) fn pair() -> (Self, Self) {
        let (near, far) = (Self::new(), Self::new());
        near.ip(&format!("link add near mtu 16000 type veth peer name far mtu 16000 netns {}", far.name));
        near.ip("link set near up");
        far.ip("link set far up");
        (near, far)
    }

    /// Runs `ip` with these words in the namespace.
    pub(crate) fn ip(&self, words: &str) -> Output {
        run(Command::new("ip").args(["-n", &self.name]).args(words.split(' ')))
    }

    /// Runs a command in the namespace.
    pub(crate) fn exec(&self, words: &[&str]) -> Output {
        run(Command::new("ip").args(["netns", "exec", &self.name]).args(words))
    }

    pub(crate) fn python(&self, program: &str) -> Output {
        self.exec(&["python3", "-c", program])
    }

    /// Sends Ethernet frames, given as a Python expression for a list of `bytes`, each of them `times` times.
    pub(crate) fn send(&self, interface: &str, frames: &str, times: u32) {
        self.python(&format!(
            "import socket\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\ns.bind(('{interface}', 0))\n\
             frames = {frames}\nfor _ in range({times}):\n for f in frames:\n  s.send(f)"
        ));
    }

    /// Runs `inside` on a new thread in the namespace. Sockets and threads that it makes stay there.
    pub(crate) fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name);
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let file = File::open(path).unwrap();
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                inside()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
