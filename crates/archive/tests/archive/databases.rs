//! Databases read the log of sessions of an archive as it lies.

use std::process::Command;

use crate::{Place, SESSIONS, Spool, text};

/// Prints recorders, rows and bytes of the whole archive, and the sources that spoke to 192.0.2.7.
const DUCKDB: &str = r#"
import duckdb, sys
duckdb.sql(f"CREATE VIEW s AS FROM read_parquet('{sys.argv[1]}/sessions/**/*.parquet', hive_partitioning = true)")
print(duckdb.sql("SELECT count(DISTINCT host), count(*), sum(\"network.bytes\")::BIGINT FROM s").fetchall()[0])
print(duckdb.sql("""SELECT DISTINCT "source.ip" FROM s WHERE "destination.ip" = '192.0.2.7' AND date = '2026-11-22' ORDER BY ALL""").fetchall())
"#;

const CHDB: &str = r#"
import chdb, sys
s = f"file('{sys.argv[1]}/sessions/**/*.parquet', Parquet)"
rows = chdb.query(f"SELECT count(DISTINCT extract(_path, 'host=([^/]*)')), count(), sum(\"network.bytes\") FROM {s}", "CSV")
print("(" + str(rows).strip().replace(",", ", ") + ")")
rows = str(chdb.query(f"""SELECT DISTINCT \"source.ip\" FROM {s} WHERE \"destination.ip\" = '192.0.2.7' ORDER BY 1""", "TSV"))
print([(row,) for row in rows.split()])
"#;

const SPARK: &str = r#"
import sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").config("spark.driver.host", "127.0.0.1").getOrCreate()
spark.read.parquet(sys.argv[1] + "/sessions").createOrReplaceTempView("s")
row = spark.sql("SELECT count(DISTINCT host), count(*), sum(`network.bytes`) FROM s").first()
print((row[0], row[1], row[2]))
rows = spark.sql("SELECT DISTINCT `source.ip` FROM s WHERE `destination.ip` = '192.0.2.7' AND date = '2026-11-22' ORDER BY 1").collect()
print([(row[0],) for row in rows])
"#;

/// The output of a Python program; `None`, with a message, where Python lacks the module.
fn python(module: &str, program: &str, place: &Place) -> Option<String> {
    let python = std::env::var("RETROCAP_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", &format!("import {module}")]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: archive: {module} reads the log: {python} has no {module} (pip install {module})");
        return None;
    }
    let output = Command::new(&python).args(["-c", program, &place.url]).output().unwrap();
    assert!(output.status.success(), "{module}: {}", text(&output.stderr));
    Some(text(&output.stdout))
}

#[test]
fn archive_19_5_databases_read_the_sessions_of_all_recorders_as_they_lie() {
    let Some(spool) = Spool::recorded("archive: databases") else { return };
    let place = Place::directory(&spool.path("archive"));
    for host in ["one", "two"] {
        let mut command = place.command(crate::PROGRAM);
        command.args(["copy", &place.url, "--host", host, "--spool"]).arg(spool.directory());
        assert!(command.output().unwrap().status.success());
    }
    let packets = u64::from(SESSIONS * crate::PACKETS_EACH);
    let mut rows = 0;
    for (module, program) in [("duckdb", DUCKDB), ("chdb", CHDB), ("pyspark", SPARK)] {
        let Some(printed) = python(module, program, &place) else { continue };
        let lines: Vec<&str> = printed.lines().collect();
        let counts: Vec<u64> =
            lines[0].trim_matches(['(', ')']).split(", ").map(|number| number.parse().unwrap()).collect();
        // A session that goes on over the end of an hour has a row in each.
        assert!(counts[1] >= u64::from(2 * SESSIONS) && (rows == 0 || rows == counts[1]), "{module}: {printed}");
        rows = counts[1];
        assert_eq!((counts[0], counts[2]), (2, 2 * 996 * packets), "{module}: {printed}");
        assert_eq!(lines[1], "[('10.0.0.1',), ('10.0.0.2',), ('10.0.0.3',), ('10.0.0.4',), ('10.0.0.5',)]", "{module}");
    }
}
