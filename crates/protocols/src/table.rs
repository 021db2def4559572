//! The protocols, one row each. The first row whose probe accepts wins, so strict probes come first.

use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::Protocol;
use crate::{
    bacnet, dhcp, dnp3, dns, enip, ftp, http, http2, iec104, imap, modbus, mqtt, nfs, ntp, opcua, pop3, profinet, rdp,
    s7comm, sip, smb1, smb2, smtp, ssh, tftp, tls, tpkt,
};

/// All protocols.
pub static TABLE: [Protocol; 28] = [
    tls::ROW,
    ssh::ROW,
    http::ROW,
    http2::ROW,
    smb2::ROW,
    smb1::ROW,
    nfs::ROW,
    rdp::ROW,
    s7comm::ROW,
    opcua::ROW,
    mqtt::ROW,
    sip::ROW,
    ftp::ROW,
    ftp::ROW_DATA,
    smtp::ROW,
    pop3::ROW,
    imap::ROW,
    dnp3::ROW,
    iec104::ROW,
    enip::ROW,
    bacnet::ROW,
    profinet::ROW,
    dhcp::ROW,
    ntp::ROW,
    tftp::ROW,
    modbus::ROW,
    dns::ROW,
    tpkt::ROW,
];

/// The protocol of a session whose ends began with these bytes; `None` if none is recognised, or the session is neither TCP
/// nor UDP.
pub fn recognise(ip_protocol: u8, ports: [u16; 2], data: [&[u8]; 2]) -> Option<&'static Protocol> {
    let carrier = match ip_protocol {
        6 => Carrier::Tcp,
        17 => Carrier::Udp,
        _ => return None,
    };
    let probe = Probe { data, ports, carrier };
    let speaks = |row: &Protocol| match carrier {
        Carrier::Tcp => row.carrier.is_stream(),
        _ => row.carrier.is_messages(),
    };
    TABLE.iter().filter(|row| speaks(row)).find(|row| (row.probe)(&probe) == Verdict::Yes)
}
