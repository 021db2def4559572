//! Checks of the machine: what keeps it from recording with these settings, and what makes the recording worse.
//!
//! What always holds: a check changes nothing, and takes nothing that another process needs. It writes for two seconds to the
//! disk of a spool, to a file without a name.

mod finding;
mod spool;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::{Resource, getrlimit, getuid};
use rustix::thread::CapabilitySet;
use sys::Offloads;

use super::memory_limit::{MemoryLimit, kibibytes};
use super::privileges::PrivilegePlan;
use super::settings::Settings;
use super::{classes, listeners, privileges, sandbox};
use capture::interfaces::links;
use capture::live::capture_rights;
use capture::selection::{InterfaceSelection, Link};
use engine::budget::ByteSize;
pub use finding::{Finding, Severity};

/// Checks the machine for what the settings need.
pub fn machine(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![budget(settings), memory_available(settings)];
    if settings.is_live() {
        findings.push(rights());
        findings.push(memory_lock(settings));
        findings.extend(interfaces(settings));
        findings.push(clock());
    }
    findings.push(user(settings));
    findings.push(readers());
    findings.extend(kernel(settings));
    findings.extend(reload(settings));
    findings.push(socket(&settings.socket));
    findings.extend(spool::findings(settings));
    findings.extend(certificates(settings));
    findings.extend(settings.pcap_over_ip.iter().map(|&address| pcap_over_ip(address, settings)));
    findings
}

/// The budget, and of what it is a share.
fn budget(settings: &Settings) -> Finding {
    let check = "budget";
    match classes::split(settings) {
        Ok(split) => match classes::compile(settings, &split) {
            Ok(_) => Finding::good(check, format!("{} of memory, out of {}", ByteSize(split.budget_bytes), usable())),
            Err(error) => Finding::error("classes", error.to_string(), "correct its [[class]]"),
        },
        Err(error) => {
            Finding::error(check, error.to_string(), "set memory to the size that it names, or lower workers")
        }
    }
}

/// What the recorder may use, and what the machine has.
fn usable() -> String {
    match MemoryLimit::of_this_process() {
        None => "an unknown amount".to_owned(),
        Some(MemoryLimit { physical_bytes, cgroup_bytes: None }) => {
            format!("the machine's {} (no cgroup limits it)", ByteSize(physical_bytes))
        }
        Some(MemoryLimit { physical_bytes, cgroup_bytes: Some(limit) }) => {
            format!("the {} that the cgroup may use (the machine has {})", ByteSize(limit), ByteSize(physical_bytes))
        }
    }
}

/// Whether the machine has the memory at this moment.
fn memory_available(settings: &Settings) -> Finding {
    let check = "memory";
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let Some(free) = kibibytes(&meminfo, "MemAvailable:") else {
        return Finding::warning(check, "the system does not say how much memory is free", "look at `free -m`");
    };
    let limit = MemoryLimit::of_cgroup();
    let found = match limit {
        Some(limit) => {
            format!("{} of memory are free on the machine, and the cgroup may use {}", ByteSize(free), ByteSize(limit))
        }
        None => format!("{} of memory are free on the machine", ByteSize(free)),
    };
    match settings.memory_bytes() {
        Ok(bytes) if bytes > free => Finding::error(check, found, format!("set memory lower than {}", ByteSize(bytes))),
        _ => Finding::good(check, found),
    }
}

fn rights() -> Finding {
    match capture_rights() {
        Ok(()) => Finding::good("capture-rights", "packets may be captured (AF_PACKET, TPACKET_V3)"),
        Err(error) => Finding::error(
            "capture-rights",
            error.to_string(),
            "run the check as the service will run: sudo retrocap check; in a container add the capability NET_RAW",
        ),
    }
}

fn memory_lock(settings: &Settings) -> Finding {
    let check = "memory-lock";
    let limits = getrlimit(Resource::Memlock);
    let budget = settings.memory_bytes().unwrap_or(u64::MAX);
    let rights = |right| rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(right));
    let has_right = rights(CapabilitySet::IPC_LOCK);
    // Later allocations are locked if there is no limit, or if the recorder may lift it.
    let lifts = limits.maximum.is_none() || (has_right && rights(CapabilitySet::SYS_RESOURCE));
    let advice = "set LimitMEMLOCK=infinity in the unit, or `ulimit -l unlimited` elsewhere";
    match limits.current {
        _ if lifts => Finding::good(check, "memory can be locked in RAM without limit"),
        Some(limit) if has_right || limit >= budget => Finding::warning(
            check,
            format!("packets can be locked in RAM, but not the memory of answers: the limit is {}", ByteSize(limit)),
            advice,
        ),
        None => Finding::good(check, "memory can be locked in RAM without limit"),
        Some(limit) => Finding::warning(
            check,
            format!("only {} can be locked in RAM, so packets can reach the swap", ByteSize(limit)),
            "give it CAP_IPC_LOCK, or a higher limit: LimitMEMLOCK=infinity in the unit, `ulimit -l` elsewhere",
        ),
    }
}

fn interfaces(settings: &Settings) -> Vec<Finding> {
    let check = "interfaces";
    let links = match links() {
        Ok(links) => links,
        Err(error) => {
            let advice = "netlink must be allowed: look for RestrictAddressFamilies= in the unit";
            return vec![Finding::error(check, format!("interfaces cannot be listed: {error}"), advice)];
        }
    };
    let selection = InterfaceSelection::new(&settings.interface);
    selection.refresh(links);
    if let Err(missing) = selection.check() {
        return vec![Finding::error(check, missing.to_string(), "correct `interface`, or leave it out to record all")];
    }
    let wanted = selection.links();
    let (up, down): (Vec<&Link>, Vec<&Link>) = wanted.iter().partition(|link| link.up);
    let names = |links: &[&Link]| links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut findings = Vec::new();
    if up.is_empty() {
        let found = format!("none of the interfaces is up: {}", names(&down));
        findings.push(Finding::warning(check, found, "ip link set NAME up; recording needs no restart"));
    } else {
        findings.push(Finding::good(check, format!("records {}", names(&up))));
    }
    findings.push(offloads(&up));
    findings
}

/// What network cards and the kernel merge before packets are captured.
fn offloads(links: &[&Link]) -> Finding {
    let check = "offloads";
    let of = |link: &Link| sys::offloads(&link.name).unwrap_or_default();
    let names = |which: fn(&Offloads) -> bool| {
        let with = links.iter().filter(|link| !link.loopback && which(&of(link))).map(|link| link.name.as_str());
        with.collect::<Vec<_>>().join(", ")
    };
    let merged = names(|offloads| offloads.large_receive);
    if !merged.is_empty() {
        return Finding::warning(
            check,
            format!(
                "{merged}: the network card merges received packets (LRO), so that they differ from those on the cable"
            ),
            "ethtool -K NAME lro off",
        );
    }
    let larger = names(|offloads| offloads.generic_receive || offloads.segmentation);
    if larger.is_empty() {
        return Finding::good(check, "packets are captured as they are on the cable");
    }
    Finding::good(
        check,
        format!(
            "{larger}: packets of up to 64 KiB and unfinished checksums are normal there (GRO, TSO), and marked in \
             exports; to see them as on the cable: ethtool -K NAME gro off gso off tso off"
        ),
    )
}

/// The quality of the clock decides that of all times.
fn clock() -> Finding {
    let check = "clock";
    let source = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let source = source.as_deref().unwrap_or("unknown").trim();
    // Reading these takes a microsecond and more, and the kernel does it for each packet.
    if ["hpet", "acpi_pm", "jiffies"].contains(&source) {
        let found = format!("the clock source {source} is slow to read, or coarse");
        return Finding::warning(
            check,
            found,
            "see `dmesg | grep -i tsc` for why the kernel does not use a better one",
        );
    }
    match sys::clock_is_synchronised() {
        Ok(true) => Finding::good(check, format!("the clock is synchronised (source {source})")),
        Ok(false) => Finding::warning(
            check,
            "the clock is not synchronised: times will not match those of other hosts",
            "run chrony or systemd-timesyncd; look at `timedatectl`",
        ),
        Err(error) => {
            Finding::warning(check, format!("the state of the clock cannot be read: {error}"), "see timedatectl")
        }
    }
}

/// Tries what the start does with privileges, on a thread.
fn user(settings: &Settings) -> Finding {
    let check = "user";
    let create = format!(
        "useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {}",
        privileges::DEFAULT_NAME
    );
    let plan = match PrivilegePlan::new(settings.user.as_deref(), settings.no_drop_privileges) {
        Ok(plan) => plan,
        Err(ref error @ privileges::Error::CannotSwitch { remedy, .. }) => {
            return Finding::error(check, error.to_string(), remedy);
        }
        Err(error) => return Finding::error(check, error.to_string(), create),
    };
    let remedy = plan.remedy().unwrap_or("allow the container or the unit to drop privileges (CAP_SETUID, CAP_SETGID)");
    if settings.no_drop_privileges {
        return Finding::warning(check, "privileges are kept", "remove no-drop-privileges");
    }
    match plan.rehearse() {
        Err(error) => Finding::error(check, error.to_string(), remedy),
        Ok(report) if !report.kept.is_empty() => Finding::warning(
            check,
            format!("it records, but a privilege cannot be dropped here: {}", report.kept.join("; ")),
            remedy,
        ),
        Ok(_) => match plan.owner() {
            Some((uid, gid)) => Finding::good(check, format!("becomes uid {uid}, gid {gid}, without capabilities")),
            None if getuid().is_root() => Finding::warning(
                check,
                format!("there is no user {}: it stays root, though without capabilities", privileges::DEFAULT_NAME),
                create,
            ),
            None => Finding::good(check, format!("stays uid {}", getuid())),
        },
    }
}

fn readers() -> Finding {
    let name = privileges::DEFAULT_NAME;
    match privileges::readers() {
        Ok(Some(gid)) => Finding::good("readers", format!("members of the group {name} (gid {gid}) may read")),
        Ok(None) => {
            let advice = format!("groupadd --system {name}, then usermod -aG {name} NAME");
            Finding::warning(
                "readers",
                format!("there is no group {name}: only root and the recorder's user may read"),
                advice,
            )
        }
        Err(error) => Finding::warning("readers", error.to_string(), format!("groupadd --system {name}")),
    }
}

fn kernel(settings: &Settings) -> Vec<Finding> {
    let required = settings.sandbox == sandbox::SandboxMode::Required;
    let lacking = |check, found: String, advice: &str| match required {
        true => Finding::error(check, found, format!("{advice}; or set sandbox to \"best-effort\"")),
        false => Finding::warning(check, found, advice),
    };
    if settings.sandbox == sandbox::SandboxMode::Off {
        return vec![Finding::warning("sandbox", "the sandbox is off", "set sandbox to \"best-effort\"")];
    }
    let seccomp = match sandbox::try_seccomp() {
        Ok(()) => Finding::good("seccomp", "system calls can be filtered (seccomp)"),
        Err(error) => lacking(
            "seccomp",
            format!("the kernel does not filter system calls (seccomp): {error}"),
            "use a kernel from 4.14 on, and allow seccomp(2) in the container",
        ),
    };
    let landlock = match sandbox::files::version() {
        0 => lacking(
            "landlock",
            "the kernel has no Landlock, so files are restricted by their permissions alone".to_owned(),
            "use a kernel from 5.13 on, with landlock in /sys/kernel/security/lsm (kernel parameter lsm=)",
        ),
        version if version < sandbox::files::VERSION_WANTED => lacking(
            "landlock",
            format!("the kernel's Landlock is version {version}, which restricts files but not all else"),
            "use a kernel from 6.12 on",
        ),
        version => {
            Finding::good("landlock", format!("files, ports and signals can be restricted (Landlock {version})"))
        }
    };
    vec![seccomp, landlock]
}

/// Whether the configuration can be read again without privileges.
fn reload(settings: &Settings) -> Option<Finding> {
    let check = "reload";
    let file = settings.file.as_ref()?;
    let shown = file.display();
    let metadata = fs::metadata(file).ok()?;
    let plan = PrivilegePlan::new(settings.user.as_deref(), settings.no_drop_privileges).ok();
    if let Some((uid, gid)) = plan.and_then(|plan| plan.owner())
        && !readable(&metadata, uid, &[Some(gid), privileges::readers().ok().flatten()])
    {
        let found = format!("{shown} cannot be read by uid {uid}, gid {gid}, so SIGHUP will not reload it");
        let advice = format!("chgrp {} {shown} && chmod 640 {shown}", privileges::DEFAULT_NAME);
        return Some(Finding::warning(check, found, advice));
    }
    let shared = ["/", "/etc", "/root", "/home", "/tmp", "/usr", "/var", "/run"];
    let directory = fs::canonicalize(file).ok()?;
    let directory = directory.parent()?;
    if shared.iter().any(|shared| directory == Path::new(shared)) {
        let found = format!("{shown} is in {}, so that the recorder can read everything there", directory.display());
        return Some(Finding::warning(check, found, "give it a directory of its own, for example /etc/retrocap"));
    }
    Some(Finding::good(check, format!("SIGHUP reads {shown} again")))
}

fn readable(file: &fs::Metadata, uid: u32, groups: &[Option<u32>]) -> bool {
    match file {
        _ if file.uid() == uid => file.mode() & 0o400 != 0,
        _ if groups.contains(&Some(file.gid())) => file.mode() & 0o040 != 0,
        _ => file.mode() & 0o004 != 0,
    }
}

/// The certificates, if TLS is served.
fn certificates(settings: &Settings) -> Option<Finding> {
    let check = "certificates";
    if !listeners::need_certificates(settings) {
        return None;
    }
    Some(match listeners::keys(settings) {
        Ok(_) => Finding::good(check, format!("the recorder presents {}", settings.cert.display())),
        Err(error) => Finding::error(
            check,
            error.to_string(),
            "make them with `retrocap certs server NAME ADDRESS`, or name others with ca, cert and key",
        ),
    })
}

fn pcap_over_ip(address: SocketAddr, settings: &Settings) -> Finding {
    let who = if listeners::feed_is_encrypted(settings, address) {
        "clients with certificates and the role packets"
    } else {
        "every user of this host"
    };
    Finding::good("pcap-over-ip", format!("{who} can read all packets on {address}"))
}

fn socket(socket: &Path) -> Finding {
    let check = "disk";
    let mut directory = socket.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    while !directory.exists() {
        let Some(parent) = directory.parent() else { break };
        directory = parent;
    }
    let shown = directory.display();
    let rights = rustix::fs::access(directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
    if let Err(error) = rights {
        let advice = "run as root, or choose another place with socket";
        return Finding::error(check, format!("the socket cannot be made in {shown}: {error}"), advice);
    }
    match rustix::fs::statvfs(directory) {
        Ok(disk) if disk.f_files > 0 && disk.f_favail == 0 || disk.f_bavail == 0 => Finding::error(
            check,
            format!("the disk of {shown} is full"),
            "make room, or choose another place with socket",
        ),
        Ok(disk) => Finding::good(
            check,
            format!("{} are free in {shown} for the socket", ByteSize(disk.f_bavail.saturating_mul(disk.f_frsize))),
        ),
        Err(error) => {
            Finding::warning(check, format!("the disk of {shown} does not say how full it is: {error}"), "see df")
        }
    }
}
