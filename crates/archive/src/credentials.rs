//! Credentials and settings, from where AWS tools look for them: the environment, then the files of a profile.
//!
//! There is no flag for a secret, so that none is in a list of processes or in a shell's history.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use configparser::ini::Ini;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut};
use object_store::{Certificate, ClientOptions};

/// A bucket's builder, and what it found.
pub(crate) struct Configured {
    pub(crate) builder: AmazonS3Builder,
    /// Whether there are credentials; else the instance's role is asked for.
    pub(crate) has_credentials: bool,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The settings of a bucket. `http_is_allowed` allows a server elsewhere without TLS.
pub(crate) fn configured(bucket: &str, http_is_allowed: bool) -> anyhow::Result<Configured> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    let profile = Profile::read()?;
    let identity =
        ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    let mut has_credentials = identity.iter().any(|name| variable(name).is_some());
    if variable("AWS_ACCESS_KEY_ID").is_some() {
        has_credentials = true;
    } else if !has_credentials {
        for (name, key) in [
            ("aws_access_key_id", AmazonS3ConfigKey::AccessKeyId),
            ("aws_secret_access_key", AmazonS3ConfigKey::SecretAccessKey),
            ("aws_session_token", AmazonS3ConfigKey::Token),
        ] {
            if let Some(value) = profile.get(name) {
                builder = builder.with_config(key, value);
                has_credentials = true;
            }
        }
    }
    let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).or_else(|| profile.get("region"));
    builder = builder.with_region(region.unwrap_or_else(|| "us-east-1".to_owned()));
    let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"].into_iter().find_map(variable);
    if let Some(endpoint) = endpoint.or_else(|| profile.get("endpoint_url")) {
        let is_plain = endpoint.starts_with("http://");
        if is_plain && !http_is_allowed && !is_loopback(&endpoint) {
            return Err(anyhow!(
                "{endpoint} has no TLS, so everybody on the way could read what is sent: use https://, or allow it with \
                 --allow-http (of retrocap: --archive-allow-http)"
            ));
        }
        builder = builder.with_endpoint(endpoint).with_allow_http(is_plain);
    }
    // The server refuses what arrives other than it was sent, and an object is never written twice.
    builder = builder.with_checksum_algorithm(Checksum::SHA256).with_conditional_put(S3ConditionalPut::ETagMatch);
    Ok(Configured { builder, has_credentials })
}

/// The options of connections. The limits of time are those of [`crate::store`].
pub(crate) fn client_options(allow_http: bool) -> anyhow::Result<ClientOptions> {
    let mut options = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(std::time::Duration::from_secs(10))
        .with_allow_http(allow_http)
        .with_http1_only();
    if let Some(file) = variable("AWS_CA_BUNDLE") {
        let pem = std::fs::read(&file).with_context(|| format!("cannot read {file}, which AWS_CA_BUNDLE names"))?;
        let certificates =
            Certificate::from_pem_bundle(&pem).with_context(|| format!("{file} is no bundle of certificates"))?;
        for certificate in certificates {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn is_loopback(endpoint: &str) -> bool {
    let host = endpoint.trim_start_matches("http://").split(['/', '?', '#', '\\']).next().unwrap_or_default();
    // Before an @ are a user and a password, as in http://127.0.0.1:9000@elsewhere.example
    if host.contains('@') {
        return false;
    }
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// The sections of a profile in `~/.aws/credentials` and `~/.aws/config`.
struct Profile {
    files: Vec<(Ini, String)>,
}

impl Profile {
    fn read() -> anyhow::Result<Self> {
        let name = variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        let home = |file: &str| std::env::home_dir().map(|home| home.join(".aws").join(file));
        let named = |variable_name: &str, file: &str| match variable(variable_name) {
            Some(path) => Some((PathBuf::from(path), true)),
            None => home(file).map(|path| (path, false)),
        };
        let config_section = if name == "default" { name.clone() } else { format!("profile {name}") };
        let mut files = Vec::new();
        for (place, section) in [
            (named("AWS_SHARED_CREDENTIALS_FILE", "credentials"), name),
            (named("AWS_CONFIG_FILE", "config"), config_section),
        ] {
            let Some((path, is_named)) = place else { continue };
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_named => continue,
                Err(error) => return Err(anyhow!("cannot read the credentials in {}: {error}", path.display())),
            };
            let mut ini = Ini::new_cs();
            // The error is left out: it quotes the line, which can have a secret.
            ini.read(text)
                .map_err(|_| anyhow!("{} is no file of profiles: [NAME], then KEY = VALUE", path.display()))?;
            files.push((ini, section));
        }
        Ok(Self { files })
    }

    fn get(&self, key: &str) -> Option<String> {
        self.files.iter().find_map(|(ini, section)| ini.get(section, key).filter(|value| !value.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_this_machine_may_be_asked_without_tls() {
        for (endpoint, expected) in [
            ("http://127.0.0.1:9000", true),
            ("http://localhost:9000/x", true),
            ("http://[::1]:9000", true),
            ("http://127.0.0.1:9000@elsewhere.example/", false),
            ("http://10.0.0.1:9000", false),
            ("http://127.0.0.1.example", false),
            ("http://localhost.example:9000", false),
        ] {
            assert_eq!(is_loopback(endpoint), expected, "{endpoint}");
        }
    }
}
