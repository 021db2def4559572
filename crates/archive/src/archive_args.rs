//! The archive that a command names, and the part of it.

use clap::Args;

use crate::key::{self, Class, DataKey};
use crate::store::Store;
use base::time::{self, Timestamp};

/// An hour of the log of sessions.
const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

/// The archive.
#[derive(Clone, Debug, Args)]
pub(crate) struct ArchiveArgs {
    /// The archive: s3://bucket/prefix, or a directory; also $RETROCAP_ARCHIVE
    #[arg(value_name = "URL", env = "RETROCAP_ARCHIVE", hide_env_values = true)]
    url: String,
    /// Allow a server elsewhere without TLS. Everybody on the way can then read what is sent
    #[arg(long)]
    allow_http: bool,
}

impl ArchiveArgs {
    /// Opens it. `create` makes a directory that is missing.
    pub(crate) fn open(&self, create: bool) -> anyhow::Result<Store> {
        Store::open(&self.url, self.allow_http, create)
    }
}

/// A part of an archive.
#[derive(Clone, Debug, Args)]
pub(crate) struct Part {
    /// Only what this recorder has copied; may be repeated [default: all]
    #[arg(long = "host", value_name = "NAME", value_parser = key::check_host)]
    pub(crate) hosts: Vec<String>,
    /// Only what is not older
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = moment)]
    pub(crate) since: Option<Timestamp>,
    /// Only what is not newer
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = moment)]
    pub(crate) until: Option<Timestamp>,
    /// Only these: starts, middle, bulk, sessions; may be repeated [default: all]
    #[arg(long = "only", value_name = "CLASS", value_delimiter = ',', value_parser = crate::copy::class())]
    pub(crate) only: Vec<String>,
}

/// A time, as `retrocap get --since` reads it.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    let now = Timestamp::from(std::time::SystemTime::now());
    time::parse(text, now, &jiff::tz::TimeZone::system()).map_err(|error| error.to_string())
}

impl Part {
    pub(crate) fn has_class(&self, class: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one == class)
    }

    /// Whether a stretch of time overlaps the window.
    pub(crate) fn overlaps(&self, (oldest, newest): (Timestamp, Timestamp)) -> bool {
        self.since.is_none_or(|since| newest >= since) && self.until.is_none_or(|until| oldest <= until)
    }

    /// Whether a file can have something of the window. A session whose last packet came while an hour was closed is in the log of
    /// the hour before, and the row of the hour after it has its totals.
    pub(crate) fn may_have(&self, key: &DataKey) -> bool {
        let (oldest, newest) = key.times();
        match key {
            DataKey::Packets(_) => self.overlaps((oldest, newest)),
            DataKey::Sessions(_) => self.overlaps((oldest.saturating_sub(HOUR), newest.saturating_add(HOUR))),
        }
    }

    /// The directories of days that can have something of the window, without the kind of documents before.
    pub(crate) async fn days(&self, store: &Store) -> anyhow::Result<Vec<String>> {
        let first = self.since.map(|since| key::date(since.saturating_sub(key::SPAN_MAX)));
        let last = self.until.map(|until| key::date(until.saturating_add(HOUR)));
        let mut days = Vec::new();
        let classes =
            Class::ALL.iter().filter(|class| self.has_class(class.name())).map(|class| key::packets_root(*class));
        let roots = classes.chain(self.has_class(key::SESSIONS).then(|| key::SESSIONS_ROOT.to_owned()));
        for root in roots {
            // The catalogue has the hosts and days of which everything expired, too.
            let root_of_catalogue = format!("catalogue/{root}");
            for host in self.hosts_below(store, &root_of_catalogue).await? {
                for day in store.directories(&format!("{root_of_catalogue}host={host}/")).await? {
                    if key::is_between(&day, first.as_deref(), last.as_deref()) {
                        days.push(format!("{root}host={host}/{day}/"));
                    }
                }
            }
        }
        Ok(days)
    }

    async fn hosts_below(&self, store: &Store, root: &str) -> anyhow::Result<Vec<String>> {
        if !self.hosts.is_empty() {
            return Ok(self.hosts.clone());
        }
        let directories = store.directories(root).await?;
        Ok(directories.iter().filter_map(|name| key::check_host(name.strip_prefix("host=")?).ok()).collect())
    }

    /// The recorders of the archive.
    pub(crate) async fn all_hosts(store: &Store) -> anyhow::Result<Vec<String>> {
        let everything = Self { hosts: Vec::new(), since: None, until: None, only: Vec::new() };
        let roots = Class::ALL.iter().map(|class| key::packets_root(*class)).chain([key::SESSIONS_ROOT.to_owned()]);
        let mut hosts = Vec::new();
        for root in roots {
            hosts.extend(everything.hosts_below(store, &format!("catalogue/{root}")).await?);
        }
        hosts.sort_unstable();
        hosts.dedup();
        Ok(hosts)
    }
}
