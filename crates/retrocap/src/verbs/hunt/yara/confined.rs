//! Starts `yara` confined.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::anyhow;
use clap::Args;

use crate::options::Common;
use crate::terminal::printable::note;
use daemon::sandbox::scanner;
use rustix::process::{Resource, Rlimit, setrlimit};

/// What to do where the program is missing.
pub(super) const MISSING_PROGRAM: &str = "there is no program yara: install the package yara";

/// Seconds of a processor that a run may take, which ends earlier by its own clock.
const CPU_S_MAX: u64 = 120;
/// Bytes of a file that it may write: its errors.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The process that becomes yara
#[derive(Debug, Args)]
pub(crate) struct ScanConfined {
    /// The folder with the files to be searched
    folder: PathBuf,
    /// Whether to say what is not enforced
    #[arg(long)]
    say_missing: bool,
    /// Arguments of yara
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl ScanConfined {
    /// Confines the process, and starts the program in its place.
    pub(crate) fn run(&self, _: &Common) -> anyhow::Result<()> {
        let program = program("yara").ok_or_else(|| anyhow!(MISSING_PROGRAM))?;
        std::env::set_current_dir(&self.folder)?;
        for (what, most) in [(Resource::Cpu, CPU_S_MAX), (Resource::Fsize, FILE_BYTES_MAX), (Resource::Core, 0)] {
            setrlimit(what, Rlimit { current: Some(most), maximum: Some(most) })?;
        }
        if let Some(missing) = scanner::confine(&self.folder, &program)?
            && self.say_missing
        {
            note(&format!("retrocap: yara is confined in part: {missing}"));
        }
        let error = Command::new(&program).args(&self.arguments).env_clear().exec();
        Err(anyhow!("cannot start {}: {error}", program.display()))
    }
}

/// Where a program is.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}
