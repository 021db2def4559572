//! A file of a spool as a crash, a failing disk or an attacker leaves it: reading and recovery end, invent no packet, and what
//! recovery completes is whole.
//!
//! The input says how a valid file is changed: whether it is compressed and encrypted, where it ends, and which bytes have other
//! values. Or it is the file.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use retrocap::interface::Interface;
use retrocap::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use retrocap::spool::check::check_file;
use retrocap::spool::coding::Coding;
use retrocap::spool::directory::Directory;
use retrocap::spool::encryption::Keys;
use retrocap::spool::file::FileWriter;
use retrocap::spool::layout::{FileId, Header, file_name};
use retrocap::spool::recover::{RecoveryOutcome, recover};
use retrocap::time::Timestamp;
use tempfile::TempDir;

const PACKETS: u32 = 40;

struct Folder {
    _folder: TempDir,
    path: PathBuf,
    directory: Directory,
    /// A file of each coding.
    valid: [Vec<u8>; 4],
}

/// A folder in memory, for one process.
static FOLDER: LazyLock<Folder> = LazyLock::new(|| {
    let shared_memory = Path::new("/dev/shm");
    let parent = if shared_memory.is_dir() { shared_memory.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("retrocap-fuzz-").tempdir_in(parent).expect("a folder can be made");
    let path = folder.path().to_owned();
    let directory = Directory::open_to_write(&path).expect("the folder can be written");
    let directory = directory.with_keys(Keys::parse(&[b'a'; 64]).expect("a key"));
    let valid = Coding::ALL.map(|coding| valid(&directory, &path, coding));
    Folder { _folder: folder, path, directory, valid }
});

/// A sealed file.
fn valid(directory: &Directory, path: &Path, coding: Coding) -> Vec<u8> {
    let id = FileId { epoch: 7, counter: 1 };
    let header = Header { id, band: 0, coding, replaces: None, created: Timestamp(1) };
    let mut writer = FileWriter::create(directory, header, 1, &[]).expect("a file can be made");
    let interface = Interface {
        id: InterfaceId(0),
        name: "eth0".to_owned(),
        index: 1,
        link_type: LinkType::ETHERNET,
        description: None,
        os: None,
        up: true,
        gone: None,
        since: Timestamp::MIN,
    };
    for number in 0..PACKETS {
        let mut data = vec![2; 60 + number as usize];
        data[12..14].copy_from_slice(&[0x88, 0xb5]);
        data[14..18].copy_from_slice(&number.to_be_bytes());
        let packet = Packet {
            time: Timestamp(1_000_000_000 * u64::from(number)),
            interface: InterfaceId(0),
            link_type: LinkType::ETHERNET,
            direction: Direction::In,
            flags: PacketFlags::default(),
            original_len: data.len() as u32,
            drops_before: 0,
            data: &data,
        };
        writer.put(&interface, &packet);
    }
    writer.seal(directory).expect("a file can be sealed");
    let file = path.join(file_name(1, 0, coding));
    let bytes = std::fs::read(&file).expect("the file can be read");
    std::fs::remove_file(&file).expect("the file can be removed");
    bytes
}

/// The file that the input describes.
fn file(input: &[u8]) -> Option<(Coding, Vec<u8>)> {
    let (&kind, rest) = input.split_first()?;
    let number = usize::from(kind & 1) + usize::from(kind >> 1 & 2);
    let coding = Coding::ALL[number];
    if kind & 2 == 2 {
        return Some((coding, rest.to_vec()));
    }
    let mut bytes = FOLDER.valid[number].clone();
    let (end, changes) = rest.split_first_chunk::<2>()?;
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
        bytes[at] = change[2];
    }
    bytes.truncate(bytes.len().saturating_sub(usize::from(u16::from_le_bytes(*end))));
    Some((coding, bytes))
}

fuzz_target!(|input: &[u8]| {
    let Some((coding, bytes)) = file(input) else { return };
    let (name, directory) = (file_name(1, 0, coding), &FOLDER.directory);
    let path = FOLDER.path.join(&name);
    std::fs::write(&path, &bytes).expect("a file can be written");
    let length = bytes.len() as u64;
    // An error is an answer, too.
    let before = check_file(directory, &name, length);
    assert_eq!(format!("{before:?}"), format!("{:?}", check_file(directory, &name, length)));
    let packets = before.as_ref().map_or(0, |report| report.packets);
    if input[0] & 2 == 0 {
        assert!(packets <= u64::from(PACKETS), "{packets} packets of {PACKETS}");
    }
    assert!(packets <= bytes.len() as u64);
    if before.is_ok_and(|report| !report.sealed)
        && let Ok(RecoveryOutcome::Sealed(_)) = recover(directory, &name, length)
    {
        let length = std::fs::metadata(&path).expect("it is there").len();
        let after = check_file(directory, &name, length).expect("it can be read");
        assert!(after.sealed && after.unconfirmed_bytes == 0 && after.index_damage.is_empty(), "{after:?}");
        assert_eq!(after.packets, packets);
    }
    let _ = std::fs::remove_file(&path);
});
