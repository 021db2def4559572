//! Any text as what `/proc` says of the cgroups of a process: each container has its runtime and the start of an id, which
//! has no characters that deceive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use processes::container::Cgroup;

const ID_CHARS: usize = 12;

fuzz_target!(|text: &str| {
    let cgroup = Cgroup::read(text);
    if let Some(container) = &cgroup.container {
        let (_, id) = container.rsplit_once(':').expect("a runtime and an id");
        assert!(id.len() == ID_CHARS && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{container}");
        assert!(container.len() <= text.len() + ID_CHARS + 16);
    }
    assert_eq!(cgroup, Cgroup::read(text));
});
