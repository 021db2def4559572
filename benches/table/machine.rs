//! The machine on which the figures were measured.

use std::process::Command;

/// Prints the machine, its load, and the versions of the peers.
pub(crate) fn print() {
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    let governor = if governor.is_empty() { "unknown".to_owned() } else { governor };
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
    println!(
        "machine: {cpu}, {cores} cores, {memory} of memory, Linux {kernel}, governor {governor}, huge pages {huge}"
    );
    println!("load before: {} (figures of a machine that does other things are no figures)", read("/proc/loadavg"));
    println!("retrocap {}, {}, {}", env!("CARGO_PKG_VERSION"), version("tcpdump"), version("dumpcap"));
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = read(path);
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Whether a program is installed.
pub(crate) fn have(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

fn version(program: &str) -> String {
    let Ok(output) = Command::new(program).arg("--version").output() else { return format!("no {program}") };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or(program).to_owned()
}
