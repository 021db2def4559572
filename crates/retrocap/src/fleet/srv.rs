//! Recorders from DNS: the targets of an SRV name (RFC 2782).

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::anyhow;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use crate::error::Usage;

const RESOLVERS: &str = "/etc/resolv.conf";
/// How long one name server may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Name servers that are tried, as by the C library.
const SERVERS_MAX: usize = 3;
const DNS_PORT: u16 = 53;
const MESSAGE_BYTES_MAX: usize = 65_535;

/// The targets of a service as `host:port`, in the order of their priority and weight.
///
/// # Errors
///
/// If the name is no domain name, no name server answers, or the name has no SRV record.
pub(super) fn targets(service: &str) -> anyhow::Result<Vec<String>> {
    let servers = servers(&std::fs::read_to_string(RESOLVERS).unwrap_or_default());
    if servers.is_empty() {
        return Err(anyhow!("cannot look up {service}: {RESOLVERS} names no name server"));
    }
    let id = u16::try_from(std::process::id() & 0xffff).unwrap_or(1);
    let question = question(service, id)?;
    let mut last = String::new();
    for server in servers.into_iter().take(SERVERS_MAX) {
        match ask(server, &question).map_err(anyhow::Error::from).and_then(|answer| read(service, id, &answer)) {
            Ok(targets) => return Ok(targets),
            Err(error) => last = format!("{server}: {error}"),
        }
    }
    Err(anyhow!("cannot look up the recorders of {service}: {last}"))
}

/// The name servers of a resolv.conf(5).
fn servers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = (words.next() == Some("nameserver")).then(|| words.next()).flatten()?;
            let ip: IpAddr = address.split('%').next()?.parse().ok()?;
            Some(SocketAddr::new(ip, DNS_PORT))
        })
        .collect()
}

fn question(service: &str, id: u16) -> anyhow::Result<Vec<u8>> {
    let name = Name::new(service.trim_end_matches('.'))
        .map_err(|error| Usage::of(format_args!("--srv {service}: {error:?}; try _retrocap._tcp.example.com")))?;
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::SRV), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().map_err(|error| anyhow!("cannot ask for {service}: {error:?}"))
}

/// Asks over UDP, and over TCP if the answer is cut.
fn ask(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let local: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((local, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.send(question)?;
    let mut answer = vec![0; MESSAGE_BYTES_MAX];
    let bytes = socket.recv(&mut answer)?;
    answer.truncate(bytes);
    let is_cut = Packet::parse(&answer).is_ok_and(|packet| packet.has_flags(PacketFlag::TRUNCATION));
    if !is_cut {
        return Ok(answer);
    }
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn read(service: &str, id: u16, answer: &[u8]) -> anyhow::Result<Vec<String>> {
    let packet = Packet::parse(answer).map_err(|error| anyhow!("the answer cannot be read ({error:?})"))?;
    if packet.id() != id {
        return Err(anyhow!("the answer belongs to another question"));
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Err(anyhow!("there is no such name")),
        other => return Err(anyhow!("the name server answered {other:?}")),
    }
    let mut found: Vec<(u16, u16, String)> = packet
        .answers
        .iter()
        .filter_map(|record| match &record.rdata {
            RData::SRV(srv) => Some((srv.priority, u16::MAX - srv.weight, format!("{}:{}", srv.target, srv.port))),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(anyhow!("{service} has no SRV record"));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, _, target)| target).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::SRV;

    #[test]
    fn name_servers_are_those_of_the_system() {
        let text =
            "search example.com\nnameserver 192.0.2.1\n# nameserver 192.0.2.2\nnameserver fe80::1%eth0\nnameserver x\n";
        assert_eq!(servers(text), ["192.0.2.1:53".parse().unwrap(), "[fe80::1]:53".parse::<SocketAddr>().unwrap()]);
    }

    #[test]
    fn targets_come_by_priority_and_weight() {
        let name = Name::new_unchecked("_retrocap._tcp.example.com");
        let mut packet = Packet::new_reply(7);
        for (priority, weight, target) in [(2, 0, "third"), (1, 5, "second"), (1, 9, "first")] {
            let target = Name::new_unchecked(target);
            let srv = SRV { priority, weight, port: 57_443, target };
            packet.answers.push(ResourceRecord::new(name.clone(), CLASS::IN, 60, RData::SRV(srv)));
        }
        let bytes = packet.build_bytes_vec().unwrap();
        assert_eq!(read("s", 7, &bytes).unwrap(), ["first:57443", "second:57443", "third:57443"]);
        assert!(read("s", 8, &bytes).is_err() && read("s", 7, &bytes[..9]).is_err());
        let none = Packet::new_reply(7).build_bytes_vec().unwrap();
        assert!(read("s", 7, &none).unwrap_err().to_string().contains("no SRV record"));
        assert!(question(&"x".repeat(300), 1).unwrap_err().is::<Usage>());
    }
}
