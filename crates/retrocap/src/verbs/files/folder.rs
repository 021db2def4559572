//! The folder that objects are written to.
//!
//! Invariants: names are made here and hold nothing that came from the network. A file is only ever created, never opened
//! if it is there, also not through a symbolic link. No file is executable.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use base::foreign::json_document;
use objects::Object;

const MANIFEST: &str = "manifest.jsonl";

/// A folder, and the manifest in it.
pub(super) struct OutputFolder {
    path: PathBuf,
    manifest: File,
}

impl OutputFolder {
    /// Makes the folder if it is not there, and begins a manifest.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        let manifest = create(&path.join(MANIFEST)).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                anyhow!(
                    "{} already contains a {MANIFEST}, which is not overwritten: choose another folder",
                    path.display()
                )
            }
            _ => anyhow::Error::new(error).context(format!("cannot write to {}", path.display())),
        })?;
        Ok(Self { path: path.to_owned(), manifest })
    }

    /// Writes an object. Returns the path of its file.
    pub(super) fn write(&self, object: &Object) -> anyhow::Result<String> {
        let path = self.path.join(object.file_name());
        let name = path.display().to_string();
        let mut file = create(&path).with_context(|| format!("cannot write {name}"))?;
        file.write_all(&object.content).with_context(|| format!("cannot write {name}"))?;
        Ok(name)
    }

    /// Adds a line to the manifest.
    pub(super) fn note(&mut self, document: &str) -> anyhow::Result<()> {
        let line = format!("{}\n", json_document(document));
        self.manifest.write_all(line.as_bytes()).with_context(|| format!("cannot write {MANIFEST}"))
    }
}

/// Creates a file that only its owner may read.
fn create(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
