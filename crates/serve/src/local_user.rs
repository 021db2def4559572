//! The user of the process at the other end of a TCP connection within this host, from `/proc/self/net/tcp`.

use std::fmt::Write as _;
use std::io::{BufReader, Read as _};
use std::net::{IpAddr, SocketAddr};

/// Bytes of the table that are read; a host with more connections gets no answer.
const TABLE_BYTES_MAX: u64 = 8 << 20;
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// The user whose socket is bound to `theirs` and connected to `ours`; `None` where the kernel does not say. It reads a
/// file: call it where that is allowed.
pub(crate) fn of_connection(theirs: SocketAddr, ours: SocketAddr) -> Option<u32> {
    TABLES.iter().find_map(|table| {
        let file = std::fs::File::open(table).ok()?;
        find(BufReader::new(file.take(TABLE_BYTES_MAX)), theirs, ours)
    })
}

fn find(table: impl std::io::BufRead, theirs: SocketAddr, ours: SocketAddr) -> Option<u32> {
    // An IPv4 connection can stand in the table of IPv6 sockets.
    let written = [(hex(theirs, false), hex(ours, false)), (hex(theirs, true), hex(ours, true))];
    table.lines().map_while(Result::ok).skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote) = (fields.next()?, fields.next()?);
        if !written.iter().any(|(theirs, ours)| local == theirs && remote == ours) {
            return None;
        }
        // After the addresses: state, queues, timer, retransmissions, uid, timeout, inode.
        let (uid, inode) = (fields.nth(4)?, fields.nth(1)?);
        // A connection that its process has closed has no inode, and 0 as its user.
        (inode != "0").then(|| uid.parse().ok())?
    })
}

/// An endpoint as the table writes it: 32-bit words in the byte order of this machine.
fn hex(at: SocketAddr, as_v6: bool) -> String {
    let octets = match at.ip().to_canonical() {
        IpAddr::V4(address) if as_v6 => address.to_ipv6_mapped().octets().to_vec(),
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut text = String::new();
    for word in octets.chunks_exact(4) {
        let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
        // Writing to a string cannot fail.
        let _ = write!(text, "{word:08X}");
    }
    let _ = write!(text, ":{:04X}", at.port());
    text
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_user_of_a_connection_is_found_while_its_process_has_it() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                eprintln!("SKIPPED: {address} cannot be bound");
                continue;
            };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, theirs) = listener.accept().unwrap();
            let ours = server.local_addr().unwrap();
            assert_eq!(of_connection(theirs, ours), Some(rustix::process::getuid().as_raw()), "{address}");
            drop(client);
            assert_eq!(of_connection(theirs, ours), None, "{address}: nobody has it any more");
        }
    }

    #[test]
    fn a_table_is_read_by_its_columns() {
        let (theirs, ours) = ("127.0.0.1:4660".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
        let line = |uid: u32, inode: u32| {
            format!(
                "head\n   0: {} {} 01 00000000:00000000 00:00000000 00000000 {uid:5} 0 {inode} 1\n",
                hex(theirs, false),
                hex(ours, false)
            )
        };
        assert_eq!(find(line(1000, 7).as_bytes(), theirs, ours), Some(1000));
        assert_eq!(find(line(0, 0).as_bytes(), theirs, ours), None);
        assert_eq!(find(line(1000, 7).as_bytes(), ours, theirs), None);
        assert_eq!(find("head\n0: x\n\n".as_bytes(), theirs, ours), None);
    }
}
