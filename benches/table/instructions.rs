//! Instructions per packet, from the benchmark `instructions`.

use std::process::Command;

use serde_json::Value;

use crate::machine::have;
use crate::scale::Scale;
use crate::table::{Row, section, skipped};

/// Packets per run of the benchmark.
const PACKETS: f64 = 24_000.0;

pub(crate) fn instructions(_: Scale) {
    section("instructions", "a packet, counted by valgrind: 1,000 sessions where nothing else is said, a full store");
    for program in ["valgrind", "gungraun-runner"] {
        if !have(program) {
            return skipped("instructions", format_args!("{program} is missing: run `scripts/setup bench`"));
        }
    }
    let output = Command::new(env!("CARGO"))
        .args(["bench", "--locked", "--bench", "instructions", "--", "--output-format=json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        Ok(output) => return skipped("instructions", String::from_utf8_lossy(&output.stderr)),
        Err(error) => return skipped("instructions", error),
    };
    let mut any = false;
    for run in serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>().flatten() {
        let (Some(id), Some((now, before))) = (run["id"].as_str(), counted(&run)) else { continue };
        any = true;
        let what = match id {
            "small" => "64 B",
            "small_alone" => "64 B, one at a time",
            "imix" => "IMIX",
            "each_new" => "64 B, each a new session",
            "campus" => "campus, 20 sessions/s",
            "large" => "1500 B",
            "large_alone" => "1500 B, one at a time",
            other => other,
        };
        let row = Row::new(what, format_args!("{:.0}", now / PACKETS));
        match before {
            Some(before) => row.beside(format_args!("last time {:.0}", before / PACKETS), now / before),
            None => row,
        }
        .print();
    }
    if !any {
        skipped("instructions", "the runner said nothing that is understood; run `cargo bench --bench instructions`");
    }
}

/// Instructions of this run and of the previous one.
fn counted(run: &Value) -> Option<(f64, Option<f64>)> {
    let ir = find(run, "Ir")?;
    let metrics = ir.get("metrics").unwrap_or(ir);
    let number = |value: &Value| {
        let value = value.get("Int").or_else(|| value.get("Float")).unwrap_or(value);
        value.as_f64()
    };
    if let Some(both) = metrics.get("Both") {
        return Some((number(&both[0])?, number(&both[1])));
    }
    Some((number(metrics.get("Left")?)?, None))
}

/// The first value with this key at any depth.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|value| find(value, key))),
        Value::Array(values) => values.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}
