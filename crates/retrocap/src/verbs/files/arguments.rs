//! Which objects are wanted, and where they go.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::error::Usage;
use engine::budget::ByteSize;
use objects::{KINDS, ObjectFilter};

/// What `files` and the process that decodes share.
#[derive(Clone, Debug, Args)]
pub(crate) struct ObjectArgs {
    /// Write the objects to this folder, under safe names, with manifest.jsonl
    #[arg(short, long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
    /// Only objects of this protocol: http, smtp, imap, pop3, ftp, smb, nfs, tftp
    #[arg(long, value_name = "PROTOCOL")]
    kind: Vec<String>,
    /// Only objects whose content is of this type: image/png, image/
    #[arg(long = "type", value_name = "MIME")]
    mime: Option<String>,
    /// Only the object with this hash
    #[arg(long, value_name = "HASH", value_parser = sha256)]
    sha256: Option<String>,
    /// Only objects of at least this size: 10K
    #[arg(long, value_name = "SIZE")]
    min: Option<ByteSize>,
}

fn sha256(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text)
    } else {
        Err("a SHA-256 has 64 hexadecimal digits".to_owned())
    }
}

impl ObjectArgs {
    /// Refuses what no object can be.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match self.kind.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
            None => Ok(()),
            Some(kind) => Err(Usage::of(format_args!(
                "--kind {kind} is not a protocol with objects: use http, smtp, imap, pop3, ftp, smb, nfs or tftp"
            ))),
        }
    }

    /// The arguments as they were given.
    pub(super) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut add = |flag: &str, value: OsString| words.extend([flag.into(), value]);
        self.kind.iter().for_each(|kind| add("--kind", kind.into()));
        self.mime.iter().for_each(|mime| add("--type", mime.into()));
        self.sha256.iter().for_each(|hash| add("--sha256", hash.into()));
        self.min.iter().for_each(|least| add("--min", least.0.to_string().into()));
        self.output.iter().for_each(|folder| add("--output", folder.into()));
        words
    }

    /// Which objects are wanted.
    pub(super) fn filter(&self) -> ObjectFilter {
        ObjectFilter {
            kinds: self.kind.clone(),
            mime: self.mime.clone(),
            sha256: self.sha256.clone(),
            size_min: self.min.map(|least| least.0),
        }
    }
}
