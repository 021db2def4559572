//! Checks the files beside a manifest, and reports in words what it proves about them.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::capture::{Capture, PROOF_FORMAT, SessionProof, digests};
use crate::digest::Digest;
use crate::manifest::{self, FileEntry, Manifest};
use crate::record::{ProvenPackets, Roots};
use crate::record_events::RecordHistory;
use crate::seal::{SealError, entry};
use crate::signature;
use crate::signers::AllowedSigners;
use crate::timestamp;
use base::time::Timestamp;

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was checked, and is right.
    Holds,
    /// It was checked, and is wrong.
    Fails,
    /// It was not checked, or cannot be checked.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::Fails => "does not hold",
            Self::Unknown => "cannot be known",
        })
    }
}

/// One statement about the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it holds.
    pub outcome: Outcome,
    /// The statement.
    pub words: String,
}

/// The results of all checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    fn add(&mut self, outcome: Outcome, words: impl Into<String>) {
        self.0.push(Finding { outcome, words: words.into() });
    }

    /// Whether no check failed.
    pub fn hold(&self) -> bool {
        self.0.iter().all(|finding| finding.outcome != Outcome::Fails)
    }
}

/// Trusted keys, and logs to compare the manifest with.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Keys that may sign; without them, the owner of a signature is unknown.
    pub signers: Option<AllowedSigners>,
    /// Trusted authorities for time stamps, in DER.
    pub authorities: Vec<Vec<u8>>,
    /// The log in which the recorder sealed its record every minute.
    pub record: Option<Roots>,
    /// What that log says beside the minutes.
    pub history: RecordHistory,
    /// Proofs of single sessions: the proof, and the capture with the session.
    pub proofs: Vec<(SessionProof, PathBuf)>,
}

/// The reason why nothing could be checked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The manifest cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The manifest.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file is not a manifest.
    #[error("{}: {source}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        source: manifest::ManifestError,
    },
}

/// The name of a file beside the manifest, such as its signature.
pub fn beside(manifest: &Path, suffix: &str) -> PathBuf {
    let mut path = manifest.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Checks a manifest, its signature and time stamp, and the files it names.
///
/// # Errors
///
/// When the manifest is missing or cannot be read.
pub fn verify(path: &Path, against: &VerifyOptions) -> Result<Findings, VerifyError> {
    let io = |source| VerifyError::Io { path: path.to_owned(), source };
    let mut text = Vec::new();
    File::open(path).map_err(io)?.take(manifest::BYTES_MAX).read_to_end(&mut text).map_err(io)?;
    let manifest = Manifest::read(&text).map_err(|source| VerifyError::Manifest { path: path.to_owned(), source })?;
    let mut findings = Findings::default();
    let stamped = check_time_stamp(path, &text, against, &mut findings);
    check_signature(path, &text, against, stamped, &mut findings);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for file in &manifest.files {
        let only_sessions = against.proofs.iter().any(|(proof, _)| proof.of == file.name);
        if only_sessions && !directory.join(&file.name).exists() {
            findings.add(Outcome::Unknown, format!("whether {} is unchanged: only sessions of it are here", file.name));
            continue;
        }
        check_file(directory, file, &mut findings);
    }
    check_recorder(directory, &manifest, against, &mut findings);
    for file in manifest.files.iter().filter(|file| file.packets.is_some()) {
        if let Some((sealed, time)) = against.history.sealed_file(&file.sha256) {
            let words = format!("{} is the file {} of the recorder's spool, sealed by {time}", file.name, sealed.name);
            findings.add(Outcome::Holds, words);
            continue;
        }
        check_record(&directory.join(&file.name), &file.name, against, &mut findings);
    }
    for (proof, session) in &against.proofs {
        check_proof(&manifest, proof, session, &mut findings);
    }
    findings.0.extend(limits(&manifest));
    Ok(findings)
}

fn check_signature(path: &Path, text: &[u8], against: &VerifyOptions, stamped: Option<u64>, findings: &mut Findings) {
    let file = beside(path, ".sig");
    let signature = match std::fs::read_to_string(&file) {
        Ok(signature) => signature,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let outcome = if against.signers.is_some() { Outcome::Fails } else { Outcome::Unknown };
            return findings.add(outcome, "nobody signed the manifest: whoever changed a file could change it too");
        }
        Err(error) => return findings.add(Outcome::Fails, format!("{} cannot be read: {error}", file.display())),
    };
    let signer = match signature::verify(&signature, text) {
        Ok(signer) => signer,
        Err(signature::SignatureError::Unsupported(kind)) => {
            return findings.add(
                Outcome::Unknown,
                format!("whether the signature is right: keys of the kind {kind} are checked by ssh-keygen -Y verify"),
            );
        }
        Err(error) => return findings.add(Outcome::Fails, format!("the signature {}: {error}", file.display())),
    };
    findings.add(Outcome::Holds, format!("the manifest was signed by the key {}", signer.fingerprint));
    signed_by(&signer, against, stamped, "the manifest", findings);
}

fn signed_by(
    signer: &signature::Signer,
    against: &VerifyOptions,
    stamped: Option<u64>,
    what: &str,
    findings: &mut Findings,
) {
    let Some(signers) = &against.signers else {
        return findings.add(
            Outcome::Unknown,
            format!(
                "whose key signed {what}: compare {} with what its owner says, or give --signers FILE",
                signer.fingerprint
            ),
        );
    };
    // A key counts as valid if it was valid at the time of the authority's stamp.
    let at = stamped.map_or_else(|| Timestamp::from(std::time::SystemTime::now()), |at| Timestamp::from_unix(at, 0));
    let at: String = at.to_rfc3339().chars().filter(char::is_ascii_digit).take(14).collect();
    match signers.principals(signer, &at) {
        Some(principals) => findings.add(Outcome::Holds, format!("that key belongs to {principals}")),
        None => findings.add(Outcome::Fails, format!("the key {} is not among the signers", signer.fingerprint)),
    }
}

/// Checks the time stamp beside the manifest, if there is one, and returns its time.
fn check_time_stamp(path: &Path, text: &[u8], against: &VerifyOptions, findings: &mut Findings) -> Option<u64> {
    let file = beside(path, ".tsr");
    let response = match std::fs::read(&file) {
        Ok(response) => response,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            findings.add(
                Outcome::Unknown,
                "when the manifest was made: its time is the word of the machine that sealed it, and no authority \
                 stamped it",
            );
            return None;
        }
        Err(error) => {
            findings.add(Outcome::Fails, format!("{} cannot be read: {error}", file.display()));
            return None;
        }
    };
    match timestamp::check(&response, Digest::of(text), &against.authorities) {
        Ok(stamp) => {
            let time = Timestamp::from_unix(stamp.unix_seconds, 0);
            let words = format!("the manifest existed at {time}, by the time stamp of {}", stamp.authority);
            match (stamp.trusted, stamp.distrust) {
                (Some(true), _) => findings.add(Outcome::Holds, words),
                (Some(false), why) => findings
                    .add(Outcome::Fails, format!("the time stamp of {}: {}", stamp.authority, why.unwrap_or_default())),
                (None, _) => {
                    findings.add(
                        Outcome::Unknown,
                        format!("whether {} is an authority that you trust: give --tsa-ca FILE. It states that the manifest existed at {time}, and its signature is right", stamp.authority),
                    );
                }
            }
            (stamp.trusted == Some(true)).then_some(stamp.unix_seconds)
        }
        Err(error) => {
            findings.add(Outcome::Fails, format!("the time stamp {}: {error}", file.display()));
            None
        }
    }
}

fn check_file(directory: &Path, listed: &FileEntry, findings: &mut Findings) {
    let name = &listed.name;
    let found = match entry(&directory.join(name), name.clone()) {
        Ok(found) => found,
        Err(SealError::Io { source, .. }) => {
            return findings.add(Outcome::Fails, format!("{name} cannot be read: {source}"));
        }
        Err(error) => return findings.add(Outcome::Fails, error.to_string()),
    };
    let same_packets = match (&found.packets, &listed.packets) {
        (Some(found), Some(listed)) => found.count == listed.count && found.merkle_root == listed.merkle_root,
        _ => false,
    };
    match (found.sha256 == listed.sha256 && found.bytes == listed.bytes, same_packets) {
        (true, _) if found == *listed => {
            let packets = match &listed.packets {
                Some(packets) => format!(": {} packets in {} sessions", packets.count, packets.runs),
                None => String::new(),
            };
            findings.add(Outcome::Holds, format!("{name} is unchanged{packets}"));
        }
        (true, _) => findings.add(
            Outcome::Fails,
            format!("{name} is unchanged, but the manifest says something else about its packets than it holds"),
        ),
        (false, true) => findings.add(
            Outcome::Fails,
            format!("{name} was changed. Its packets are the same; their order, comments or the format differ"),
        ),
        (false, false) => {
            let count = |entry: &FileEntry| entry.packets.as_ref().map_or(0, |packets| packets.count);
            let (now, then) = (count(&found), count(listed));
            let difference = match (now, then) {
                _ if found.bytes == 0 => "it is empty".to_owned(),
                (now, then) if now != then => format!("it has {now} packets and had {then}"),
                _ => format!("it has {} bytes and had {}", found.bytes, listed.bytes),
            };
            findings.add(Outcome::Fails, format!("{name} was changed or swapped: {difference}"));
        }
    }
    if let Some(damage) = listed.packets.as_ref().and_then(|packets| packets.damage.as_ref()) {
        findings.add(Outcome::Unknown, format!("what follows the damage that {name} had when it was sealed: {damage}"));
    }
}

/// Suffix of the file with the record that the recorder signed for an export.
pub const RECORDER_SUFFIX: &str = ".recorder.json";

/// Checks the records that a recorder signed when it sent an export.
fn check_recorder(directory: &Path, manifest: &Manifest, against: &VerifyOptions, findings: &mut Findings) {
    for file in &manifest.files {
        let record = format!("{}{RECORDER_SUFFIX}", file.name);
        if !manifest.files.iter().any(|other| other.name == record) {
            continue;
        }
        let path = directory.join(&record);
        let (Ok(text), Ok(signature)) = (std::fs::read(&path), std::fs::read_to_string(beside(&path, ".sig"))) else {
            findings.add(Outcome::Fails, format!("{record} or its signature cannot be read"));
            continue;
        };
        let stated = serde_json::from_slice::<serde_json::Value>(&text).ok();
        let stated = stated.and_then(|value| value.get("sha256")?.as_str()?.parse::<Digest>().ok());
        match signature::verify(&signature, &text) {
            Err(error) => findings.add(Outcome::Fails, format!("the recorder's signature on {record}: {error}")),
            Ok(_) if stated != Some(file.sha256) => {
                findings.add(Outcome::Fails, format!("the recorder sent another file than {}", file.name));
            }
            Ok(signer) => {
                let key = &signer.fingerprint;
                findings.add(Outcome::Holds, format!("{} is what the recorder with the key {key} sent", file.name));
                signed_by(&signer, against, None, "the recorder's record", findings);
            }
        }
    }
}

/// Checks the proofs in an export that its packets are in the record that the recorder sealed every minute.
fn check_record(path: &Path, name: &str, against: &VerifyOptions, findings: &mut Findings) {
    let read = File::open(path).and_then(|file| digests(Box::new(file)));
    let Ok((packets, comments)) = read else { return };
    let proven = ProvenPackets::among(&comments);
    if proven.wrong > 0 {
        findings.add(Outcome::Fails, format!("{} proofs of the record in {name} do not hold", proven.wrong));
    }
    let Some(roots) = &against.record else {
        if !proven.packets.is_empty() {
            let words = format!(
                "since when the recorder had the packets of {name}: give its log of sealed minutes, --record-log FILE"
            );
            findings.add(Outcome::Unknown, words);
        }
        return;
    };
    let (covered, span) = roots.cover(&packets, &proven);
    let all = packets.len() as u64;
    if let Some((first, last)) = span {
        findings.add(
            Outcome::Holds,
            format!("{covered} of {all} packets of {name} were recorded when the recorder sealed them, from {first} to {last}"),
        );
    }
    if covered < all {
        let rest = all - covered;
        let words =
            format!("since when the recorder had {rest} packets of {name}: its log has no sealed minute with them");
        findings.add(Outcome::Unknown, words);
    }
}

fn check_proof(manifest: &Manifest, proof: &SessionProof, session: &Path, findings: &mut Findings) {
    let name = session.display();
    let listed = manifest.files.iter().find(|file| file.name == proof.of);
    let Some(listed) = listed.and_then(|file| file.packets.as_ref()) else {
        return findings.add(Outcome::Fails, format!("the manifest lists no capture {}", proof.of));
    };
    if proof.retrocap_session_proof != PROOF_FORMAT {
        return findings.add(Outcome::Unknown, format!("what the proof for {name} says: its format is not known"));
    }
    let capture = File::open(session).and_then(|file| Capture::read(Box::new(file)));
    let capture = match capture {
        Ok(capture) => capture,
        Err(error) => return findings.add(Outcome::Fails, format!("{name} cannot be read: {error}")),
    };
    let [run] = capture.runs() else {
        return findings.add(Outcome::Fails, format!("{name} has {} sessions and not one", capture.runs().len()));
    };
    let fits = run.key == proof.session
        && proof.path.leaves == listed.runs
        && proof.path.root(run.leaf()) == Some(listed.merkle_root);
    if fits {
        let words = format!("{name} is the whole session {} of {}, {} packets", run.key, proof.of, run.packets);
        findings.add(Outcome::Holds, words);
    } else {
        findings.add(Outcome::Fails, format!("{name} is not the session {} as it is in {}", proof.session, proof.of));
    }
}

/// Lists what no check of files can show.
fn limits(manifest: &Manifest) -> Vec<Finding> {
    let mut limits = Vec::new();
    let mut unknown = |words: String| limits.push(Finding { outcome: Outcome::Unknown, words });
    for file in manifest.files.iter().filter(|file| file.packets.is_some()) {
        let name = &file.name;
        let Some(statement) = file.statements.last() else {
            unknown(format!("which recorder {name} comes from, and what it lacks: it has no statement of a recorder"));
            continue;
        };
        let clock = statement.clock.at_export.as_ref();
        if clock.is_none_or(|clock| clock.synchronised != Some(true)) {
            unknown(format!("whether the times in {name} are right: the recorder's clock was not synchronized"));
        }
        if !statement.clock.steps.is_empty() {
            let steps = statement.clock.steps.len() as u64 + statement.clock.more_steps;
            unknown(format!("the order of packets around {steps} steps of the recorder's clock ({name})"));
        }
        let loss = &statement.loss;
        if loss.kernel_dropped > 0 || loss.evicted > 0 {
            unknown(format!(
                "what was in the packets that the recorder of {name} lost before the export: {} dropped by the kernel, {} evicted",
                loss.kernel_dropped, loss.evicted
            ));
        }
    }
    unknown("what happened on the wire that the recorder did not see".to_owned());
    limits
}
