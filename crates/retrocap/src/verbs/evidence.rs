//! `retrocap evidence`: seals what is handed over, and checks what was sealed.

mod check;
pub(crate) mod sealing;
mod session;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::options::Common;

/// Seal captures and logs, and check what was sealed
#[derive(Debug, Args)]
#[command(after_help = "\
A manifest lists the SHA-256 of each file and of the packets of each session. It is signed as by
`ssh-keygen -Y` in the namespace retrocap, so that it can be checked without this program; see docs/evidence.md.

Examples:
  retrocap get --since 1h host 10.0.0.5 -w case.pcapng --seal ~/.ssh/id_ed25519     export and seal in one step
  retrocap evidence seal case.pcapng notes.txt -o case.json --key ~/.ssh/id_ed25519 seal files
  retrocap evidence verify case.json --signers allowed_signers                     check the files and the signature
  retrocap evidence session case.pcapng --flow '10.0.0.5:51234 192.0.2.7:443' -w one.pcapng    one session, with proof
  retrocap evidence audit /var/log/retrocap/audit.log                              check that no line is missing or changed

The exit status of verify and audit is 0 if everything that could be checked is valid, 1 if something is not, and 2 if
nothing could be checked.")]
pub(crate) struct Evidence {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List files in a manifest, and sign it
    Seal {
        /// Captures, logs or other files, in the directory of the manifest or below
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// The manifest; its signature is the file of this name with .sig
        #[arg(short, long, value_name = "MANIFEST")]
        output: PathBuf,
        /// Private SSH key that signs; ssh-keygen is asked where it needs a passphrase, a token or an agent (KEY.pub)
        #[arg(long, value_name = "SSHKEY")]
        key: Option<PathBuf>,
        /// Write also a request for a time stamp (RFC 3161), with .tsq; store the authority's response with .tsr
        #[arg(long)]
        time_stamp_request: bool,
    },
    /// Check what a manifest proves, and report what it does not prove
    Verify {
        /// The manifest
        manifest: PathBuf,
        /// Accept only signatures of these keys: allowed_signers file as for ssh-keygen -Y
        #[arg(long, value_name = "FILE")]
        signers: Option<PathBuf>,
        /// Certificates (PEM) of trusted authorities for time stamps
        #[arg(long, value_name = "FILE")]
        tsa_ca: Vec<PathBuf>,
        /// The log in which the recorder sealed its record (audit.log.record), to show since when it had the packets; its
        /// older files are read as well
        #[arg(long, value_name = "FILE")]
        record_log: Option<PathBuf>,
        /// A capture of one session that `evidence session` wrote, with its proof beside it
        #[arg(long, value_name = "CAPTURE")]
        session: Vec<PathBuf>,
    },
    /// Take one session out of a sealed capture, with the proof that it belongs to it
    Session {
        /// The whole capture
        file: PathBuf,
        /// The session, as in get --flow: 'ADDRESS:PORT ADDRESS:PORT [tcp|udp|sctp]'
        #[arg(long, value_name = "FLOW")]
        flow: String,
        /// The name of the capture in its manifest [default: its file name]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Where the session is written (pcapng); its proof is the file of this name with .proof.json
        #[arg(short, long, value_name = "FILE")]
        write: PathBuf,
    },
    /// Check the chain of an audit log and of its older files
    Audit {
        /// The newest file; older ones (FILE.1, FILE.2, …) are read as well
        file: PathBuf,
        /// Accept only signed log heads of these keys: allowed_signers file as for ssh-keygen -Y
        #[arg(long, value_name = "FILE")]
        signers: Option<PathBuf>,
    },
}

impl Evidence {
    /// Runs the action.
    pub(crate) fn run(self, common: &Common) -> anyhow::Result<()> {
        match self.action {
            Action::Seal { files, output, key, time_stamp_request } => {
                // The option shares its name, and so its value, with that of the certificate for remote recorders.
                let of_tls = std::env::var_os("RETROCAP_KEY").map(PathBuf::from);
                let key = key.filter(|key| Some(key) != of_tls.as_ref());
                sealing::seal(&files, &output, key.as_deref(), time_stamp_request, common)
            }
            Action::Verify { manifest, signers, tsa_ca, record_log, session } => {
                let against = check::against(signers.as_deref(), &tsa_ca, record_log.as_deref(), &session)?;
                check::verify(&manifest, &against, common)
            }
            Action::Session { file, flow, name, write } => session::write(&file, &flow, name, &write, common),
            Action::Audit { file, signers } => check::audit(&file, signers.as_deref(), common),
        }
    }
}
