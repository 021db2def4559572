//! Takes one session out of a capture, with the proof that it belongs to the whole.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};

use super::sealing;
use crate::error::Usage;
use crate::options::Common;
use crate::terminal::human::counted;
use crate::terminal::output::{FileMode, Output};
use crate::terminal::printable::note;
use base::interface::Interfaces;
use base::source::{Batch, Source as _};
use evidence::capture::{Capture, parse_key, session_key};
use evidence::verify::beside;
use formats::reader::FileSource;
use formats::writer::{Exporter, Format, Options};

/// What is added to the name of a session's capture for its proof.
pub(super) const SUFFIX: &str = ".proof.json";

pub(super) fn write(
    file: &Path,
    flow: &str,
    name: Option<String>,
    output: &Path,
    common: &Common,
) -> anyhow::Result<()> {
    let shown = file.display();
    let key = parse_key(flow).ok_or_else(|| {
        Usage::of(format_args!(
            "{flow:?} is not a session: try --flow '10.0.0.5:51234 192.0.2.7:443' or '[::1]:1 [::1]:2 udp'"
        ))
    })?;
    let name = name.or_else(|| file.file_name().map(|name| name.to_string_lossy().into_owned()));
    let opened = File::open(file).with_context(|| format!("cannot read {shown}"))?;
    let capture = Capture::read(Box::new(opened)).with_context(|| format!("cannot read {shown}"))?;
    if let Some(damage) = &capture.packets.damage {
        note(&format!("retrocap: {shown}: {damage}"));
    }
    let proof = capture.prove(&name.unwrap_or_default(), &key).with_context(|| format!("{shown}"))?;
    let interfaces = Arc::<Interfaces>::default();
    let mut source = FileSource::open(file, Arc::clone(&interfaces))?;
    let mut out = Output::open(output, FileMode::PRIVATE)?;
    let mut exporter = Exporter::new(Format::Pcapng, Options::default());
    exporter.begin(out.buffer(), &[format!("the session {key} of {}", proof.of)]);
    let mut failed = None;
    loop {
        let batch = source.batch(&mut |packet| {
            if session_key(packet) != key || failed.is_some() {
                return;
            }
            let all = interfaces.snapshot();
            let Some(interface) = all.iter().find(|interface| interface.id == packet.interface) else { return };
            let written = exporter.packet(out.buffer(), interface, packet).map_err(anyhow::Error::from);
            failed = written.and_then(|()| out.write_some()).err();
        });
        // Damage was reported above.
        if !matches!(batch, Ok(Batch::More | Batch::Idle)) {
            break;
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if exporter.cut() > 0 {
        return Err(anyhow!("the session has packets that are too long for pcapng, and cannot be proven"));
    }
    exporter.end(out.buffer(), &[], &[]);
    out.finish()?;
    let text = format!("{}\n", serde_json::to_string_pretty(&proof)?);
    let proof_path = beside(output, SUFFIX);
    sealing::write(&proof_path, text.as_bytes())?;
    if !common.quiet {
        let packets = counted(proof.packets, "packet");
        note(&format!("{packets} of {key} -> {}, proof -> {}", output.display(), proof_path.display()));
    }
    Ok(())
}
