//! Any bytes as alerts of Suricata, Zeek or Sysmon. Each alert that is read has its times in order, one line of the
//! file, and a name for its export that stays in the folder; each broken line is reported.
#![no_main]

use libfuzzer_sys::fuzz_target;
use retrocap::alert::{ALERTS_MAX, Alerts, BROKEN_LISTED_MAX};
use retrocap::untrusted::alert_file;

fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = Alerts::read(bytes) else { return };
    assert!(read.alerts.len() <= ALERTS_MAX && read.broken.len() <= BROKEN_LISTED_MAX);
    assert!(read.broken_count >= read.broken.len() as u64);
    for alert in &read.alerts {
        assert!(alert.start <= alert.end, "{alert:?}");
        // There cannot be more alerts than bytes.
        assert!((1..=bytes.len() as u64 + 1).contains(&alert.line), "{alert:?}");
        let name = alert_file(alert);
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)), "{name}");
        assert!(!name.starts_with('.') && name.len() < 255, "{name}");
    }
    // A broken line does not change the line numbers of the others.
    let again = Alerts::read(bytes).unwrap();
    assert_eq!((again.alerts, again.broken_count), (read.alerts, read.broken_count));
});
