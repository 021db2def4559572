//! The description of a process.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::container::Cgroup;

/// Maximum length of a stored name or path, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// What the allocator takes beside an allocation, at most.
const ALLOCATION_BYTES: usize = 16;

/// The certainty that a session belongs to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// The process had the session's own socket open while the session was alive.
    Socket,
    /// The process had the only socket that could receive packets for this address and port.
    Port,
    /// Several processes of one program had the socket, such as the workers of a server. Which of them is not known.
    Program,
    /// Only the user is known: no process could be seen with the socket.
    UserOnly,
}

impl Certainty {
    const ALL: [Self; 4] = [Self::Socket, Self::Port, Self::Program, Self::UserOnly];

    /// Its word in JSON, in comments and in the log of sessions.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Port => "port",
            Self::Program => "program",
            Self::UserOnly => "user_only",
        }
    }

    /// The certainty with this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.word() == word)
    }
}

/// The method that found a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Programs in the kernel, which see the process that connects, binds or sends.
    Ebpf,
    /// Scans of `sock_diag` and `/proc`, which see sockets that live long enough.
    SockDiag,
}

impl Source {
    /// Its word in JSON, in comments and in the log of sessions.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::SockDiag => "sock_diag",
        }
    }

    /// The source with this word.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Ebpf, Self::SockDiag].into_iter().find(|one| one.word() == word)
    }
}

/// The process of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Its process id; null if only the user is known.
    pub pid: Option<u32>,
    /// Its name, as in `ps`.
    pub name: Option<String>,
    /// The path of its program.
    pub path: Option<String>,
    /// The user.
    pub uid: u32,
    /// The process id of its parent.
    pub ppid: Option<u32>,
    /// Its start time, in clock ticks since the start of the system.
    pub start_ticks: Option<u64>,
    /// Runtime and id of its container, as in `docker:0123456789ab`.
    pub container: Option<String>,
    /// The uid of its Kubernetes pod.
    pub pod: Option<String>,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// Whether it is in another network namespace than the recorder, such as that of a container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub other_namespace: bool,
    /// Whether its cgroup could not be read, so that its container and unit are not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub place_unknown: bool,
    /// The method that found it.
    pub source: Source,
    /// The certainty of the attribution.
    pub certainty: Certainty,
}

impl Process {
    /// A socket whose process could not be seen.
    pub fn only_user(uid: u32) -> Self {
        Self {
            pid: None,
            name: None,
            path: None,
            uid,
            ppid: None,
            start_ticks: None,
            container: None,
            pod: None,
            unit: None,
            other_namespace: false,
            place_unknown: true,
            source: Source::SockDiag,
            certainty: Certainty::UserOnly,
        }
    }

    /// Reads a process from `/proc`; `None` if it has ended.
    pub fn read(proc: &Path, pid: u32) -> Option<Self> {
        let of = proc.join(pid.to_string());
        let text = |name: &str| std::fs::read_to_string(of.join(name)).ok();
        let stat = text("stat")?;
        // The name is in parentheses, and can contain parentheses itself.
        let (before, after) = stat.rsplit_once(')')?;
        let name = before.split_once('(')?.1;
        let fields: Vec<_> = after.split_ascii_whitespace().collect();
        let uid = text("status")?
            .lines()
            .find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().nth(1)?.parse().ok())?;
        let path = std::fs::read_link(of.join("exe")).ok().map(|path| path.to_string_lossy().into_owned());
        let cgroup = text("cgroup").map(|text| Cgroup::read(&text));
        let place_unknown = cgroup.is_none();
        let cgroup = cgroup.unwrap_or_default();
        let process = Self {
            pid: Some(pid),
            name: Some(name.to_owned()),
            path,
            uid,
            ppid: fields.get(1).and_then(|field| field.parse().ok()),
            start_ticks: fields.get(19).and_then(|field| field.parse().ok()),
            container: cgroup.container,
            pod: cgroup.pod,
            unit: cgroup.unit,
            other_namespace: false,
            place_unknown,
            source: Source::SockDiag,
            certainty: Certainty::Socket,
        }
        .cut();
        Some(process)
    }

    /// Cuts its texts to the length that is stored.
    pub(crate) fn cut(mut self) -> Self {
        let texts = [&mut self.name, &mut self.path, &mut self.container, &mut self.pod, &mut self.unit];
        for text in texts.into_iter().flatten() {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        }
        self
    }

    /// Whether a selection matches it, by pid, name, path, or the last part of the path.
    pub fn is_called(&self, wanted: &str) -> bool {
        let path = self.path.as_deref().unwrap_or_default();
        self.pid.is_some_and(|pid| wanted.parse() == Ok(pid))
            || self.name.as_deref() == Some(wanted)
            || path == wanted
            || path.rsplit('/').next().is_some_and(|last| last == wanted && !last.is_empty())
    }

    /// Whether it is in this container: by runtime and id, by the start of the id, by the pod, or by the unit.
    pub fn is_in(&self, wanted: &str) -> bool {
        let container = self.container.as_deref().unwrap_or_default();
        let id = container.split_once(':').map_or("", |(_, id)| id);
        let is_start =
            |id: &str| wanted.len() >= 4 && !id.is_empty() && (id.starts_with(wanted) || wanted.starts_with(id));
        container == wanted
            || is_start(id)
            || self.pod.as_deref() == Some(wanted)
            || self.unit.as_deref() == Some(wanted)
    }

    /// One of several processes of its program, of which `other` is another.
    #[must_use]
    pub(crate) fn of_program(mut self, other: &Self) -> Self {
        (self.pid, self.ppid, self.start_ticks) = (None, None, None);
        for (mine, others) in [
            (&mut self.name, &other.name),
            (&mut self.container, &other.container),
            (&mut self.pod, &other.pod),
            (&mut self.unit, &other.unit),
        ] {
            if mine != others {
                *mine = None;
            }
        }
        self.certainty = Certainty::Program;
        self
    }

    /// It in a few words: `curl 812 docker:0123456789ab`, or `uid 1000` if only the user is known.
    pub fn briefly(&self) -> String {
        let mut words: Vec<String> = self.name.iter().cloned().collect();
        words.extend(self.pid.map(|pid| pid.to_string()));
        if words.is_empty() {
            words.push(self.path.clone().unwrap_or_else(|| format!("uid {}", self.uid)));
        }
        words.extend(self.container.clone());
        words.join(" ")
    }

    /// Where it runs: its container, or else its systemd unit, or else `host`; `None` if that is not known.
    pub fn place(&self) -> Option<&str> {
        let named = self.container.as_deref().or(self.unit.as_deref());
        // One of several processes may be in a container.
        let is_known = self.pid.is_some() && !self.place_unknown;
        named.or(is_known.then_some("host"))
    }

    /// Its size in a table, in bytes.
    pub fn bytes(&self) -> usize {
        let texts = [&self.name, &self.path, &self.container, &self.pod, &self.unit];
        let texts = texts.into_iter().flatten().map(|text| text.capacity() + ALLOCATION_BYTES);
        size_of::<Self>() + 2 * ALLOCATION_BYTES + texts.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_known_is_not_the_host() {
        let seen = Process { pid: Some(7), place_unknown: false, ..Process::only_user(0) };
        assert_eq!(seen.place(), Some("host"));
        let user = Process::only_user(0);
        assert_eq!(user.place(), None, "no process was seen");
        assert_eq!(Process { place_unknown: true, ..seen.clone() }.place(), None, "its cgroup could not be read");
        let contained = Process { container: Some("docker:0123456789ab".to_owned()), ..seen.clone() };
        assert_eq!(contained.place(), Some("docker:0123456789ab"));
        assert_eq!(contained.of_program(&seen).place(), None, "one of two, of which one is in a container");
        let this = Process::read(Path::new("/proc"), std::process::id()).unwrap();
        assert!(!this.place_unknown && this.place().is_some());
    }
}
