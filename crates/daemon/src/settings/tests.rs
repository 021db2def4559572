use std::path::Path;

use super::*;
use engine::judge::Classes;
use engine::store::retention::Policy;

/// The sample with all its keys in force.
fn sample_in_force() -> String {
    sample()
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)))
        .collect()
}

#[test]
fn the_sample_is_the_one_in_the_repository() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("packaging/retrocap.toml");
    let there = std::fs::read_to_string(path).unwrap();
    assert!(there == sample(), "write it again: retrocap check --sample > packaging/retrocap.toml");
}

#[test]
fn the_sample_is_all_comment_and_covers_every_key() {
    let empty = sample();
    assert!(empty.lines().all(|line| line.is_empty() || line.starts_with(['#', '['])), "{empty}");
    assert_eq!(Settings::read(&empty).unwrap(), Settings::default());
    let whole = sample_in_force();
    Settings::read(&whole).unwrap_or_else(|mistakes| panic!("{mistakes:?}\n{whole}"));
    for row in rows() {
        assert!(whole.contains(&format!("\n{} = {}\n", row.name, row.sample())), "{}", row.name);
        assert!(row.about.is_ascii() && row.about.ends_with('.'), "{}", row.name);
    }
}

/// [`Settings::default`] takes what a default says; here each is read.
#[test]
fn every_default_is_a_value() {
    for row in rows() {
        let mut settings = Settings::default();
        (row.reset)(&mut settings);
        if let DefaultValue::Is(text) = row.default
            && row.section != "class"
        {
            (row.read)(&mut settings, Value::Default(text)).unwrap_or_else(|error| panic!("{}: {error}", row.name));
            assert_eq!(settings, Settings::default(), "{}", row.name);
        }
    }
    let defaults = Settings::default();
    assert_eq!(defaults.limits(), ServiceLimits::default());
    assert_eq!(defaults.retention(), Policy::default());
    assert_eq!(defaults.audit_log_size.0, audit::SIZE_DEFAULT);
    assert_eq!(defaults.audit_log_keep, audit::KEEP_DEFAULT);
}

/// One row is enough: a value in the file changes one setting, and is taken over at a reload if the row says so.
#[test]
fn every_row_is_read_compared_and_reloaded() {
    for row in rows().filter(|row| !["class", "client"].contains(&row.section)) {
        let values =
            ["\"x\"", "\"127.0.0.1:1\"", "\"5m\"", "\"64M\"", "5", "true", "\"off\"", "\"nothing\"", "\"whole\""];
        let values = values.into_iter().chain(["\"pcapng\"", "\"best-effort\"", "1"]);
        let heading = if row.section.is_empty() { String::new() } else { format!("[{}]\n", row.section) };
        let read = |value: &str| Settings::read(&format!("{heading}{} = {value}", row.name)).ok();
        let old = Settings::default();
        let new = values.filter_map(read).find(|new| *new != old);
        let new = new.unwrap_or_else(|| panic!("no value changes {}", row.name));
        let other = if row.reload == Reload::Now { Reload::Restart } else { Reload::Now };
        assert_eq!(old.changes(&new, row.reload), [label(row)]);
        assert!(old.changes(&new, other).is_empty(), "{}", row.name);
        let mut running = old.clone();
        running.adopt_reloaded(&new);
        assert_eq!(running == new, row.reload == Reload::Now, "{}", row.name);
    }
    let laptop = Settings::read("[[client]]\nname = \"laptop\"\nroles = []").unwrap();
    assert_eq!(Settings::default().changes(&laptop, Reload::Now), ["[[client]]"]);
    let plc = Settings::read("[[class]]\nname = \"plc\"\nfilter = \"port 502\"").unwrap();
    assert_eq!(Settings::default().changes(&plc, Reload::Restart), ["[[class]]"]);
}

#[test]
fn values_as_people_write_them() {
    let settings = Settings::read(
        "interface = [\"eth0\", \"eth1\"]\nmemory = \"2%\"\nspeed = 2.5\nsnaplen = 0x40\n[retention]\nalpha = 0.5",
    )
    .unwrap();
    assert_eq!((settings.interface.len(), settings.memory), (2, Some("2%".parse().unwrap())));
    assert_eq!((settings.speed, settings.retention_alpha), (Speed::Times(2.5), Some(0.5)));
    assert_eq!(settings.snaplen, 64);
    assert_eq!(Settings::read("interface = \"eth0\"").unwrap().interface, ["eth0"]);
    assert_eq!(Settings::read("memory = 41943040").unwrap().memory, Some("40M".parse().unwrap()));
    assert_eq!(Settings::read("speed = \"max\"").unwrap().speed, Speed::Max);
    assert_eq!(Settings::read("[retention]\nalpha = 2").unwrap().retention_alpha, Some(2.0));
    let limits = Settings::read("[limits]\nstall-timeout = \"2m\"\nconnections = 9").unwrap().limits();
    assert_eq!((limits.stall_timeout.as_secs(), limits.connections_max), (120, 9));
}

#[test]
fn a_mistake_is_reported_with_line_and_key() {
    for (text, line, words) in [
        ("snaplen = 1\nsnaplem = 1\n", "line 2", "no key snaplem; did you mean snaplen?"),
        ("snaplen = 1\nbogus = 1\n", "line 2", "no key bogus; `retrocap check --sample`"),
        ("alpha = 1.0", "line 1", "no key alpha here; it belongs in [retention]"),
        ("[retention]\nmemory = \"1%\"", "line 2", "it belongs before the first [section]"),
        ("[retension]\nalpha = 1.0", "line 1", "no section [retension]; did you mean [retention]?"),
        ("retention = 1", "line 1", "[retention] is a section"),
        ("class = 1", "line 1", "begin each one with a line [[class]]"),
        ("memory = { size = 1 }", "line 1", "memory: expected a text or a number, not a table"),
        ("\n\nmemory = \"40 bananas\"\n", "line 3", "memory: cannot read the size \"40 bananas\""),
        ("snaplen = -1", "line 1", "snaplen: -1 is not within 0 to"),
        ("snaplen = \"64\"", "line 1", "snaplen: expected a whole number, not a text"),
        ("workers = 0", "line 1", "workers: 0 is not within 1 to 256"),
        ("interface = 5", "line 1", "expected a text or a list of texts"),
        ("interface = [\"eth0\", 5]", "line 1", "expected a text or a list of texts"),
        ("promiscuous = \"yes\"", "line 1", "expected true or false"),
        ("[retention]\nalpha = 9.5", "line 2", "try 1.0"),
        ("[retention]\nalpha = -1.0", "line 2", "try 1.0"),
        ("[retention]\nkeep = \"all\"", "line 2", "starts"),
        ("[retention]\nbeta = 1", "line 2", "no key beta in [retention]"),
        ("compression-cpu = 200", "line 1", "try 10"),
        ("speed = 0", "line 1", "max"),
        ("sandbox = \"strict\"", "line 1", "best-effort"),
        ("pcap-over-ip = \"localhost\"", "line 1", "pcap-over-ip: cannot read the address \"localhost\": try 127"),
        ("listen = \"localhost\"", "line 1", "listen: cannot read the address \"localhost\": try 0.0.0.0:57443"),
        ("pcap-over-ip-format = \"csv\"", "line 1", "pcap-nano"),
        ("pcap-over-ip-past = 5", "line 1", "pcap-over-ip-past: cannot read the duration \"5\""),
        ("[limits]\nstall-timeout = 5", "line 2", "stall-timeout: cannot read the duration \"5\""),
        ("[limits]\nstall-timeout = \"0s\"", "line 2", "stall-timeout: it is at least 10ms"),
        ("filter = \"x", "line 1", "string"),
        ("audit = \"yes\"", "line 1", "try required, best-effort or off"),
        ("audit-log-keep = 0", "line 1", "not within 1 to"),
        ("[[client]]\nname = \"a\"\nroles = [\"admin\"]", "line 3", "try status, flows"),
        ("[[client]]\nname = \"a\"", "line 1", "roles is missing in this [[client]]"),
        ("[[class]]\nname = \"x\"", "line 1", "filter is missing in this [[class]]"),
        ("[[class]]\nname = \"x\"\nfilter = \"ip\"\ncutof = 1", "line 4", "did you mean cutoff?"),
        ("[[class]]\nname = \"x\"\nfilter = \"ip\"\ncutoff = \"1 banana\"", "line 4", "try 40MiB"),
        ("[[class]]\nname = \"x\"\nfilter = \"ip\"\nweight = \"big\"", "line 4", "expected a number"),
        ("snaplen = 1\nsnaplen = 2", "line 2", "duplicate key"),
    ] {
        let mistakes = Settings::read(text).unwrap_err();
        let shown = mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(shown.contains(line) && shown.contains(words), "{text}: {shown}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_their_lines() {
    let mistakes = Settings::read("workers = 0\nbogus = 1\nsocket = 1\n").unwrap_err();
    assert_eq!(mistakes.iter().map(|mistake| mistake.line).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_class_as_it_is_written() {
    let text = "[[class]]\nname = \"plc\"\nfilter = \"port 502\"\nweight = 20\nreserve = \"4M\"\n\
                [[class]]\nname = \"backup\"\nfilter = \"port 873\"\nweight = 0.5\ncutoff = \"64K\"\n";
    let classes = Settings::read(text).unwrap().classes;
    assert_eq!((classes[0].weight, classes[0].cutoff_bytes, classes[0].reserve_bytes), (20.0, None, 4 << 20));
    assert_eq!((classes[1].weight, classes[1].cutoff_bytes, classes[1].reserve_bytes), (0.5, Some(64 << 10), 0));
    for (text, words) in [
        ("[[class]]\nname = \"x\"\nfilter = \"prt 5\"", "class \"x\": cannot compile"),
        ("[[class]]\nname = \"x\"\nfilter = \"ip\"\nweight = 0", "10 keeps ten times as long"),
        ("[[class]]\nname = \"x\"\nfilter = \"ip\"\n[[class]]\nname = \"x\"\nfilter = \"arp\"", "two classes"),
        ("[[class]]\nname = \"x\"\nfilter = \"ip\"\nreserve = \"20M\"", "reserve less"),
    ] {
        let error = Classes::new(&Settings::read(text).unwrap().classes, 30 << 20).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn the_shipped_classes_can_be_used() {
    let classes = Settings::read(SHIPPED_CLASSES).unwrap().classes;
    assert_eq!(Settings::default().all_classes(), classes[..1], "the first one applies by default");
    let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
    assert_eq!(names, ["industrial", "dns", "backup", "encrypted-bulk"]);
    Classes::new(&classes, 30 << 20).unwrap();
}

#[test]
fn steepness_in_words() {
    let policy = |text: &str| Settings::read(text).unwrap().retention();
    assert_eq!(policy(""), Policy::default());
    assert_eq!(policy("[retention]\nkeep = \"balanced\""), Policy::default());
    assert_eq!(policy("[retention]\nkeep = \"whole\""), Policy::steepness(0.5));
    assert_eq!(policy("[retention]\nkeep = \"starts\"\nalpha = 2.0"), Policy::steepness(2.0));
}
