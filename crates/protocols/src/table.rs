//! The protocols, one row each. The first row whose probe accepts wins, so strict probes come first.

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
