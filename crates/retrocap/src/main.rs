//! Entry point of the binary. [`retrocap::cli::main`] parses the arguments and runs the verb.
#![forbid(unsafe_code)]

/// Wipes memory when it is freed, because buffers of this program and of its libraries hold packet contents.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: sys::WipingAllocator = sys::WipingAllocator::SYSTEM;

fn main() -> std::process::ExitCode {
    retrocap::cli::main()
}
