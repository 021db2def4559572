//! A disk that behaves as badly as a disk may: it tears, reorders and loses what was not synced, fails, fills up, reads
//! short, and flips bits. All of it follows from a seed.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use spool::encryption::Keys;
use spool::medium::{DiskSpace, Medium};

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True once in `n` times; never for 0.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }
}

/// How often things fail: once in so many operations; 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) append: u64,
    pub(crate) sync: u64,
    pub(crate) truncate: u64,
    pub(crate) create: u64,
    pub(crate) read: u64,
    pub(crate) short_read: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Inode {
    /// What a reader sees.
    current: Vec<u8>,
    /// What the last successful sync left.
    durable: Vec<u8>,
    /// Changes since then.
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(String, usize),
    Remove(String),
}

#[derive(Debug)]
struct State {
    random: Random,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    capacity: u64,
    /// Bytes of other programs.
    others: u64,
    faults: Faults,
    /// Contents of files that were removed.
    removed: Vec<Vec<u8>>,
    appends: u64,
}

const SECTOR: usize = 512;

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, bytes) => {
            let offset = usize::try_from(*offset).unwrap();
            if content.len() < offset + bytes.len() {
                content.resize(offset + bytes.len(), 0);
            }
            content[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        Change::Truncate(len) => content.resize(usize::try_from(*len).unwrap(), 0),
    }
}

/// Applies some of the changes, in any order, in part.
fn apply_some(random: &mut Random, content: &mut Vec<u8>, pending: &mut Vec<Change>) {
    let mut changes = std::mem::take(pending);
    if random.one_in(3) {
        // Out of order: the file system wrote the later pages first.
        for i in (1..changes.len()).rev() {
            changes.swap(i, usize::try_from(random.below(i as u64 + 1)).unwrap());
        }
    }
    for change in changes {
        match (random.below(4), change) {
            (0, _) => {}
            (1, Change::Write(offset, bytes)) => {
                // Torn: some sectors arrive.
                for (i, sector) in bytes.chunks(SECTOR).enumerate() {
                    if random.one_in(2) {
                        apply(content, &Change::Write(offset + (i * SECTOR) as u64, sector.to_vec()));
                    }
                }
            }
            (_, change) => apply(content, &change),
        }
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<State>>, Keys);

/// An open file.
#[derive(Debug)]
pub(crate) struct File(usize);

impl Disk {
    pub(crate) fn new(seed: u64, capacity: u64, keys: Keys) -> Self {
        Self(
            Arc::new(Mutex::new(State {
                random: Random(seed),
                inodes: Vec::new(),
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                pending_names: Vec::new(),
                capacity,
                others: 0,
                faults: Faults::default(),
                removed: Vec::new(),
                appends: 0,
            })),
            keys,
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Other programs take so many bytes.
    pub(crate) fn set_others(&self, bytes: u64) {
        self.lock().others = bytes;
    }

    /// The machine loses power: of what was not synced, anything may be there.
    pub(crate) fn crash(&self) {
        let mut state = self.lock();
        let State { random, inodes, names, durable_names, pending_names, .. } = &mut *state;
        for inode in inodes.iter_mut() {
            apply_some(random, &mut inode.durable, &mut inode.pending);
            inode.current.clone_from(&inode.durable);
        }
        for change in std::mem::take(pending_names) {
            if random.one_in(2) {
                match change {
                    NameChange::Create(name, inode) => drop(durable_names.insert(name, inode)),
                    NameChange::Remove(name) => drop(durable_names.remove(&name)),
                }
            }
        }
        names.clone_from(durable_names);
    }

    /// The process is killed: what was written stays.
    pub(crate) fn kill(&self) {}

    /// Flips a bit somewhere, and returns in which file.
    pub(crate) fn flip(&self) -> Option<String> {
        let mut state = self.lock();
        let State { random, inodes, names, .. } = &mut *state;
        let full: Vec<(&String, &usize)> =
            names.iter().filter(|(_, inode)| !inodes[**inode].current.is_empty()).collect();
        let (name, inode) = full.get(usize::try_from(random.below(full.len() as u64)).unwrap())?;
        let (name, inode) = ((*name).clone(), &mut inodes[**inode]);
        let at = usize::try_from(random.below(inode.current.len() as u64)).unwrap();
        inode.current[at] ^= 1 << random.below(8);
        inode.durable.clone_from(&inode.current);
        inode.pending.clear();
        Some(name)
    }

    /// All files, to be restored later.
    pub(crate) fn clone_contents(&self) -> (Vec<Inode>, BTreeMap<String, usize>) {
        let state = self.lock();
        (state.inodes.clone(), state.names.clone())
    }

    pub(crate) fn restore(&self, (inodes, names): (Vec<Inode>, BTreeMap<String, usize>)) {
        let mut state = self.lock();
        (state.inodes, state.names) = (inodes, names);
    }

    /// Contents of the files that were removed so far.
    pub(crate) fn removed(&self) -> Vec<Vec<u8>> {
        self.lock().removed.clone()
    }

    /// Contents of all files.
    pub(crate) fn contents(&self) -> HashMap<String, Vec<u8>> {
        let state = self.lock();
        state.names.iter().map(|(name, inode)| (name.clone(), state.inodes[*inode].current.clone())).collect()
    }
}

impl State {
    fn used(&self) -> u64 {
        let files: u64 = self.names.values().map(|inode| self.inodes[*inode].current.len() as u64).sum();
        files + self.others
    }

    fn fails(&mut self, once_in: u64) -> io::Result<()> {
        match self.random.one_in(once_in) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    }
}

impl Medium for Disk {
    type File = File;

    fn keys(&self) -> &Keys {
        &self.1
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.lock();
        Ok(state.names.iter().map(|(name, inode)| (name.clone(), state.inodes[*inode].current.len() as u64)).collect())
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut state = self.lock();
        let once_in = state.faults.create;
        state.fails(once_in)?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.names.insert(name.to_owned(), inode);
        state.pending_names.push(NameChange::Create(name.to_owned(), inode));
        Ok(File(inode))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        self.lock().names.get(name).map(|inode| File(*inode)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn reopen(&self, name: &str) -> io::Result<File> {
        self.open(name)
    }

    fn append(&self, file: &mut File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        state.appends += 1;
        let inode = file.0;
        assert_eq!(offset, state.inodes[inode].current.len() as u64, "not at the end of the file");
        let once_in = state.faults.append;
        let failed = state.fails(once_in);
        let room = usize::try_from(state.capacity.saturating_sub(state.used())).unwrap();
        let len = match failed {
            Ok(()) => bytes.len().min(room),
            Err(_) => usize::try_from(state.random.below(bytes.len() as u64)).unwrap().min(room),
        };
        // What was written of a failed append is behind the end that the caller knows.
        let change = Change::Write(offset, bytes[..len].to_vec());
        let inode = &mut state.inodes[inode];
        if len == bytes.len() && failed.is_ok() {
            apply(&mut inode.current, &change);
        }
        inode.pending.push(change);
        failed?;
        // A quota ends like a full disk.
        let kind = if room % 2 == 0 { io::ErrorKind::StorageFull } else { io::ErrorKind::QuotaExceeded };
        if len < bytes.len() { Err(kind.into()) } else { Ok(()) }
    }

    fn read(&self, file: &File, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut state = self.lock();
        let once_in = state.faults.read;
        state.fails(once_in)?;
        let once_in = state.faults.short_read;
        if state.random.one_in(once_in) && state.random.one_in(4) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let mut len = out.len();
        if state.random.one_in(once_in) && len > 1 {
            len = 1 + usize::try_from(state.random.below(len as u64 - 1)).unwrap();
        }
        let content = &state.inodes[file.0].current;
        let offset = usize::try_from(offset).unwrap().min(content.len());
        let len = len.min(content.len() - offset);
        out[..len].copy_from_slice(&content[offset..offset + len]);
        Ok(len)
    }

    fn len(&self, file: &File) -> io::Result<u64> {
        Ok(self.lock().inodes[file.0].current.len() as u64)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut state = self.lock();
        let once_in = state.faults.sync;
        let failed = state.fails(once_in);
        let State { random, inodes, .. } = &mut *state;
        let inode = &mut inodes[file.0];
        if failed.is_err() {
            // The pages count as clean from now on, whether or not they arrived.
            apply_some(random, &mut inode.durable, &mut inode.pending);
            return failed;
        }
        inode.pending.clear();
        inode.durable.clone_from(&inode.current);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.lock();
        let once_in = state.faults.sync;
        state.fails(once_in)?;
        state.pending_names.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        let mut state = self.lock();
        let once_in = state.faults.truncate;
        state.fails(once_in)?;
        let inode = &mut state.inodes[file.0];
        apply(&mut inode.current, &Change::Truncate(len));
        inode.pending.push(Change::Truncate(len));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        let Some(inode) = state.names.remove(name) else { return Err(io::ErrorKind::NotFound.into()) };
        let content = state.inodes[inode].current.clone();
        state.removed.push(content);
        state.pending_names.push(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn room(&self) -> io::Result<DiskSpace> {
        let state = self.lock();
        let free = state.capacity.saturating_sub(state.used());
        Ok(DiskSpace { size_bytes: state.capacity, free_bytes: free, free_files: u64::MAX })
    }
}
