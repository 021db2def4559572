//! Says what a manifest, or the chain of a log, proves.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde_json::json;

use super::session;
use crate::error::{AlreadyReported, Usage};
use crate::options::Common;
use crate::terminal::printable::{print, print_json};
use base::counted::counted;
use base::foreign::Foreign;
use base::time::Timestamp;
use evidence::chain::{self, Report};
use evidence::record::Roots;
use evidence::record_events::RecordHistory;
use evidence::signers::AllowedSigners;
use evidence::timestamp;
use evidence::verify::{self, Finding, Findings, Outcome, VerifyOptions, beside};

/// Removed files and restarts that are listed.
const LISTED_MAX: usize = 100;

/// Reads what a manifest is compared with.
pub(super) fn against(
    signers: Option<&Path>,
    tsa_ca: &[PathBuf],
    record_log: Option<&Path>,
    sessions: &[PathBuf],
) -> anyhow::Result<VerifyOptions> {
    let mut against = VerifyOptions { signers: signers.map(read_signers).transpose()?, ..VerifyOptions::default() };
    if let Some((roots, history)) = record_log.map(read_record).transpose()? {
        (against.record, against.history) = (Some(roots), history);
    }
    for path in tsa_ca {
        let pem = std::fs::read(path).map_err(|error| cannot_read(path, error))?;
        let found = timestamp::read_authorities(&pem);
        against.authorities.extend(found.map_err(|error| Usage::of(format_args!("{}: {error}", path.display())))?);
    }
    for path in sessions {
        let proof = beside(path, session::SUFFIX);
        let text = std::fs::read(&proof).map_err(|error| cannot_read(&proof, error))?;
        let parsed = serde_json::from_slice(&text);
        let parsed = parsed.map_err(|error| Usage::of(format_args!("{} is no proof: {error}", proof.display())))?;
        against.proofs.push((parsed, path.clone()));
    }
    Ok(against)
}

/// The roots of a log of sealed minutes whose chain holds, and what it says beside.
fn read_record(file: &Path) -> anyhow::Result<(Roots, RecordHistory)> {
    let mut chained = older(file);
    chained.push(file.to_owned());
    let (texts, roots, history) = read_lines(&chained)?;
    let report = chain::check(texts.into_iter().map(std::io::Cursor::new).collect::<Vec<_>>());
    match report.context("cannot read the log of sealed minutes")?.breaks.first() {
        None => Ok((roots, history)),
        Some((line, found)) => Err(anyhow!("{}: line {line}: {found}", file.display())),
    }
}

/// Reads a log of sealed minutes: its files, its roots, and what it says beside.
fn read_lines(paths: &[PathBuf]) -> anyhow::Result<(Vec<Vec<u8>>, Roots, RecordHistory)> {
    let (mut texts, mut roots, mut history) = (Vec::new(), Roots::default(), RecordHistory::default());
    for path in paths {
        let text = std::fs::read(path).map_err(|error| cannot_read(path, error))?;
        text.split(|&byte| byte == b'\n').for_each(|line| {
            roots.add_line(line);
            history.add_line(line);
        });
        texts.push(text);
    }
    Ok((texts, roots, history))
}

/// Checks a manifest.
pub(super) fn verify(manifest: &Path, against: &VerifyOptions, common: &Common) -> anyhow::Result<()> {
    let mut findings = verify::verify(manifest, against).map_err(Usage::of)?;
    if against.record.is_some() {
        findings.0.extend(cut_files(&against.history));
    }
    let holds = findings.hold();
    let first = match holds {
        true => format!("{}: everything that can be checked holds", manifest.display()),
        false => format!("{}: DOES NOT HOLD", manifest.display()),
    };
    report(&first, &findings, common)
}

/// Checks a log and its older files.
pub(super) fn audit(file: &Path, signers: Option<&Path>, common: &Common) -> anyhow::Result<()> {
    let signers = signers.map(read_signers).transpose()?;
    let paths = older(file).into_iter().chain([file.to_owned()]).collect::<Vec<_>>();
    let opened =
        paths.iter().map(|path| File::open(path).map(BufReader::new).map_err(|error| cannot_read(path, error)));
    let chained = chain::check(opened.collect::<Result<Vec<_>, _>>()?).context("cannot read the log")?;
    if chained.lines == 0 {
        return Err(Usage::of(format_args!("{} is empty, so there is nothing to check", file.display())));
    }
    let mut findings = findings(&chained, signers.as_ref(), paths.len());
    if chained.holds() {
        findings.0.extend(of_record(&read_lines(&paths)?.2));
    }
    let shown = file.display();
    let first = match findings.hold() {
        true => format!("{shown}: no line of {} was removed, changed or moved", chained.lines),
        false => format!("{shown}: LINES WERE REMOVED, CHANGED OR MOVED"),
    };
    report(&first, &findings, common)
}

/// What a log of sealed minutes says of runs of the recorder, and of the files of its spool; nothing for other logs.
fn of_record(history: &RecordHistory) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |outcome, words: String| findings.push(Finding { outcome, words });
    if history.starts > 1 && history.breaks.is_empty() {
        add(
            Outcome::Holds,
            format!("the recorder was started {} times, and ended in order before each further start", history.starts),
        );
    }
    for (last, start) in history.breaks.iter().take(LISTED_MAX) {
        let words = "what was recorded after {last}, until the recorder ended: it was started again at {start} without a stop in order";
        add(Outcome::Unknown, words.replace("{last}", last).replace("{start}", start));
    }
    let files = history.files.len() + history.removed.len() + history.gone.len();
    if files > 0 {
        add(
            Outcome::Holds,
            format!(
                "{} of the spool {} sealed by {} SHA-256",
                counted(files as u64, "file", "files"),
                if files == 1 { "was" } else { "were" },
                if files == 1 { "its" } else { "their" }
            ),
        );
    }
    for (file, time) in &history.changed {
        add(
            Outcome::Fails,
            format!(
                "{} was changed after it was sealed ({} bytes, SHA-256 {}): it had other bytes by {time}",
                printable(&file.name),
                file.bytes,
                file.sha256
            ),
        );
    }
    for (name, time) in history.unreadable.iter().take(LISTED_MAX) {
        let name = printable(name);
        add(Outcome::Unknown, format!("what the file {name} of the spool holds: it could not be read at {time}"));
    }
    if history.left_packets > 0 || history.left_files > 0 {
        let (packets, files) = (history.left_packets, history.left_files);
        let words = format!(
            "what was in {} and {} of the spool that were not sealed when the recorder stopped",
            counted(packets, "packet", "packets"),
            counted(files, "file", "files")
        );
        add(Outcome::Unknown, words);
    }
    if let Some(more) = more_than_listed(history.breaks.len()) {
        add(Outcome::Unknown, format!("what was recorded before {more} further starts without a stop in order"));
    }
    findings.extend(cut_files(history));
    findings
}

/// The files that were removed from the spool, each with its hash.
fn cut_files(history: &RecordHistory) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |outcome, words: String| findings.push(Finding { outcome, words });
    for (file, time) in history.removed.iter().take(LISTED_MAX) {
        let (name, bytes, hash) = (printable(&file.name), file.bytes, file.sha256);
        let words = format!("{name} ({bytes} bytes, SHA-256 {hash}) was in the spool and was removed by {time}");
        add(Outcome::Holds, words);
    }
    for (file, time) in history.gone.iter().take(LISTED_MAX) {
        let (name, bytes, hash) = (printable(&file.name), file.bytes, file.sha256);
        let words =
            format!("when {name} ({bytes} bytes, SHA-256 {hash}) was removed from the spool: it was gone by {time}");
        add(Outcome::Unknown, words);
    }
    if let Some(more) = more_than_listed(history.removed.len()) {
        add(Outcome::Holds, format!("{more} further files were removed: the log lists each with its hash"));
    }
    if let Some(more) = more_than_listed(history.gone.len()) {
        add(Outcome::Unknown, format!("when {more} further files were removed: the log lists each with its hash"));
    }
    findings
}

fn more_than_listed(all: usize) -> Option<usize> {
    Some(all.saturating_sub(LISTED_MAX)).filter(|&more| more > 0)
}

fn printable(name: &str) -> String {
    Foreign::new(name).terminal().to_string()
}

/// The older files of a log, the oldest first.
fn older(file: &Path) -> Vec<PathBuf> {
    let numbered = |number: u32| beside(file, &format!(".{number}"));
    let mut paths: Vec<_> = (1..=10_000).map(numbered).take_while(|path| path.is_file()).collect();
    paths.reverse();
    paths
}

fn findings(chained: &Report, signers: Option<&AllowedSigners>, files: usize) -> Findings {
    let mut findings = Findings::default();
    let mut add = |outcome, words: String| findings.0.push(Finding { outcome, words });
    for (line, found) in &chained.breaks {
        add(Outcome::Fails, format!("line {line} of {files} files: {found}"));
    }
    if chained.more_breaks > 0 {
        add(Outcome::Fails, format!("{} more lines like these", chained.more_breaks));
    }
    let last = chained.head.map_or(0, |head| head.number);
    if let (Some((first, _)), Some(head), true) = (chained.first, chained.head, chained.holds()) {
        add(Outcome::Holds, format!("lines {first} to {last} follow each other; the head is {}", head.hash));
        if first > 0 {
            add(Outcome::Unknown, format!("what was in the {first} lines before, which rotation removed"));
        }
    }
    for signed in &chained.signed {
        let at: String = signed.time.chars().filter(char::is_ascii_digit).take(14).collect();
        let words = format!("line {} and all before it, by the key {}", signed.number, signed.signer.fingerprint);
        match signers.map(|signers| signers.principals(&signed.signer, &at)) {
            Some(None) => add(Outcome::Fails, format!("{words}, which is not among the signers")),
            Some(Some(who)) => add(Outcome::Holds, format!("{words} of {who}, signed at {}", signed.time)),
            None => add(Outcome::Holds, format!("{words}, signed at {}", signed.time)),
        }
    }
    match chained.signed.last() {
        None => {
            let outcome = if signers.is_some() { Outcome::Fails } else { Outcome::Unknown };
            add(
                outcome,
                "no head of the log is signed: whoever could write the log could also make it anew".to_owned(),
            );
        }
        Some(signed) if signed.number < last => add(
            Outcome::Unknown,
            format!("whether lines after {} were made anew: no signed head covers them yet", signed.number),
        ),
        Some(_) => {}
    }
    add(
        Outcome::Unknown,
        "whether lines were removed from the end: compare the head with one noted elsewhere".to_owned(),
    );
    findings
}

fn report(first: &str, findings: &Findings, common: &Common) -> anyhow::Result<()> {
    if common.json {
        let list = findings.0.iter().map(|finding| {
            let outcome = match finding.outcome {
                Outcome::Holds => "holds",
                Outcome::Fails => "fails",
                Outcome::Unknown => "unknown",
            };
            json!({ "outcome": outcome, "words": finding.words })
        });
        let document = json!({ "holds": findings.hold(), "checked": now(), "findings": list.collect::<Vec<_>>() });
        print_json(&format!("{document}\n"))?;
    } else {
        let mut text = format!("{first}\n");
        for outcome in [Outcome::Fails, Outcome::Holds, Outcome::Unknown] {
            for finding in findings.0.iter().filter(|finding| finding.outcome == outcome) {
                text.push_str(&format!("  {outcome}: {}\n", finding.words));
            }
        }
        print(&text)?;
    }
    if findings.hold() { Ok(()) } else { Err(AlreadyReported.into()) }
}

fn now() -> String {
    Timestamp::from(std::time::SystemTime::now()).to_rfc3339()
}

fn read_signers(path: &Path) -> anyhow::Result<AllowedSigners> {
    let text = std::fs::read_to_string(path).map_err(|error| cannot_read(path, error))?;
    AllowedSigners::read(&text).map_err(|error| Usage::of(format_args!("{}: {error}", path.display())))
}

/// Exit status 2: nothing was checked.
fn cannot_read(path: &Path, error: std::io::Error) -> anyhow::Error {
    Usage::of(anyhow!("cannot read {}: {error}", path.display()))
}
