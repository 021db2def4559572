//! Constants of pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng), shared by reader and writer.

/// Block types.
pub(crate) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
pub(crate) const INTERFACE_DESCRIPTION: u32 = 1;
pub(crate) const OBSOLETE_PACKET: u32 = 2;
pub(crate) const SIMPLE_PACKET: u32 = 3;
pub(crate) const NAME_RESOLUTION: u32 = 4;
pub(crate) const INTERFACE_STATISTICS: u32 = 5;
pub(crate) const ENHANCED_PACKET: u32 = 6;
/// An entry of the systemd journal, in its export format.
pub(crate) const JOURNAL_EXPORT: u32 = 9;
pub(crate) const DECRYPTION_SECRETS: u32 = 10;
/// Custom blocks that may be copied into another file, and custom blocks that must not be copied.
pub(crate) const CUSTOM: u32 = 0x0000_0bad;
pub(crate) const CUSTOM_NOT_COPIED: u32 = 0x4000_0bad;

pub(crate) const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
pub(crate) const VERSION_MAJOR: u16 = 1;
pub(crate) const VERSION_MINOR: u16 = 0;

/// Options of every block.
pub(crate) const OPTION_END: u16 = 0;
pub(crate) const OPTION_COMMENT: u16 = 1;
/// Custom options, text and bytes, that may be copied, and those that must not be copied.
pub(crate) const CUSTOM_TEXT: u16 = 2988;
pub(crate) const CUSTOM_BYTES: u16 = 2989;
pub(crate) const CUSTOM_TEXT_NOT_COPIED: u16 = 19_372;
pub(crate) const CUSTOM_BYTES_NOT_COPIED: u16 = 19_373;

/// Options of name resolution: the name and the addresses of the server that resolved.
pub(crate) const NS_SERVER: std::ops::RangeInclusive<u16> = 2..=4;

pub(crate) const SHB_HARDWARE: u16 = 2;
pub(crate) const SHB_OS: u16 = 3;
pub(crate) const SHB_USERAPPL: u16 = 4;

pub(crate) const IF_NAME: u16 = 2;
pub(crate) const IF_DESCRIPTION: u16 = 3;
pub(crate) const IF_IPV4: u16 = 4;
pub(crate) const IF_IPV6: u16 = 5;
pub(crate) const IF_MAC: u16 = 6;
pub(crate) const IF_EUI: u16 = 7;
pub(crate) const IF_SPEED: u16 = 8;
pub(crate) const IF_TSRESOL: u16 = 9;
pub(crate) const IF_FILTER: u16 = 11;
pub(crate) const IF_OS: u16 = 12;
pub(crate) const IF_FCSLEN: u16 = 13;
pub(crate) const IF_TSOFFSET: u16 = 14;
pub(crate) const IF_HARDWARE: u16 = 15;
pub(crate) const IF_TXSPEED: u16 = 16;
pub(crate) const IF_RXSPEED: u16 = 17;

pub(crate) const EPB_FLAGS: u16 = 2;
pub(crate) const EPB_HASH: u16 = 3;
pub(crate) const EPB_DROPCOUNT: u16 = 4;
pub(crate) const EPB_PACKETID: u16 = 5;
pub(crate) const EPB_QUEUE: u16 = 6;
pub(crate) const EPB_VERDICT: u16 = 7;

/// Bits of `epb_flags`.
pub(crate) const FLAG_DIRECTION: u32 = 3;
pub(crate) const FLAG_CHECKSUM_NOT_READY: u32 = 1 << 9;
pub(crate) const FLAG_SEGMENTATION_OFFLOAD: u32 = 1 << 11;

pub(crate) const ISB_STARTTIME: u16 = 2;
pub(crate) const ISB_ENDTIME: u16 = 3;
pub(crate) const ISB_IFRECV: u16 = 4;
pub(crate) const ISB_IFDROP: u16 = 5;
pub(crate) const ISB_FILTERACCEPT: u16 = 6;
pub(crate) const ISB_OSDROP: u16 = 7;
pub(crate) const ISB_USRDELIV: u16 = 8;

/// Magic numbers of a classic pcap file, read in the file's own byte order: microseconds, nanoseconds, and Kuznetzov's
/// variant.
pub(crate) const PCAP_MICROS: u32 = 0xa1b2_c3d4;
pub(crate) const PCAP_NANOS: u32 = 0xa1b2_3c4d;
pub(crate) const PCAP_MODIFIED: u32 = 0xa1b2_cd34;
pub(crate) const PCAP_VERSION_MAJOR: u16 = 2;
pub(crate) const PCAP_VERSION_MINOR: u16 = 4;
/// Mask of the link type in the link type field.
pub(crate) const PCAP_LINK_TYPE_MASK: u32 = 0xffff;
/// Set if the top four bits hold the length of the frame check sequence, in units of 16 bits.
pub(crate) const PCAP_FCS_PRESENT: u32 = 1 << 26;
pub(crate) const PCAP_FCS_SHIFT: u32 = 28;
