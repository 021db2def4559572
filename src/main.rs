//! The command line: parse, dispatch, exit code.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    retrocap::cli::main()
}
