//! What a hunt looks for, from the command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::json;

use super::contents::ObjectRules;
use super::yara::YaraRules;
use crate::error::Usage;
use crate::options::Common;
use crate::terminal::printable::{note, plain, print, print_json};
use api::question::HuntRules;
use api::value::Texts;
use hunt::attack::Attack;
use hunt::indicators::Indicators;
use hunt::narrow::CandidateQuery;
use hunt::patterns::Patterns;
use hunt::{ContentPatterns, SearchScope, builtin, check};

/// Indicators that a recorder takes in one question.
const INDICATORS_MAX: usize = 64;
/// The largest file of indicators or of a rule.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The patterns to search for; a match of any of them counts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Patterns")]
pub(super) struct RuleArgs {
    /// Search for this text, in this spelling
    #[arg(long, value_name = "STRING")]
    text: Vec<String>,
    /// Search for these bytes, in hexadecimal: '4d 5a 90 00'
    #[arg(long, value_name = "HEX")]
    bytes: Vec<String>,
    /// Search for this regular expression (in linear time): '(?i)user=\w+'
    #[arg(long, value_name = "RE")]
    regex: Vec<String>,
    /// Search for the indicators in this file, one per line: address, network, domain, URL, JA3, JA4, HASSH, or hash of a file
    #[arg(long, value_name = "FILE")]
    ioc: Vec<PathBuf>,
    /// Search for this attack; all searches for every attack, list prints their names; a path names a rule of your own
    #[arg(long, value_name = "NAME")]
    attack: Vec<String>,
    /// Search with the YARA rules in this file, or in the .yar and .yara files below this folder (needs the program yara)
    #[arg(long, value_name = "FILE|DIR")]
    yara: Vec<PathBuf>,
    /// Test the rule in this file on its own test cases
    #[arg(long, value_name = "FILE")]
    check: Vec<PathBuf>,
}

/// Compiled rules.
pub(super) struct Compiled {
    pub(super) patterns: Patterns,
    pub(super) indicators: Indicators,
    pub(super) attacks: Vec<Attack>,
    /// What is searched for in files.
    pub(super) files: Option<ObjectRules>,
    /// YARA rules, and whether they are searched for in streams.
    pub(super) yara: Option<(Arc<YaraRules>, bool)>,
    /// What a recorder can narrow the search down to.
    pub(super) narrowed: Option<CandidateQuery>,
}

impl RuleArgs {
    /// Answers `--attack list` and `--check`, which read no packets.
    pub(super) fn answers_alone(&self, common: &Common) -> anyhow::Result<Option<anyhow::Result<()>>> {
        if !self.check.is_empty() {
            return Ok(Some(self.try_rules(common)));
        }
        if self.attack.iter().any(|name| name == "list") {
            return Ok(Some(list(common)));
        }
        Ok(None)
    }

    fn try_rules(&self, common: &Common) -> anyhow::Result<()> {
        for path in &self.check {
            let attack = read_rule(path)?;
            let cases = check::check(&attack).map_err(|error| anyhow!("{}: {error}", path.display()))?;
            if common.json {
                print_json(&format!("{}\n", json!({ "rule": attack.name, "cases": cases })))?;
            } else {
                print(&format!("{}: {} test conversations passed\n", plain(&attack.name), cases.len()))?;
            }
        }
        Ok(())
    }

    /// The rules as recorders take them in a request.
    ///
    /// # Errors
    ///
    /// [`Usage`] for rules that a request cannot carry, or none.
    pub(super) fn for_recorders(&self) -> anyhow::Result<HuntRules> {
        let is_own = |name: &String| name.contains(['/', '.']);
        if !self.check.is_empty()
            || !self.yara.is_empty()
            || self.attack.iter().any(|name| name == "list" || is_own(name))
        {
            return Err(Usage::of(
                "recorders search for their own attacks alone: leave out --check, --yara and rules in files",
            ));
        }
        let mut indicators = Vec::new();
        for path in &self.ioc {
            let text = read(path)?;
            let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
            indicators.extend(lines.filter(|line| !line.is_empty()).map(str::to_owned));
        }
        if indicators.len() > INDICATORS_MAX {
            return Err(Usage::of(format_args!(
                "recorders take {INDICATORS_MAX} indicators in a question, and the files have {}: ask in parts, or look for \
                 addresses with flows",
                indicators.len()
            )));
        }
        let texts = |list: &[String]| (!list.is_empty()).then(|| Texts(list.to_vec()));
        let rules = HuntRules {
            text: texts(&self.text),
            bytes: texts(&self.bytes),
            regex: texts(&self.regex),
            ioc: texts(&indicators),
            attack: texts(&self.attack),
            place: None,
            limit: None,
        };
        if rules == HuntRules::default() {
            return Err(Usage::of("nothing to search for: try --text password, or --attack heartbleed"));
        }
        Ok(rules)
    }

    /// The rules, compiled. Without a `place`, YARA searches both streams and files.
    pub(super) fn compiled(&self, place: Option<SearchScope>, of_recorder: bool) -> anyhow::Result<Compiled> {
        let has_yara = !self.yara.is_empty();
        if has_yara && place == Some(SearchScope::Payload) {
            return Err(Usage::of("--yara searches streams and files: leave out --in payload"));
        }
        let yara_in = |wanted| has_yara && place.is_none_or(|place| place == wanted);
        let place = place.unwrap_or_default();
        let wanted = ContentPatterns {
            texts: self.text.clone(),
            bytes: self.bytes.clone(),
            regexes: self.regex.clone(),
            attacks: self.attacks()?,
            regex_bytes_max: None,
        };
        let indicators = self.indicators()?;
        if wanted.is_empty() && indicators.is_empty() && !has_yara {
            return Err(Usage::of(
                "nothing to search for: try --text password, --regex, --bytes, --yara, --ioc FILE, or --attack heartbleed \
                 (--attack list)",
            ));
        }
        let patterns = wanted.stream_patterns().map_err(Usage::of)?;
        let mut files = ObjectRules { of_recorder, ..ObjectRules::default() };
        if place == SearchScope::File {
            wanted.object_patterns().map_err(Usage::of)?;
            (files.texts, files.bytes, files.regexes) = (self.text.clone(), self.bytes.clone(), self.regex.clone());
        }
        files.hashes = indicators.hashes().map(str::to_owned).collect();
        files.pass_contents = yara_in(SearchScope::File);
        let in_files = place == SearchScope::File || files.pass_contents || !files.hashes.is_empty();
        let yara = if has_yara { Some((YaraRules::compile(&self.yara)?, yara_in(SearchScope::Stream))) } else { None };
        let of_yara = yara.as_ref().map_or_else(|| Some(Vec::new()), |(rules, _)| rules.literals.clone());
        if let Some(literals) = yara.as_ref().and_then(|(rules, _)| rules.literals.as_ref()) {
            let hex = |literal: &Vec<u8>| literal.iter().map(|byte| format!("{byte:02x}")).collect();
            files.pass_if = literals.iter().map(hex).collect();
        }
        // The hash of an object says nothing of its bytes.
        let narrowed = of_yara.filter(|_| files.hashes.is_empty());
        let narrowed = narrowed.and_then(|more| CandidateQuery::of(&wanted, &indicators, more));
        let narrowed = narrowed.map(|query| CandidateQuery { objects: in_files, ..query });
        let files = in_files.then_some(files);
        Ok(Compiled { patterns, indicators, attacks: wanted.attacks, files, yara, narrowed })
    }

    fn indicators(&self) -> anyhow::Result<Indicators> {
        let mut indicators = Indicators::default();
        for path in &self.ioc {
            indicators.read(&read(path)?);
            for (line, text) in indicators.broken.drain(..) {
                note(&format!("retrocap: {} line {line}: {text:?} is not an indicator and is ignored", path.display()));
            }
        }
        if !self.ioc.is_empty() && indicators.is_empty() {
            return Err(anyhow!("the files contain no indicator: write one per line, as in 192.0.2.1 or evil.example"));
        }
        Ok(indicators)
    }

    fn attacks(&self) -> anyhow::Result<Vec<Attack>> {
        let known = builtin::all().map_err(|error| anyhow!("{error}"))?;
        let mut chosen: Vec<Attack> = Vec::new();
        for name in &self.attack {
            if name == "all" {
                chosen.extend(known.iter().cloned());
            } else if let Some(attack) = known.iter().find(|attack| attack.name == *name) {
                chosen.push(attack.clone());
            } else if name.contains(['/', '.']) {
                chosen.push(read_rule(Path::new(name))?);
            } else {
                return Err(Usage::of(format_args!("there is no attack {name:?}: list the names with --attack list")));
            }
        }
        chosen.sort_by(|a, b| a.name.cmp(&b.name));
        chosen.dedup_by(|a, b| a.name == b.name);
        Ok(chosen)
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, FILE_BYTES_MAX + 1), &mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(anyhow!("{} has more than {} MiB", path.display(), FILE_BYTES_MAX >> 20));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn read_rule(path: &Path) -> anyhow::Result<Attack> {
    Attack::read(&read(path)?).map_err(|error| Usage::of(format_args!("{}: {error}", path.display())))
}

fn list(common: &Common) -> anyhow::Result<()> {
    for attack in builtin::all().map_err(|error| anyhow!("{error}"))? {
        if common.json {
            let row = json!({ "name": attack.name, "title": attack.title, "reference": attack.reference });
            print_json(&format!("{row}\n"))?;
        } else {
            print(&format!("{:<24} {} ({})\n", attack.name, attack.title, attack.reference.join(", ")))?;
        }
    }
    Ok(())
}
