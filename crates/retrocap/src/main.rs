//! The command line: parse, dispatch, exit code.
#![forbid(unsafe_code)]

/// Packets pass through buffers of this program and of its libraries: none of them keeps one once it is freed.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: sys::Wiping = sys::Wiping::SYSTEM;

fn main() -> std::process::ExitCode {
    retrocap::cli::main()
}
