//! The connection to the NATS server.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use async_nats::{Client, ConnectOptions};
use clap::Args;

/// Where the NATS server is, and who connects.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServerArgs {
    /// The NATS server: tls://nats.example:4222; nats:// is for this host alone
    #[arg(long, global = true, value_name = "URL", default_value = "tls://localhost:4222")]
    server: String,
    /// Credentials file (JWT and nkey)
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "nkey")]
    creds: Option<PathBuf>,
    /// File with the seed of an nkey
    #[arg(long, global = true, value_name = "FILE")]
    nkey: Option<PathBuf>,
    /// CA certificates that must have signed the server's certificate [default: those of the system]
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Certificate to present to the server
    #[arg(long, global = true, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Private key of that certificate
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl ServerArgs {
    /// Connects. With `retries`, a server that is not there yet is waited for, and a lost connection is made again.
    ///
    /// # Errors
    ///
    /// If the server is on another host and the connection is not encrypted, a file cannot be read, or nobody answers.
    pub(crate) async fn connect(&self, name: &str, retries: bool) -> anyhow::Result<Client> {
        let is_encrypted = self.server.starts_with("tls://") || self.server.starts_with("wss://");
        if !is_encrypted && !is_local(&self.server) {
            return Err(anyhow!("{}: answers would go over the network in the clear: use tls://", self.server));
        }
        let mut options = ConnectOptions::new().name(name).require_tls(is_encrypted);
        if retries {
            options = options.retry_on_initial_connect();
        } else {
            options = options.max_reconnects(3);
        }
        if let Some(ca) = &self.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        if let Some(creds) = &self.creds {
            options = options
                .credentials_file(creds)
                .await
                .with_context(|| format!("cannot read the credentials in {}", creds.display()))?;
        }
        if let Some(nkey) = &self.nkey {
            let seed = std::fs::read_to_string(nkey).with_context(|| format!("cannot read {}", nkey.display()))?;
            options = options.nkey(seed.trim().to_owned());
        }
        let options = options.event_callback(|event| async move { tracing::info!("NATS: {event}") });
        options.connect(&self.server).await.with_context(|| format!("cannot connect to {}", self.server))
    }
}

/// Whether a URL without TLS stays on this host.
fn is_local(url: &str) -> bool {
    let authority = url.split("://").nth(1).unwrap_or(url).rsplit('@').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_loopback_goes_in_the_clear() {
        for (url, local) in [
            ("nats://localhost:4222", true),
            ("nats://user:secret@127.0.0.1:4222", true),
            ("[::1]:4222", true),
            ("nats://nats.example:4222", false),
            ("nats://localhost.example", false),
            ("nats://127.0.0.1@nats.example", false),
        ] {
            assert_eq!(is_local(url), local, "{url}");
        }
    }
}
