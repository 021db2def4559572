//! Options that every verb accepts, and the recorder that they name.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;

use crate::client::address::Address;
use crate::client::deadline::TIMEOUT_DEFAULT;
use crate::client::{remote, tls};
use base::time::Timestamp;

/// Options that every verb accepts.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// Socket of the recorder [default: /run/retrocap/retrocap.sock]
    #[arg(long, global = true, value_name = "PATH", env = "RETROCAP_SOCKET", hide_env_values = true)]
    pub(crate) socket: Option<PathBuf>,
    /// Query a recorder on another machine, as in https://sensor1:57443; also $RETROCAP_REMOTE
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) remote: Option<String>,
    /// CA certificates that must have signed the other side's certificate [default: ca.pem in $RETROCAP_CERTS or
    /// ~/.config/retrocap]
    #[arg(long, global = true, value_name = "FILE", env = "RETROCAP_CA", hide_env_values = true)]
    pub(crate) ca: Option<PathBuf>,
    /// Certificate to present to the other side [default: client.pem there]
    #[arg(long, global = true, value_name = "FILE", env = "RETROCAP_CERT", hide_env_values = true)]
    pub(crate) cert: Option<PathBuf>,
    /// Private key of that certificate [default: client.key there]
    #[arg(long, global = true, value_name = "FILE", env = "RETROCAP_KEY", hide_env_values = true)]
    pub(crate) key: Option<PathBuf>,
    /// Give up when the recorder sends nothing for this long: 30s, 5m [default: 2m]
    #[arg(long, global = true, value_name = "DURATION", value_parser = timeout)]
    pub(crate) timeout: Option<Duration>,
    /// Time of the newest packet in the capture files, when a verb reads files instead of querying a recorder.
    #[arg(skip)]
    pub(crate) newest: Option<Timestamp>,
    /// Whether the capture files could be read in part only.
    #[arg(skip)]
    pub(crate) in_part: bool,
    /// Print JSON: one document, or one object per line for listings
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print more messages; twice for all
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Print only errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

impl Common {
    /// The recorder's default socket.
    pub(crate) fn socket_default() -> PathBuf {
        PathBuf::from("/run/retrocap/retrocap.sock")
    }

    /// The recorder to query: a Unix socket or a remote URL. The command line takes precedence over the environment,
    /// and `RETROCAP_REMOTE` over `RETROCAP_SOCKET`.
    pub(crate) fn socket(&self) -> Address {
        let variable = std::env::var("RETROCAP_REMOTE").ok().filter(|url| !url.is_empty());
        let said = self.socket.is_some() && self.socket != std::env::var_os("RETROCAP_SOCKET").map(PathBuf::from);
        let url = self.remote.clone().filter(|url| !url.is_empty()).or(variable.filter(|_| !said));
        match url {
            Some(url) => Address::Remote(Box::new(remote::Remote { url, files: self.files() })),
            None => Address::Socket(self.socket.clone().unwrap_or_else(Self::socket_default)),
        }
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match base::time::parse_duration(text) {
        Ok(timeout) if timeout > Duration::ZERO => Ok(timeout),
        Ok(_) => Err("the timeout must be above 0: try 30s".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl Common {
    /// The time that relative times count from: the system clock, or the newest packet of the capture files.
    pub(crate) fn now(&self) -> Timestamp {
        self.newest.unwrap_or_else(|| Timestamp::from(SystemTime::now()))
    }

    /// How long to wait while the recorder sends nothing.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT_DEFAULT)
    }
}

impl Common {
    /// The client's certificate files, as far as they are named. An empty path counts as unset, because Wireshark's
    /// dialog sends empty paths.
    pub(crate) fn files(&self) -> tls::CertificateFiles {
        let said = |file: &Option<PathBuf>| file.clone().filter(|file| !file.as_os_str().is_empty());
        tls::CertificateFiles { ca: said(&self.ca), cert: said(&self.cert), key: said(&self.key) }
    }
}
