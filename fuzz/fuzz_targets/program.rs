//! Any instructions as a filter program: a program that loads returns for every packet, and gives the same result
//! each time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use retrocap::filter::Program;
use retrocap::filter::vm::RawInstruction;

/// Bytes per instruction.
const INSTRUCTION_BYTES: usize = 8;

fuzz_target!(|input: &[u8]| {
    // The number of instructions, the instructions, the length on the wire, and the packet.
    let Some((&count, input)) = input.split_first() else { return };
    let Some((instructions, input)) = input.split_at_checked(INSTRUCTION_BYTES * usize::from(count)) else { return };
    let Some((length, packet)) = input.split_first_chunk() else { return };
    let raw = |bytes: &[u8]| RawInstruction {
        code: u16::from_le_bytes([bytes[0], bytes[1]]),
        jump_true: bytes[2],
        jump_false: bytes[3],
        k: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    };
    let raw: Vec<RawInstruction> = instructions.chunks_exact(INSTRUCTION_BYTES).map(raw).collect();
    let length = u32::from_le_bytes(*length);
    match Program::load(&raw) {
        Ok(program) => assert_eq!(program.matches(packet, length), program.matches(packet, length)),
        Err(why) => assert!(!why.to_string().is_empty()),
    }
});
