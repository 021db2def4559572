//! Replay compared with its peer: the same capture file through `retrocap replay` and `tcpdump -r FILE -w /dev/null`,
//! alternately.

use crate::machine::have;
use crate::process::{Cost, RETROCAP, cost};
use crate::scale::Scale;
use crate::table::{Row, median, section, skipped};
use crate::traffic::{FILE_PACKETS, write_capture};

pub(crate) fn replay(scale: Scale) {
    let folder = tempfile::tempdir().expect("a folder for the capture file");
    let file = folder.path().join("bench.pcap");
    let bytes = write_capture(&file).expect("450 MB of room for the capture file");
    let about = format!("{FILE_PACKETS} packets, {} MB, in turn; wall and processor seconds", bytes / 1_000_000);
    section("replay", &about);
    if !have("tcpdump") {
        return skipped("replay", "tcpdump is not installed, there is nothing to compare with");
    }
    let file = file.to_str().expect("a path in UTF-8");
    for (memory, cpu, aim) in [("40MiB", "0", "<= 1"), ("1GiB", "0", "<= 1"), ("40MiB", "10", ""), ("1GiB", "10", "")] {
        let arguments = ["replay", file, "-m", memory, "--compression-cpu", cpu, "--json"];
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        // The first pair warms up and is not counted.
        for round in 0..=scale.rounds() {
            let pair = (cost(RETROCAP, &arguments), cost("tcpdump", &["-r", file, "-w", "/dev/null"]));
            if round > 0 {
                ours.push(pair.0);
                theirs.push(pair.1);
            }
        }
        let middle = |costs: &[Cost], of: fn(&Cost) -> f64| median(costs.iter().map(of).collect());
        let wall = [&ours, &theirs].map(|costs| middle(costs, |cost| cost.wall_s));
        let cpu_s = [&ours, &theirs].map(|costs| middle(costs, |cost| cost.cpu_s));
        Row::new(
            format_args!("-m {memory} --compression-cpu {cpu}"),
            format_args!("{:.3} s, {:.2} cpu", wall[0], cpu_s[0]),
        )
        .beside(format_args!("tcpdump {:.3} s, {:.2} cpu", wall[1], cpu_s[1]), wall[0] / wall[1])
        .aim(aim)
        .print();
    }
}
