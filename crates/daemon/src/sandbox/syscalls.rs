//! System calls that a thread may make, by its role (seccomp(2)).
//!
//! Three filters apply to the whole process once privileges are dropped. Each thread adds the filter of its role, which can
//! only forbid more:
//!
//! - Calls that no part of this program makes, but that an attacker makes first (starting a program, reading another
//!   process's memory, mounts, modules, users), kill the process. Such a call proves that the process is compromised, and the
//!   supervisor starts a clean one.
//! - Any other call that is not listed fails with `EPERM` and becomes an error where it was made. A worker or a service that
//!   cannot go on ends the recorder (see [`daemon`](crate)).
//! - `clone3(2)` fails with `ENOSYS`, because no filter can see its flags, which are in memory. The C library then uses
//!   `clone(2)`, which is allowed for threads only.
//!
//! To allow a call, add it to the narrowest list below that needs it. The filters of all threads follow from the lists.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::role::Role;

/// A call that is allowed: always, or with these arguments only.
#[derive(Clone, Copy, Debug)]
enum AllowedCall {
    Call(libc::c_long),
    When(libc::c_long, &'static [Argument]),
}

/// The required value of the lower 32 bits of an argument.
#[derive(Clone, Copy, Debug)]
enum Argument {
    Is(u8, u64),
    /// The bits of the mask (second) have these values (third).
    Bits(u8, u64, u64),
    /// The process's own ID.
    Own(u8),
}

use AllowedCall::{Call, When};
use Argument::{Bits, Is, Own};

/// Memory must not become executable.
const NOT_EXECUTABLE: &[Argument] = &[Bits(2, libc::PROT_EXEC as u64, 0)];
const READ_ONLY: &[Argument] =
    &[Bits(2, (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND) as u64, libc::O_RDONLY as u64)];
const NEW_THREAD: &[Argument] = &[Bits(0, libc::CLONE_THREAD as u64, libc::CLONE_THREAD as u64)];
/// `SIOCGIFNAME`
const INTERFACE_NAME: &[Argument] = &[Is(1, 0x8910)];
/// `PR_SET_VMA`: newer C libraries name their mappings.
const PR_SET_VMA: u64 = 0x5356_4d41;

/// What the run time of Rust and of the C library needs in any thread: memory, locks, clocks, exit.
const ALL_THREADS: &[AllowedCall] = &[
    Call(libc::SYS_brk),
    Call(libc::SYS_clock_getres),
    Call(libc::SYS_clock_gettime),
    Call(libc::SYS_clock_nanosleep),
    Call(libc::SYS_close),
    Call(libc::SYS_exit),
    Call(libc::SYS_exit_group),
    Call(libc::SYS_fstat),
    Call(libc::SYS_futex),
    Call(libc::SYS_getegid),
    Call(libc::SYS_geteuid),
    Call(libc::SYS_getgid),
    Call(libc::SYS_getpid),
    Call(libc::SYS_getpriority),
    Call(libc::SYS_getrandom),
    Call(libc::SYS_getrusage),
    Call(libc::SYS_gettid),
    Call(libc::SYS_gettimeofday),
    Call(libc::SYS_getuid),
    Call(libc::SYS_lseek),
    Call(libc::SYS_madvise),
    Call(libc::SYS_membarrier),
    When(libc::SYS_mmap, NOT_EXECUTABLE),
    When(libc::SYS_mprotect, NOT_EXECUTABLE),
    Call(libc::SYS_mremap),
    Call(libc::SYS_munmap),
    Call(libc::SYS_nanosleep),
    #[cfg(target_arch = "x86_64")]
    Call(libc::SYS_poll),
    Call(libc::SYS_ppoll),
    When(libc::SYS_prctl, &[Is(0, libc::PR_SET_NAME as u64)]),
    When(libc::SYS_prctl, &[Is(0, PR_SET_VMA)]),
    Call(libc::SYS_pread64),
    Call(libc::SYS_read),
    Call(libc::SYS_readv),
    Call(libc::SYS_restart_syscall),
    Call(libc::SYS_rseq),
    Call(libc::SYS_rt_sigaction),
    Call(libc::SYS_rt_sigprocmask),
    Call(libc::SYS_rt_sigreturn),
    Call(libc::SYS_sched_getaffinity),
    Call(libc::SYS_sched_yield),
    Call(libc::SYS_set_robust_list),
    Call(libc::SYS_sigaltstack),
    Call(libc::SYS_sysinfo),
    When(libc::SYS_tgkill, &[Own(0)]),
    Call(libc::SYS_uname),
    Call(libc::SYS_write),
    Call(libc::SYS_writev),
];

/// Rings, open capture files, compression.
const CAPTURE: &[AllowedCall] = &[
    Call(libc::SYS_getsockopt),
    When(libc::SYS_ioctl, INTERFACE_NAME),
    Call(libc::SYS_sched_setattr),
    Call(libc::SYS_sched_setscheduler),
    Call(libc::SYS_setpriority),
    When(libc::SYS_setsockopt, &[Is(1, libc::SOL_SOCKET as u64), Is(2, libc::SO_ATTACH_FILTER as u64)]),
    When(libc::SYS_setsockopt, &[Is(1, libc::SOL_SOCKET as u64), Is(2, libc::SO_DETACH_FILTER as u64)]),
    When(libc::SYS_setsockopt, &[Is(1, libc::SOL_PACKET as u64), Is(2, libc::PACKET_ADD_MEMBERSHIP as u64)]),
    When(libc::SYS_setsockopt, &[Is(1, libc::SOL_PACKET as u64), Is(2, libc::PACKET_DROP_MEMBERSHIP as u64)]),
];

/// Asking the kernel for its interfaces.
const INTERFACES: &[AllowedCall] = &[
    Call(libc::SYS_bind),
    Call(libc::SYS_getsockname),
    Call(libc::SYS_recvfrom),
    Call(libc::SYS_recvmsg),
    Call(libc::SYS_sendto),
    When(libc::SYS_setsockopt, &[Is(1, libc::SOL_SOCKET as u64), Is(2, libc::SO_RCVBUF as u64)]),
    When(libc::SYS_setsockopt, &[Is(1, libc::SOL_SOCKET as u64), Is(2, libc::SO_RCVTIMEO as u64)]),
    When(libc::SYS_setsockopt, &[Is(1, libc::SOL_SOCKET as u64), Is(2, libc::SO_RCVTIMEO_NEW as u64)]),
    When(libc::SYS_socket, &[Is(0, libc::AF_NETLINK as u64)]),
];

/// Reading files. Names in expressions (`port domain`) are resolved from files under `/etc`, whenever a filter is compiled for
/// a new link type.
const READING: &[AllowedCall] = &[
    #[cfg(target_arch = "x86_64")]
    When(libc::SYS_open, &[Bits(1, (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND) as u64, 0)]),
    Call(libc::SYS_newfstatat),
    When(libc::SYS_openat, READ_ONLY),
    Call(libc::SYS_statx),
];

/// Lowering a priority; raising it needs a privilege that is gone. Threads of queries are started by those of the service, whose
/// filter they keep.
const LOWER_PRIORITY: &[AllowedCall] = &[When(libc::SYS_setpriority, &[Is(0, libc::PRIO_PROCESS as u64), Is(1, 0)])];

/// Connections, over TLS too, and new threads for queries.
const SERVE: &[AllowedCall] = &[
    Call(libc::SYS_accept4),
    // The state of the clock. Setting it needs a privilege that is gone.
    Call(libc::SYS_adjtimex),
    Call(libc::SYS_clock_adjtime),
    When(libc::SYS_clone, NEW_THREAD),
    Call(libc::SYS_clone3),
    Call(libc::SYS_dup),
    Call(libc::SYS_epoll_create1),
    Call(libc::SYS_epoll_ctl),
    Call(libc::SYS_epoll_pwait),
    Call(libc::SYS_epoll_pwait2),
    #[cfg(target_arch = "x86_64")]
    Call(libc::SYS_epoll_wait),
    Call(libc::SYS_eventfd2),
    Call(libc::SYS_fcntl),
    Call(libc::SYS_getpeername),
    Call(libc::SYS_getsockname),
    Call(libc::SYS_getsockopt),
    When(libc::SYS_ioctl, &[Is(1, libc::FIONBIO)]),
    // The port of the page, which is bound before: a thread in this role cannot make or bind another socket.
    Call(libc::SYS_listen),
    Call(libc::SYS_recvfrom),
    Call(libc::SYS_recvmsg),
    Call(libc::SYS_sendmsg),
    Call(libc::SYS_sendto),
    When(libc::SYS_setsockopt, &[Is(1, libc::SOL_SOCKET as u64)]),
    When(libc::SYS_setsockopt, &[Is(1, libc::IPPROTO_TCP as u64)]),
    Call(libc::SYS_shutdown),
    // Each thread installs the filter of its role itself.
    When(libc::SYS_prctl, &[Is(0, libc::PR_SET_NO_NEW_PRIVS as u64)]),
    When(libc::SYS_seccomp, &[Is(0, libc::SECCOMP_SET_MODE_FILTER as u64)]),
];

/// Creating, appending to and renaming files of the audit log; Landlock says which.
const FILES: &[AllowedCall] = &[
    Call(libc::SYS_fdatasync),
    Call(libc::SYS_fsync),
    Call(libc::SYS_ftruncate),
    Call(libc::SYS_openat),
    #[cfg(target_arch = "x86_64")]
    Call(libc::SYS_rename),
    Call(libc::SYS_renameat),
    Call(libc::SYS_renameat2),
];

/// Writing and removing files of the spool; Landlock says in which directory.
const SPOOL: &[AllowedCall] = &[
    When(libc::SYS_fcntl, &[Is(1, libc::F_GETFD as u64)]),
    When(libc::SYS_fcntl, &[Is(1, libc::F_GETFL as u64)]),
    Call(libc::SYS_fdatasync),
    Call(libc::SYS_fsync),
    Call(libc::SYS_fstatfs),
    Call(libc::SYS_ftruncate),
    Call(libc::SYS_getdents64),
    Call(libc::SYS_mkdirat),
    Call(libc::SYS_openat),
    Call(libc::SYS_pwrite64),
    #[cfg(target_arch = "x86_64")]
    Call(libc::SYS_rename),
    Call(libc::SYS_renameat),
    Call(libc::SYS_renameat2),
    Call(libc::SYS_unlinkat),
];

/// Creating the files of objects; Landlock says in which directory.
const DECODE: &[AllowedCall] = &[Call(libc::SYS_newfstatat), Call(libc::SYS_openat), Call(libc::SYS_statx)];

/// The first thread, beyond all others: it starts and ends them, receives signals, and notifies the supervisor.
const MAIN: &[AllowedCall] = &[
    Call(libc::SYS_connect),
    Call(libc::SYS_dup3),
    Call(libc::SYS_fallocate),
    Call(libc::SYS_fchmod),
    Call(libc::SYS_flock),
    Call(libc::SYS_fstatfs),
    Call(libc::SYS_getdents64),
    // The history is handed over in files in memory.
    Call(libc::SYS_memfd_create),
    Call(libc::SYS_pipe2),
    When(libc::SYS_prctl, &[Is(0, libc::PR_GET_DUMPABLE as u64)]),
    When(libc::SYS_socket, &[Is(0, libc::AF_UNIX as u64)]),
    Call(libc::SYS_pwrite64),
    Call(libc::SYS_socketpair),
    Call(libc::SYS_statfs),
    #[cfg(target_arch = "x86_64")]
    Call(libc::SYS_unlink),
    Call(libc::SYS_unlinkat),
    Call(libc::SYS_wait4),
];

/// Calls that kill the process.
const KILL_PROCESS: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_userfaultfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_open_by_handle_at,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Calls that make a connection.
const NO_SOCKETS: &[libc::c_long] = &[
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
];

/// The lists of each role. A thread of a query is started by one of the service and keeps its filter, so that its lists must
/// be among those of the service.
fn lists(role: Role) -> &'static [&'static [AllowedCall]] {
    match role {
        Role::Capture => &[ALL_THREADS, CAPTURE, READING],
        Role::Interfaces => &[ALL_THREADS, INTERFACES],
        Role::Query => &[ALL_THREADS, READING, LOWER_PRIORITY],
        Role::Serve => &[ALL_THREADS, READING, LOWER_PRIORITY, SERVE],
        Role::Audit => &[ALL_THREADS, READING, FILES],
        Role::Spool => &[ALL_THREADS, READING, SPOOL],
        Role::Decode => &[ALL_THREADS, DECODE],
        Role::Main => &[ALL_THREADS, CAPTURE, INTERFACES, READING, SERVE, FILES, SPOOL, MAIN],
    }
}

/// The filter that a thread adds.
pub(super) fn role(role: Role) -> io::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut always = Vec::new();
    for allow in lists(role).iter().copied().flatten() {
        match *allow {
            Call(call) => always.push(call),
            When(call, arguments) => {
                let conditions = arguments.iter().map(|argument| condition(*argument)).collect::<io::Result<_>>()?;
                rules.entry(call).or_default().push(SeccompRule::new(conditions).map_err(io::Error::other)?);
            }
        }
    }
    // A call without rules is allowed with any arguments.
    always.into_iter().for_each(|call| drop(rules.insert(call, Vec::new())));
    program(rules, SeccompAction::Errno(libc::EPERM.unsigned_abs()), SeccompAction::Allow)
}

/// The filters that hold for all threads, in the order in which they are to be installed.
pub(super) fn all_threads() -> io::Result<Vec<BpfProgram>> {
    let those = |calls: &[libc::c_long]| calls.iter().map(|call| (*call, Vec::new())).collect();
    Ok(vec![
        program(those(KILL_PROCESS), SeccompAction::Allow, SeccompAction::KillProcess)?,
        program(those(&[libc::SYS_clone3]), SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS.unsigned_abs()))?,
        role(Role::Main)?,
    ])
}

/// The filters of a process that decodes content for a client.
pub(super) fn decoder() -> io::Result<Vec<BpfProgram>> {
    let kill = KILL_PROCESS.iter().map(|call| (*call, Vec::new())).collect();
    Ok(vec![program(kill, SeccompAction::Allow, SeccompAction::KillProcess)?, role(Role::Decode)?])
}

/// The filters of a process that becomes another program: it has no socket, and no call that attackers make first, but those
/// that start a program.
pub(super) fn scanner() -> io::Result<Vec<BpfProgram>> {
    let starts = [libc::SYS_execve, libc::SYS_execveat];
    let kill = KILL_PROCESS.iter().filter(|call| !starts.contains(call)).map(|call| (*call, Vec::new())).collect();
    let refuse = NO_SOCKETS.iter().map(|call| (*call, Vec::new())).collect();
    Ok(vec![
        program(refuse, SeccompAction::Allow, SeccompAction::Errno(libc::EACCES.unsigned_abs()))?,
        program(kill, SeccompAction::Allow, SeccompAction::KillProcess)?,
    ])
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> io::Result<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|_| io::ErrorKind::Unsupported)?;
    let filter = SeccompFilter::new(rules, otherwise, matched, arch).map_err(io::Error::other)?;
    filter.try_into().map_err(io::Error::other)
}

fn condition(argument: Argument) -> io::Result<SeccompCondition> {
    let (index, operator, value) = match argument {
        Is(index, value) => (index, SeccompCmpOp::Eq, value),
        Bits(index, mask, value) => (index, SeccompCmpOp::MaskedEq(mask), value),
        Own(index) => (index, SeccompCmpOp::Eq, u64::from(std::process::id())),
    };
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value).map_err(io::Error::other)
}
