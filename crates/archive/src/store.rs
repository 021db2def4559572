//! The object store: a bucket, or a directory.
//!
//! Every request has a limit of time and is repeated a few times. An object is put in one request, whole or not at all, and only if
//! there is none of its name: so no upload is left in parts, and nothing is overwritten. A spool file has at most 64 MiB.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, RetryConfig};
use tokio::time::timeout;

use crate::credentials;
use base::time::Timestamp;

/// How often a request is made that fails for a reason that can pass.
const ATTEMPTS: u32 = 3;
/// How long a request may take, and how much longer for each byte.
const REQUEST: Duration = Duration::from_secs(60);
const RATE_BYTES_MIN: u64 = 32 << 10;
/// The largest object. S3 takes 5 GiB in one request.
pub(crate) const OBJECT_BYTES_MAX: u64 = 1 << 30;

/// An archive.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Its URL, to be printed.
    pub(crate) name: String,
    /// Whether it is a directory, which has no server that verifies what arrives.
    pub(crate) is_directory: bool,
    has_credentials: bool,
}

/// An object in a listing.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) bytes: u64,
    pub(crate) modified: Timestamp,
}

/// The result of putting an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Created,
    Exists,
}

impl Store {
    /// Opens `s3://BUCKET/PREFIX` or a directory, which `create` makes if it is missing.
    pub(crate) fn open(url: &str, http_is_allowed: bool, create: bool) -> anyhow::Result<Self> {
        if let Some(place) = url.strip_prefix("s3://") {
            return Self::bucket(url, place, http_is_allowed);
        }
        let path = url.strip_prefix("file://").unwrap_or(url);
        if path.contains("://") || path.is_empty() {
            return Err(anyhow!("{url:?} is no archive: try s3://bucket/prefix, or a directory"));
        }
        let path = FilePath::new(path);
        if create {
            std::fs::create_dir_all(path).with_context(|| format!("cannot make the directory {}", path.display()))?;
        }
        let objects = LocalFileSystem::new_with_prefix(path)
            .map_err(|error| anyhow!("there is no archive in {}: {}", path.display(), explained(&error)))?
            .with_fsync(true);
        Ok(Self { objects: Arc::new(objects), name: url.to_owned(), is_directory: true, has_credentials: true })
    }

    fn bucket(url: &str, place: &str, http_is_allowed: bool) -> anyhow::Result<Self> {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return Err(anyhow!("{url:?} names no bucket: try s3://bucket/prefix"));
        }
        let credentials::Configured { builder, has_credentials } = credentials::configured(bucket, http_is_allowed)?;
        let allow_http = builder.get_config_value(&"allow_http".parse()?).is_some_and(|value| value == "true");
        let bucket = builder
            .with_client_options(credentials::client_options(allow_http)?)
            .with_retry(RetryConfig { max_retries: 2, retry_timeout: REQUEST, ..RetryConfig::default() })
            .build()
            .map_err(|error| anyhow!("{url}: {}", explained(&error)))?;
        let objects: Arc<dyn ObjectStore> = match prefix.trim_matches('/') {
            "" => Arc::new(bucket),
            prefix => {
                Arc::new(PrefixStore::new(bucket, Path::parse(prefix).with_context(|| format!("{url:?} is no URL"))?))
            }
        };
        Ok(Self { objects, name: url.to_owned(), is_directory: false, has_credentials })
    }

    /// Makes a request until it succeeds, or fails for a reason that stays.
    async fn repeated<T, F>(&self, what: &str, limit: Duration, mut request: impl FnMut() -> F) -> anyhow::Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut reason = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_secs(1 << attempt)).await;
            }
            match timeout(limit, request()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => {
                    reason = explained(&error);
                    if stays(&error) {
                        break;
                    }
                }
                Err(_) => reason = format!("no answer within {} s", limit.as_secs()),
            }
        }
        let advice = if self.has_credentials {
            ""
        } else {
            " (no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SHARED_CREDENTIALS_FILE)"
        };
        Err(anyhow!("{}: cannot {what}: {reason}{advice}", self.name))
    }

    /// All objects below a directory.
    pub(crate) async fn list(&self, directory: &str) -> anyhow::Result<Vec<Listed>> {
        let prefix = path(directory)?;
        self.repeated(&format!("list {directory}"), REQUEST * 10, || async {
            let mut found = Vec::new();
            let mut listing = self.objects.list(Some(&prefix));
            while let Some(object) = listing.try_next().await? {
                let modified = u64::try_from(object.last_modified.timestamp_nanos_opt().unwrap_or(0)).unwrap_or(0);
                let key = object.location.to_string();
                found.push(Listed { key, bytes: object.size, modified: Timestamp(modified) });
            }
            found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            Ok(found)
        })
        .await
    }

    /// The names of the directories in a directory, without what lies before.
    pub(crate) async fn directories(&self, directory: &str) -> anyhow::Result<Vec<String>> {
        let prefix = path(directory)?;
        let what = format!("list {directory}");
        let listed = self.repeated(&what, REQUEST * 10, || self.objects.list_with_delimiter(Some(&prefix))).await?;
        let prefixes = listed.common_prefixes;
        let mut names: Vec<String> =
            prefixes.iter().filter_map(|path| Some(path.as_ref().rsplit('/').next()?.to_owned())).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// An object; `None` if there is none.
    pub(crate) async fn get(&self, key: &str, bytes_max: u64) -> anyhow::Result<Option<Vec<u8>>> {
        let location = path(key)?;
        self.repeated(&format!("get {key}"), limit(bytes_max), || async {
            let answer = match self.objects.get(&location).await {
                Err(Error::NotFound { .. }) => return Ok(None),
                answer => answer?,
            };
            let too_long = || Error::NotSupported { source: format!("it has more than {bytes_max} bytes").into() };
            if answer.meta.size > bytes_max {
                return Err(too_long());
            }
            let mut bytes = Vec::with_capacity(usize::try_from(answer.meta.size).unwrap_or(0));
            let mut parts = answer.into_stream();
            while let Some(part) = parts.next().await {
                bytes.extend_from_slice(&part?);
                if bytes.len() as u64 > bytes_max {
                    return Err(too_long());
                }
            }
            Ok(Some(bytes))
        })
        .await
    }

    /// Whether there is an object of this name.
    pub(crate) async fn has(&self, key: &str) -> anyhow::Result<bool> {
        let location = path(key)?;
        self.repeated(&format!("look for {key}"), REQUEST, || async {
            match self.objects.head(&location).await {
                Ok(_) => Ok(true),
                Err(Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Puts an object if there is none of its name.
    pub(crate) async fn create(&self, key: &str, bytes: Bytes) -> anyhow::Result<Put> {
        let location = path(key)?;
        let limit = limit(bytes.len() as u64);
        self.repeated(&format!("put {key}"), limit, || async {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match self.objects.put_opts(&location, bytes.clone().into(), options).await {
                Ok(_) => Ok(Put::Created),
                Err(Error::AlreadyExists { .. }) => Ok(Put::Exists),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Deletes an object, if it is there.
    pub(crate) async fn delete(&self, key: &str) -> anyhow::Result<()> {
        let location = path(key)?;
        self.repeated(&format!("delete {key}"), REQUEST, || async {
            match self.objects.delete(&location).await {
                Err(Error::NotFound { .. }) => Ok(()),
                other => other,
            }
        })
        .await
    }
}

fn path(key: &str) -> anyhow::Result<Path> {
    Path::parse(key.trim_end_matches('/')).with_context(|| format!("{key:?} is no name of an object"))
}

fn limit(bytes: u64) -> Duration {
    REQUEST + Duration::from_secs(bytes / RATE_BYTES_MIN)
}

/// Whether the same request fails again.
fn stays(error: &Error) -> bool {
    !matches!(error, Error::Generic { .. } | Error::JoinError { .. })
}

/// The reason in the server's words, on one line. The rest of its answer is left out, which can name keys of access.
fn explained(error: &Error) -> String {
    let text = error.to_string();
    let between = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once(&format!("</{tag}>"))?.0.to_owned())
    };
    let kind = match error {
        Error::PermissionDenied { .. } => "permission denied",
        Error::Unauthenticated { .. } => "the credentials were refused",
        Error::NotFound { .. } => "not found",
        _ => "",
    };
    let reason = match (between("Code"), between("Message")) {
        (Some(code), message) => {
            let advice = match code.as_str() {
                "RequestTimeTooSkewed" => ": set the clock of this machine",
                "SignatureDoesNotMatch" => ": the secret key is another one",
                "InvalidAccessKeyId" => ": the access key is not known there",
                "AccessDenied" => ": these credentials may not do that",
                _ => "",
            };
            format!("{code}: {}{advice}", message.unwrap_or_default())
        }
        (None, _) if text.contains('<') => "the server's answer is not understood".to_owned(),
        (None, _) => text.clone(),
    };
    let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
    if kind.is_empty() { reason } else { format!("{kind}: {reason}") }
}
