//! Tests of the interpreter with hand-written programs and with random ones.

use super::load::{check, code};
use super::*;

fn raw(code: u16, jump_true: u8, jump_false: u8, k: u32) -> RawInstruction {
    RawInstruction { code, jump_true, jump_false, k }
}

/// Returns the result of a program, 0 for "no match".
fn run(program: &[RawInstruction], data: &[u8]) -> u32 {
    Program::load(program).expect("valid").run(data, 1000).unwrap_or(0)
}

const RETURN_A: RawInstruction = RawInstruction { code: code::RET_A, jump_true: 0, jump_false: 0, k: 0 };

#[test]
fn a_start_rejects_only_what_the_whole_packet_does() {
    // The program accepts packets with byte 2 = 3 and byte 6 = `sixth`.
    let wants = |sixth| {
        let bytes = [raw(code::LD_B_ABS, 0, 0, 2), raw(code::JEQ, 0, 3, 3), raw(code::LD_B_ABS, 0, 0, 6)];
        let ends = [raw(code::JEQ, 0, 1, sixth), raw(code::RET_K, 0, 0, 1), raw(code::RET_K, 0, 0, 0)];
        Program::load(&[&bytes[..], &ends[..]].concat()).expect("valid")
    };
    for (packet, sixth, known_from) in
        [([1, 2, 3, 4, 5, 6, 7, 8], 7, 9), ([1, 2, 3, 4, 5, 6, 7, 8], 0, 7), ([0; 8], 7, 3)]
    {
        let program = wants(sixth);
        for len in 0..=packet.len() {
            assert_eq!(program.rejects_start(&packet[..len], 8), len >= known_from, "{packet:?} {sixth} {len}");
        }
        assert_eq!(program.matches(&packet, 8), known_from > 8);
    }
}

#[test]
fn loads_end_with_the_packet() {
    let data = [0x45, 2, 3, 4, 5];
    for (code, k, expected) in [
        (code::LD_W_ABS, 0, 0x4502_0304),
        (code::LD_W_ABS, 1, 0x0203_0405),
        (code::LD_W_ABS, 2, 0),
        (code::LD_W_ABS, u32::MAX, 0),
        (code::LD_H_ABS, 3, 0x0405),
        (code::LD_H_ABS, 4, 0),
        (code::LD_B_ABS, 4, 5),
        (code::LD_B_ABS, 5, 0),
        (code::LD_LEN, 0, 1000),
        (code::LD_IMM, 7, 7),
    ] {
        assert_eq!(run(&[raw(code, 0, 0, k), RETURN_A], &data), expected, "{code:#x} {k}");
    }
    for (x, code, k, expected) in [
        (1, code::LD_W_IND, 0, 0x0203_0405),
        (1, code::LD_W_IND, 1, 0),
        (1, code::LD_H_IND, 2, 0x0405),
        (2, code::LD_B_IND, 2, 5),
        (2, code::LD_B_IND, 3, 0),
        (u32::MAX, code::LD_B_IND, 1, 0),
        (2, code::LD_B_IND, u32::MAX, 0),
    ] {
        let program = [raw(code::LDX_IMM, 0, 0, x), raw(code, 0, 0, k), RETURN_A];
        assert_eq!(run(&program, &data), expected, "{code:#x} {x} {k}");
    }
    let header = [raw(code::LDX_MSH, 0, 0, 0), raw(code::TXA, 0, 0, 0), RETURN_A];
    assert_eq!(run(&header, &data), 20);
    assert_eq!(run(&header, &[]), 0);
}

#[test]
fn arithmetic_wraps() {
    for (operation, a, by, expected) in [
        (code::ADD, u32::MAX, 2, 1),
        (code::SUB, 1, 2, u32::MAX),
        (code::MUL, 1 << 31, 3, 1 << 31),
        (code::DIV, 7, 2, 3),
        (code::MOD, 7, 4, 3),
        (code::AND, 6, 3, 2),
        (code::OR, 6, 3, 7),
        (code::XOR, 6, 3, 5),
        (code::LSH, 1, 31, 1 << 31),
        (code::LSH, 1, 32, 0),
        (code::RSH, 1 << 31, 31, 1),
        (code::RSH, 1, 40, 0),
        (code::NEG, 1, 0, u32::MAX),
    ] {
        let constant = [raw(code::LD_IMM, 0, 0, a), raw(operation, 0, 0, by), RETURN_A];
        assert_eq!(run(&constant, &[]), expected, "{operation:#x} {a} {by}");
        let register =
            [raw(code::LD_IMM, 0, 0, a), raw(code::LDX_IMM, 0, 0, by), raw(operation | 8, 0, 0, 0), RETURN_A];
        assert_eq!(run(&register, &[]), expected, "{operation:#x} {a} X={by}");
    }
    let by_zero = [raw(code::LD_IMM, 0, 0, 1), raw(code::DIV | 8, 0, 0, 0), raw(code::RET_K, 0, 0, 1)];
    assert_eq!(run(&by_zero, &[]), 0);
}

#[test]
fn what_cannot_be_run_is_refused() {
    let end = raw(code::RET_K, 0, 0, 1);
    for (program, expected) in [
        (vec![], InvalidProgram::NoReturn),
        (vec![raw(code::LD_LEN, 0, 0, 0)], InvalidProgram::NoReturn),
        (vec![raw(code::JA, 0, 0, 1), end], InvalidProgram::Jump(0)),
        (vec![end, raw(code::JA, 0, 0, u32::MAX), end], InvalidProgram::Jump(1)),
        (vec![raw(code::JEQ, 0, 1, 0), end], InvalidProgram::Jump(0)),
        (vec![raw(code::JEQ, 255, 0, 0), end], InvalidProgram::Jump(0)),
        (vec![raw(code::JSET | 0x20, 0, 0, 0), end], InvalidProgram::Operation(0)),
        (vec![raw(code::ST, 0, 0, 16), end], InvalidProgram::Memory(0)),
        (vec![raw(code::LD_MEM, 0, 0, 1 << 20), end], InvalidProgram::Memory(0)),
        (vec![raw(code::DIV, 0, 0, 0), end], InvalidProgram::Zero(0)),
        (vec![raw(code::MOD, 0, 0, 0), end], InvalidProgram::Zero(0)),
        (vec![raw(0xffff, 0, 0, 0), end], InvalidProgram::Operation(0)),
        (vec![raw(code::LD_B_ABS, 0, 0, 0xffff_f004), end], InvalidProgram::Metadata),
    ] {
        assert_eq!(Program::load(&program).map(|p| p.len()), Err(expected));
    }
}

proptest::proptest! {
    #[test]
    fn whatever_loads_also_runs(
        code in proptest::collection::vec((0_u16..256, 0_u8..4, 0_u8..4, 0_u32..40), 0..30),
        data in proptest::collection::vec(proptest::num::u8::ANY, 0..64),
    ) {
        let mut program: Vec<_> = code.into_iter().map(|(code, yes, no, k)| raw(code, yes, no, k)).collect();
        program.retain(|one| check(*one, 0, 1000).is_ok());
        program.push(raw(code::RET_A, 0, 0, 0));
        if let Ok(program) = Program::load(&program) {
            let _ = program.matches(&data, 64);
        }
    }
}
