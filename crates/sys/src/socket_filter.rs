//! Classic BPF programs that tell the kernel which packets reach the ring, and how many bytes of each.
//!
//! The programs use the kernel's ancillary loads (`SKF_AD_*`, `include/uapi/linux/filter.h`). They read no byte of the
//! packet and therefore work for every link type.

/// The filter result for whole packets: libpcap's largest snapshot length, which Wireshark still reads.
pub const WHOLE_PACKET: u32 = 0x40000;

/// One instruction of classic BPF (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockFilter {
    /// Operation code.
    pub code: u16,
    /// Instructions to skip if a jump's condition holds.
    pub jump_true: u8,
    /// Instructions to skip if it does not hold.
    pub jump_false: u8,
    /// Operand.
    pub k: u32,
}

/// The list of interfaces does not fit in one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyInterfaces;

impl std::fmt::Display for TooManyInterfaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a socket filter holds {} interfaces at most", CaptureFilter::INTERFACES_MAX)
    }
}

impl std::error::Error for TooManyInterfaces {}

/// The packets that a capture socket accepts.
#[derive(Clone, Copy, Debug, Default)]
pub struct CaptureFilter<'a> {
    /// Accepted interface indexes; `None` accepts all interfaces.
    pub ifindexes: Option<&'a [u32]>,
    /// Bytes captured of each packet; 0 means the whole packet ([`WHOLE_PACKET`]).
    pub snaplen: u32,
}

/// `BPF_LD | BPF_W | BPF_ABS`
const LOAD: u16 = 0x20;
/// `BPF_JMP | BPF_JEQ | BPF_K`
const JUMP_EQUAL: u16 = 0x15;
/// `BPF_RET | BPF_K`
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF`, the base of the ancillary loads. It is negative, so it is at the top of the unsigned range.
const ANCILLARY: u32 = 0xffff_f000;
const PACKET_TYPE: u32 = ANCILLARY + 4;
const IFINDEX: u32 = ANCILLARY + 8;
const HATYPE: u32 = ANCILLARY + 28;

const ARPHRD_CAN: u32 = 280;
const ARPHRD_LOOPBACK: u32 = 772;
const PACKET_OUTGOING: u32 = 4;

impl CaptureFilter<'_> {
    /// The most interfaces in one filter: `BPF_MAXINSNS` is 4096 instructions, and each interface takes two.
    pub const INTERFACES_MAX: usize = 2040;

    /// A program that accepts no packet.
    pub const NOTHING: [SockFilter; 1] = [ret(0)];

    /// The BPF program of the filter.
    ///
    /// Loopback and CAN devices deliver each sent packet a second time as received. Like libpcap, the program rejects
    /// the sent copy.
    pub fn program(&self) -> Result<Vec<SockFilter>, TooManyInterfaces> {
        let accept = ret(if self.snaplen == 0 { WHOLE_PACKET } else { self.snaplen });
        let mut program = vec![
            load(HATYPE),
            equal(ARPHRD_LOOPBACK, 1, 0),
            equal(ARPHRD_CAN, 0, 3),
            load(PACKET_TYPE),
            equal(PACKET_OUTGOING, 0, 1),
            ret(0),
        ];
        match self.ifindexes {
            None => program.push(accept),
            Some(indexes) if indexes.len() > Self::INTERFACES_MAX => return Err(TooManyInterfaces),
            Some(indexes) => {
                program.push(load(IFINDEX));
                program.extend(indexes.iter().flat_map(|index| [equal(*index, 0, 1), accept]));
                program.push(ret(0));
            }
        }
        Ok(program)
    }
}

const fn load(k: u32) -> SockFilter {
    SockFilter { code: LOAD, jump_true: 0, jump_false: 0, k }
}

const fn equal(k: u32, jump_true: u8, jump_false: u8) -> SockFilter {
    SockFilter { code: JUMP_EQUAL, jump_true, jump_false, k }
}

const fn ret(k: u32) -> SockFilter {
    SockFilter { code: RETURN, jump_true: 0, jump_false: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[SockFilter], hatype: u32, packet_type: u32, ifindex: u32) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match (step.code, step.k) {
                (LOAD, HATYPE) => accumulator = hatype,
                (LOAD, PACKET_TYPE) => accumulator = packet_type,
                (LOAD, IFINDEX) => accumulator = ifindex,
                (JUMP_EQUAL, k) => at += usize::from(if accumulator == k { step.jump_true } else { step.jump_false }),
                (RETURN, k) => return k,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_let_through() {
        let all = CaptureFilter::default().program().unwrap();
        let some = CaptureFilter { ifindexes: Some(&[3, 5]), snaplen: 96 }.program().unwrap();
        let none = CaptureFilter { ifindexes: Some(&[]), snaplen: 0 }.program().unwrap();
        // (hatype, packet type, interface) -> all, [3, 5] with 96 bytes, no interface
        for (packet, expect) in [
            ((1, 0, 3), (WHOLE_PACKET, 96, 0)),
            ((1, 4, 5), (WHOLE_PACKET, 96, 0)),
            ((1, 4, 4), (WHOLE_PACKET, 0, 0)),
            ((65534, 4, 3), (WHOLE_PACKET, 96, 0)),
            ((772, 0, 3), (WHOLE_PACKET, 96, 0)),
            ((772, 4, 3), (0, 0, 0)),
            ((280, 4, 3), (0, 0, 0)),
            ((280, 0, 3), (WHOLE_PACKET, 96, 0)),
        ] {
            let (hatype, packet_type, ifindex) = packet;
            let run = |program| run(program, hatype, packet_type, ifindex);
            assert_eq!((run(&all), run(&some), run(&none)), expect, "{packet:?}");
        }
    }

    #[test]
    fn a_list_has_a_limit() {
        let many = vec![1; CaptureFilter::INTERFACES_MAX];
        assert!(CaptureFilter { ifindexes: Some(&many), snaplen: 0 }.program().unwrap().len() <= 4096);
        let more = vec![1; CaptureFilter::INTERFACES_MAX + 1];
        assert_eq!(CaptureFilter { ifindexes: Some(&more), snaplen: 0 }.program(), Err(TooManyInterfaces));
    }
}
