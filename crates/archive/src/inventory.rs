//! What an archive has of a part: objects, their descriptions, and what is there no more.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::archive_args::Part;
use crate::key::{self, DataKey};
use crate::store::{Listed, Store};

/// Days that are listed at the same time.
const LISTINGS: usize = 8;

/// An object, or what is left of its name.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: DataKey,
    /// Name of the object.
    pub(crate) name: String,
    pub(crate) is_encrypted: bool,
    /// The object, if it is there.
    pub(crate) object: Option<Listed>,
    pub(crate) is_described: bool,
    /// A document says why it is there no more.
    pub(crate) is_removed: bool,
}

/// The entries of a part, by name.
pub(crate) async fn entries(store: &Store, part: &Part) -> anyhow::Result<Vec<Entry>> {
    let days = part.days(store).await?;
    let days: Vec<Vec<Entry>> = futures_util::stream::iter(days)
        .map(|day| async move { of_day(store, part, &day).await })
        .buffered(LISTINGS)
        .try_collect()
        .await?;
    Ok(days.concat())
}

async fn of_day(store: &Store, part: &Part, day: &str) -> anyhow::Result<Vec<Entry>> {
    // Documents are listed before and after the objects: what is copied or removed meanwhile must not look like a loss.
    let described = store.list(&format!("catalogue/{day}")).await?;
    let objects = store.list(day).await?;
    let removed = store.list(&format!("removed/{day}")).await?;
    let mut entries = BTreeMap::new();
    let add = |entries: &mut BTreeMap<String, Entry>, name: &str, note: &dyn Fn(&mut Entry)| {
        if let Some(entry) = entries.get_mut(name) {
            return note(entry);
        }
        let Some((key, is_encrypted)) = DataKey::parse(name).filter(|(key, _)| part.may_have(key)) else {
            return;
        };
        let name = name.to_owned();
        let mut entry =
            Entry { key, name: name.clone(), is_encrypted, object: None, is_described: false, is_removed: false };
        note(&mut entry);
        entries.insert(name, entry);
    };
    for object in objects {
        add(&mut entries, &object.key, &|entry| entry.object = Some(object.clone()));
    }
    for document in described.iter().filter_map(|one| key::described(&one.key)) {
        add(&mut entries, document, &|entry| entry.is_described = true);
    }
    for document in removed.iter().filter_map(|one| key::described(&one.key)) {
        add(&mut entries, document, &|entry| entry.is_removed = true);
    }
    Ok(entries.into_values().collect())
}

/// The state of an entry, for people and scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// The object and its description are there.
    Whole,
    /// The object has no description yet: a copy is running, or was interrupted.
    Unconfirmed,
    /// It expired, or was removed on purpose.
    Removed,
    /// It was removed, but the object is still there.
    Undeleted,
    /// The object is not there, and nothing says why.
    Missing,
}

impl Entry {
    pub(crate) fn state(&self) -> State {
        match (&self.object, self.is_described, self.is_removed) {
            (Some(_), _, true) => State::Undeleted,
            (None, _, true) => State::Removed,
            (Some(_), true, false) => State::Whole,
            (Some(_), false, false) => State::Unconfirmed,
            (None, _, false) => State::Missing,
        }
    }
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Unconfirmed => "unconfirmed",
            Self::Removed => "removed",
            Self::Undeleted => "undeleted",
            Self::Missing => "missing",
        }
    }
}
