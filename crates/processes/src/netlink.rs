//! Messages of the kernel over netlink (netlink(7)).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

/// `struct nlmsghdr`
pub(crate) const HEADER_BYTES: usize = 16;
/// Size of a buffer that receives any datagram.
pub(crate) const BUFFER_BYTES: usize = 64 << 10;
const NLM_F_REQUEST_DUMP: u16 = 0x1 | 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const TIMEOUT: Duration = Duration::from_secs(2);

/// Opens a socket that waits for an answer for two seconds.
pub(crate) fn open(protocol: Protocol) -> io::Result<OwnedFd> {
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(TIMEOUT))?;
    Ok(socket)
}

/// Asks for a list, and calls `each` with kind and content of each message, until it returns false.
pub(crate) fn dump(
    socket: impl AsFd,
    kind: u16,
    request: &[u8],
    mut each: impl FnMut(u16, &[u8]) -> bool,
) -> io::Result<()> {
    let mut message = vec![0; HEADER_BYTES];
    let length = u32::try_from(HEADER_BYTES + request.len()).unwrap_or(0);
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    message.extend_from_slice(request);
    rustix::net::sendto(&socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let (mut buffer, mut goes_on) = (vec![0; BUFFER_BYTES], true);
    while goes_on {
        let (bytes, _) = rustix::net::recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        if read(&buffer[..bytes], |kind, content| goes_on = goes_on && each(kind, content))? {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads a datagram; true at the end of a list.
pub(crate) fn read(datagram: &[u8], mut each: impl FnMut(u16, &[u8])) -> io::Result<bool> {
    let mut rest = datagram;
    while let Some(header) = rest.first_chunk::<HEADER_BYTES>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let Some(content) = rest.get(HEADER_BYTES..length) else {
            return Err(io::Error::other("a message from the kernel is damaged"));
        };
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = content.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            _ => each(kind, content),
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, content: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER_BYTES + content.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_datagram_is_read_to_its_end_and_damage_is_an_error() {
        let mut found = Vec::new();
        let two = [message(20, b"abc"), message(21, b"")].concat();
        assert!(!read(&two, |kind, content| found.push((kind, content.to_vec()))).unwrap());
        assert_eq!(found, [(20, b"abc".to_vec()), (21, Vec::new())]);
        assert!(read(&[two, message(NLMSG_DONE, &[0; 4])].concat(), |_, _| {}).unwrap());
        let refused = read(&message(NLMSG_ERROR, &(-1i32).to_ne_bytes()), |_, _| {}).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(1));
        for length in [0u32, 15, 400, u32::MAX] {
            let mut damaged = message(20, b"abc");
            damaged[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(read(&damaged, |_, _| panic!("{length}")).is_err());
        }
    }
}
