//! The options of verbs that read an archive.

use std::path::PathBuf;

use clap::Args;

/// The archive to read, if any.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Archive")]
pub(crate) struct ArchiveArgs {
    /// Read this archive instead of querying a recorder: s3://bucket/prefix, or a directory. Needs retrocap-archive. Times
    /// such as 10m count from now
    #[arg(long, value_name = "URL", conflicts_with_all = ["read", "spool", "from"])]
    pub(crate) archive: Option<String>,
    /// The recorder in the archive [default: the only one]
    #[arg(long, value_name = "NAME", requires = "archive")]
    pub(crate) archive_host: Option<String>,
    /// Read only packets of this depth: starts (of sessions), middle, bulk; may be repeated
    #[arg(long, value_name = "CLASS", requires = "archive", value_delimiter = ',', value_parser = ["starts", "middle", "bulk"])]
    pub(crate) archive_only: Vec<String>,
    /// Allow a server of the archive elsewhere without TLS. Everybody on the way can then read what is sent
    #[arg(long, requires = "archive")]
    pub(crate) archive_allow_http: bool,
    /// Private key (age) of an encrypted archive
    #[arg(long, value_name = "FILE", requires = "archive")]
    pub(crate) archive_key: Option<PathBuf>,
    /// Refuse to fetch more than this [default: 10G]
    #[arg(long, value_name = "SIZE", requires = "archive")]
    pub(crate) archive_limit: Option<String>,
}
