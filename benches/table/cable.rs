//! Two network namespaces joined by a cable: the generator runs in one, pinned to the first core, and the recorder in
//! the other, pinned to the last core.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::machine::have;
use crate::process::{RETROCAP, Recorder};
use crate::table::skipped;

/// The recorded interface, and its peer that packets are sent into.
pub(crate) const FAR: &str = "far";
const NEAR: &str = "near";

/// Two namespaces joined by a cable. They are removed on drop.
pub(crate) struct Cable {
    near: String,
    far: String,
}

impl Cable {
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |end| format!("retrocap-bench-{}-{number}-{end}", std::process::id());
        let cable = Self { near: name(NEAR), far: name(FAR) };
        let ok = ip(&format!("netns add {}", cable.near))
            && ip(&format!("netns add {}", cable.far))
            && ip(&format!("-n {} link add {NEAR} type veth peer name {FAR} netns {}", cable.near, cable.far))
            && [&cable.near, &cable.far].iter().all(|namespace| {
                // Without IPv6 the kernel sends no packets of its own.
                Command::new("ip")
                    .args(["netns", "exec", namespace, "sh", "-c"])
                    .arg("for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $f; done")
                    .status()
                    .is_ok_and(|status| status.success())
            })
            && ip(&format!("-n {} link set {NEAR} up", cable.near))
            && ip(&format!("-n {} link set {FAR} up", cable.far));
        ok.then_some(cable)
    }

    /// Sends `packets` packets of `len` bytes in 32,000 sessions as fast as one core can, at a higher priority than
    /// other programs on that core.
    pub(crate) fn generate(&self, len: usize, packets: u32) -> Option<Duration> {
        let folder = tempfile::tempdir().ok()?;
        let config = folder.path().join("packets.cfg");
        std::fs::write(&config, packet_config(len)).ok()?;
        let start = Instant::now();
        let status = Command::new("ip")
            .args([
                "netns", "exec", &self.near, "timeout", "60", "nice", "-n", "-15", "trafgen", "-q", "-P", "1", "-o",
                NEAR, "-n",
            ])
            .arg(packets.to_string())
            .arg("-i")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success()).then(|| start.elapsed())
    }

    /// Runs a command in the far namespace, on the last core.
    pub(crate) fn recording(&self, words: &[&str]) -> Command {
        let last = std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1).to_string();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.far, "taskset", "-c", &last]).args(words);
        command
    }

    pub(crate) fn recorder(&self, flags: &[&str]) -> std::io::Result<Recorder> {
        Recorder::start(self.recording(&[&[RETROCAP, "run"], flags].concat()))
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.near));
        ip(&format!("netns del {}", self.far));
    }
}

fn ip(words: &str) -> bool {
    let command = Command::new("ip").args(words.split(' ')).stderr(Stdio::null()).status();
    command.is_ok_and(|status| status.success())
}

/// A trafgen description of a UDP packet: the source address counts up, the destination is one of 250 servers.
fn packet_config(len: usize) -> String {
    let ip_len = len - 14;
    format!(
        "{{ 2,0,0,0,0,1, 2,0,0,0,0,2, 8,0, 0x45,0, c16({ip_len}), 0,0,0,0, 64,17, 0,0, 10,0, dinc(0,249), dinc(0,255), \
         192,0,2,dinc(0,249), c16(1024), c16(443), c16({}), 0,0, fill(0x5a, {}) }}\n",
        ip_len - 20,
        len - 42
    )
}

/// Makes the two namespaces, or prints why nothing can be measured.
pub(crate) fn cable(what: &str) -> Option<Cable> {
    if !have("trafgen") {
        skipped(what, "trafgen (package netsniff-ng) is not installed");
        return None;
    }
    let cable = Cable::new();
    if cable.is_none() {
        skipped(what, "network namespaces cannot be made here; they need root");
    }
    cable
}
