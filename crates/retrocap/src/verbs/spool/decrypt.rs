//! Writes the content of an encrypted spool as files that other programs read.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, anyhow};
use serde_json::json;

use super::session_log;
use crate::error::Usage;
use crate::offline_spool::SpoolPlace;
use crate::options::Common;
use crate::terminal::human::counted;
use crate::terminal::printable::{note, plain, print, print_json};
use base::time::Timestamp;
use spool::catalogue::Catalogue;
use spool::decrypt::{DecryptReport, decrypt};
use spool::directory::Directory;

/// Decrypts all files of a spool into a new directory.
pub(super) fn run(common: &Common, place: SpoolPlace<'_>, out: &Path) -> anyhow::Result<()> {
    if place.key.is_none() {
        return Err(Usage::of("decrypt needs the key file of the spool: --spool-key FILE"));
    }
    let directory = Arc::new(place.open_to_read()?);
    let (catalogue, opening) = Catalogue::open(&directory, false)
        .with_context(|| format!("cannot read the spool {}", place.path.display()))?;
    // Not everybody may read what is decrypted, and no existing file is overwritten.
    let created = fs::DirBuilder::new().mode(0o700).create(out);
    created.with_context(|| format!("cannot create {}, which must not exist yet", out.display()))?;
    let now = Timestamp::from(SystemTime::now());
    let mut done = decrypt(&directory, &catalogue, &Directory::open_to_write(out)?, now);
    done.failed.extend(opening.failed);
    let (files, failed) = session_log::decrypt(&directory, out)?;
    done.files += files;
    done.failed.extend(failed);
    report(common, out, &done)
}

fn report(common: &Common, out: &Path, done: &DecryptReport) -> anyhow::Result<()> {
    for (file, reason) in &done.failed {
        note(&format!("retrocap: {}: {}", plain(file), plain(reason)));
    }
    if common.json {
        let failed: Vec<_> = done.failed.iter().map(|(file, error)| json!({"file": file, "error": error})).collect();
        print_json(&format!("{}\n", json!({"directory": out, "files": done.files, "failed": failed})))?;
    } else if done.files > 0 {
        print(&format!("decrypted {} into {}\n", counted(done.files, "file"), plain(&out.display().to_string())))?;
    }
    match done.failed.len() as u64 {
        0 if done.files == 0 => Err(anyhow!("the spool has no file that could be copied")),
        0 => Ok(()),
        failed => Err(anyhow!("INCOMPLETE: {} could not be decrypted as a whole", counted(failed, "file"))),
    }
}
