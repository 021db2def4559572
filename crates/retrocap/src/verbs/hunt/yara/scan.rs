//! Runs `yara` over many contents at a time, because it takes a while to start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};

use super::confined::{MISSING_PROGRAM, program};
use super::literals;
use super::output::{self, RuleMatch};
use crate::error::Usage;
use crate::terminal::human;
use crate::terminal::printable::{note, plain};
use hunt::narrow::LiteralFilter;
use hunt::{Kind, Match};
use streams::PacketRef;

/// Bytes that are searched at once.
const BATCH_BYTES: usize = 32 << 20;
/// Contents that are searched at once.
const BATCH_ITEMS: usize = 8192;
/// Time that a run of the program may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A run that took nearly as long may have reached its end.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(2);
/// Variables that public rules use, and that have no value here.
const VARIABLES: [&str; 5] = ["filename=", "filepath=", "extension=", "filetype=", "owner="];
/// Files of rules at most.
const RULE_FILES_MAX: usize = 10_000;
/// Lines of the program's errors that are repeated.
const ERROR_LINES: usize = 5;
/// Bytes of context before a match, and in all.
const CONTEXT_BYTES: (u64, u64) = (32, 320);
/// Where contents lie while they are searched, if it is there: a file system in memory.
const MEMORY: &str = "/dev/shm";

/// Compiled rules, in a folder that is removed at the end.
#[derive(Debug)]
pub(in super::super) struct YaraRules {
    folder: tempfile::TempDir,
    /// What every stream has in which they match, one of; `None` if they can match in any.
    pub(in super::super) literals: Option<Vec<Vec<u8>>>,
    /// Finds these literals; `None` if every content is searched.
    filter: Option<LiteralFilter>,
    /// Whether it was said what is not enforced.
    said: AtomicBool,
}

impl YaraRules {
    /// Compiles the rules of files, and of all files below folders that end in `.yar` or `.yara`.
    pub(in super::super) fn compile(paths: &[PathBuf]) -> anyhow::Result<Arc<Self>> {
        let files = rule_files(paths)?;
        let compiler = program("yarac").ok_or_else(|| anyhow!(MISSING_PROGRAM))?;
        let literals = literals::of_files(&files);
        let filter = literals.as_ref().and_then(|literals| LiteralFilter::new(literals));
        let rules = Self { folder: folder()?, literals, filter, said: AtomicBool::new(false) };
        let mut command = Command::new(compiler);
        command.args(VARIABLES.iter().flat_map(|variable| ["-d", variable]));
        for (number, file) in files.iter().enumerate() {
            // Rules of several files may have the same name.
            let mut named = std::ffi::OsString::from(format!("f{number}:"));
            named.push(std::fs::canonicalize(file).with_context(|| format!("cannot read {}", file.display()))?);
            command.arg(named);
        }
        let output = command.arg(rules.compiled()).stdin(Stdio::null()).output().context("cannot start yarac")?;
        if !output.status.success() {
            return Err(Usage::of(format_args!("cannot compile the YARA rules: {}", last_lines(&output.stderr))));
        }
        let warnings = output.stderr.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"warning: ")).count();
        if warnings > 0 {
            let warnings = human::counted(warnings as u64, "warning");
            note(&format!("retrocap: yarac has {warnings} about the rules: {}", last_lines(&output.stderr)));
        }
        Ok(Arc::new(rules))
    }

    fn compiled(&self) -> PathBuf {
        self.folder.path().join("rules")
    }
}

/// A folder that only this user may read.
fn folder() -> anyhow::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("retrocap-yara-");
    builder.tempdir_in(MEMORY).or_else(|_| builder.tempdir()).context("cannot make a folder for YARA")
}

/// The files of rules that paths name.
fn rule_files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for path in paths {
        let is_folder = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.is_dir();
        if is_folder { folders.push(path.clone()) } else { files.push(path.clone()) }
    }
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries.flatten() {
            let (path, kind) = (entry.path(), entry.file_type());
            let is_rule = path.extension().is_some_and(|end| end == "yar" || end == "yara");
            match kind {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(kind) if is_rule && kind.is_file() => files.push(path),
                _ => {}
            }
        }
        if files.len() > RULE_FILES_MAX {
            return Err(Usage::of(format_args!("{} has more than {RULE_FILES_MAX} files of rules", folder.display())));
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Usage::of("--yara names no rules: give a file, or a folder with files that end in .yar or .yara"));
    }
    Ok(files)
}

/// What a scan could not do.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Unscanned {
    /// Contents that could not be searched to the end.
    pub(in super::super) failed: u64,
    /// Matches beyond the limit for one run.
    pub(in super::super) more_matches: u64,
    /// Rules of which the program says that their result may be wrong, once for each content.
    pub(in super::super) uncertain: u64,
}

impl std::ops::AddAssign for Unscanned {
    fn add_assign(&mut self, other: Self) {
        self.failed += other.failed;
        self.more_matches += other.more_matches;
        self.uncertain += other.uncertain;
    }
}

/// Contents that wait to be searched, each with what it belongs to.
#[derive(Debug)]
pub(in super::super) struct Scan<T> {
    rules: Arc<YaraRules>,
    folder: tempfile::TempDir,
    items: Vec<T>,
    bytes: usize,
    pub(in super::super) unscanned: Unscanned,
}

impl<T> Scan<T> {
    pub(in super::super) fn new(rules: Arc<YaraRules>) -> anyhow::Result<Self> {
        Ok(Self { folder: folder()?, rules, items: Vec::new(), bytes: 0, unscanned: Unscanned::default() })
    }

    /// Adds a content if a rule can match in it, and searches once enough have been collected.
    pub(in super::super) fn add(
        &mut self,
        content: &[u8],
        item: T,
        found: &mut dyn FnMut(&T, Match, u64),
    ) -> anyhow::Result<()> {
        if self.rules.filter.as_ref().is_some_and(|filter| !filter.may_be_in(content)) {
            return Ok(());
        }
        std::fs::write(self.folder.path().join(self.items.len().to_string()), content)
            .with_context(|| format!("no room for contents in {}", self.folder.path().display()))?;
        self.items.push(item);
        self.bytes += content.len();
        if self.bytes >= BATCH_BYTES || self.items.len() >= BATCH_ITEMS { self.finish(found) } else { Ok(()) }
    }

    /// Whether contents wait.
    pub(in super::super) fn has_items(&self) -> bool {
        !self.items.is_empty()
    }

    /// Searches what has been collected.
    pub(in super::super) fn finish(&mut self, found: &mut dyn FnMut(&T, Match, u64)) -> anyhow::Result<()> {
        if self.items.is_empty() {
            return Ok(());
        }
        let folder = self.folder.path();
        let compiled = folder.join("rules");
        if !compiled.exists() {
            std::fs::copy(self.rules.compiled(), &compiled).context("no room for the compiled rules")?;
        }
        let matches = self.search(0..self.items.len())?;
        for (number, rules) in matches {
            let Some(item) = self.items.get(number) else { continue };
            for rule in rules {
                let end = rule.end;
                found(item, matched(&self.folder.path().join(number.to_string()), rule), end);
            }
        }
        for number in 0..self.items.len() {
            std::fs::remove_file(self.folder.path().join(number.to_string()))?;
        }
        self.items.clear();
        self.bytes = 0;
        Ok(())
    }

    /// Searches some contents.
    fn search(&mut self, numbers: Range<usize>) -> anyhow::Result<BTreeMap<usize, Vec<RuleMatch>>> {
        let mut failed = 0;
        let matches = in_halves(numbers, &mut failed, &mut |numbers| {
            let list: String = numbers.map(|number| format!("{number}\n")).collect();
            std::fs::write(self.folder.path().join("list"), list)?;
            let begun = Instant::now();
            let (matches, of_contents, has_ended_well) = self.run()?;
            let is_to_the_end = has_ended_well && begun.elapsed() + TIMEOUT_MARGIN < TIMEOUT;
            Ok((matches, is_to_the_end.then_some(of_contents)))
        });
        self.unscanned.failed += failed;
        matches
    }

    /// Runs the program over the list. Returns what matched, how many contents it says that it could not search, and whether
    /// it ended as it should.
    fn run(&mut self) -> anyhow::Result<(BTreeMap<usize, Vec<RuleMatch>>, u64, bool)> {
        let errors = File::create_new(self.folder.path().join("errors"))?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("scan-confined").arg(self.folder.path());
        command.args((!self.rules.said.swap(true, Ordering::Relaxed)).then_some("--say-missing"));
        command.args(["--", "-C", "-s", "-L", "-N", "-p", "1", "-a"]);
        command.arg(TIMEOUT.as_secs().to_string());
        command.args(["--scan-list", "rules", "list"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().context("cannot start yara")?;
        let (matches, more) =
            child.stdout.take().map(|stdout| output::read(BufReader::new(stdout))).unwrap_or_default();
        self.unscanned.more_matches += more;
        let status = child.wait().context("cannot wait for yara")?;
        let mut said = Vec::new();
        let path = self.folder.path().join("errors");
        File::open(&path)?.take(1 << 20).read_to_end(&mut said)?;
        std::fs::remove_file(&path)?;
        let said_text = String::from_utf8_lossy(&said);
        let count = |start: &str| said_text.lines().filter(|line| line.starts_with(start)).count() as u64;
        let of_contents = count("error scanning");
        // A string that occurs a million times: the program says that the rule may be wrong.
        self.unscanned.uncertain += count("warning: ");
        // A content that makes the program crash is like one that takes too long.
        if !status.success() && of_contents == 0 && status.signal().is_none() {
            return Err(anyhow!("yara failed ({status}): {}", last_lines(&said)));
        }
        Ok((matches, of_contents, status.success()))
    }
}

/// The matches by the number of the content, and how many contents the program could not search; `None` if it did not come to
/// its end.
type RunResult = (BTreeMap<usize, Vec<RuleMatch>>, Option<u64>);

/// Searches contents with `run`. The time that the program has is for all of them, and when it ends, or the program crashes,
/// it says nothing of those that it did not reach. They are then searched again in halves, so that one content hides no other.
fn in_halves(
    numbers: Range<usize>,
    failed: &mut u64,
    run: &mut dyn FnMut(Range<usize>) -> anyhow::Result<RunResult>,
) -> anyhow::Result<BTreeMap<usize, Vec<RuleMatch>>> {
    let (matches, of_contents) = run(numbers.clone())?;
    if of_contents.is_some() || numbers.len() == 1 {
        *failed += of_contents.unwrap_or(1);
        return Ok(matches);
    }
    let middle = numbers.start + numbers.len() / 2;
    let mut all = in_halves(numbers.start..middle, failed, run)?;
    all.extend(in_halves(middle..numbers.end, failed, run)?);
    Ok(all)
}

/// A rule that matched, at the place of its first string.
fn matched(path: &Path, rule: RuleMatch) -> Match {
    let (offset, length) = rule.strings.first().map_or((0, 0), |(offset, length, _)| (*offset, *length));
    let named = rule.strings.iter().map(|(offset, _, name)| format!("{name} at {offset}")).collect::<Vec<_>>();
    let mut context = Vec::new();
    if length > 0
        && let Ok(mut file) = File::open(path)
    {
        let from = offset.saturating_sub(CONTEXT_BYTES.0);
        let len = (offset - from + length + CONTEXT_BYTES.0).min(CONTEXT_BYTES.1);
        let read = file.seek(SeekFrom::Start(from)).and_then(|_| file.take(len).read_to_end(&mut context));
        context.truncate(read.unwrap_or(0));
    }
    Match {
        rule: rule.rule,
        kind: Kind::Yara,
        stage: String::new(),
        sender: None,
        stream_offset: Some(offset),
        packet: PacketRef::default(),
        length,
        context,
        gap_before: false,
        detail: named.join(", "),
    }
}

/// The last lines of what a program wrote about its errors.
fn last_lines(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text).into_owned();
    let lines: Vec<&str> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(ERROR_LINES).collect();
    plain(&lines.into_iter().rev().collect::<Vec<_>>().join("; ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_that_stops_the_program_hides_no_other() {
        let (mut failed, mut runs) = (0, 0);
        // The program says nothing of the contents behind the slow ones.
        let all = in_halves(0..100, &mut failed, &mut |numbers| {
            runs += 1;
            let slow = numbers.clone().find(|number| [37, 38].contains(number));
            let matched = RuleMatch { rule: "r".to_owned(), strings: Vec::new(), end: 0 };
            let matches = (numbers.start..slow.unwrap_or(numbers.end)).map(|number| (number, vec![matched.clone()]));
            Ok((matches.collect(), slow.is_none().then_some(0)))
        })
        .unwrap();
        let found: Vec<usize> = all.into_keys().collect();
        assert_eq!(found, (0..100).filter(|number| ![37, 38].contains(number)).collect::<Vec<_>>());
        assert_eq!(failed, 2);
        assert!(runs < 40, "{runs} runs");
    }
}
