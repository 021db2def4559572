//! The tests that use the real parts: files, sockets, namespaces, tshark, tcpdump. One module a subject.

mod filters;
mod capture_files;
#[cfg(target_os = "linux")]
mod live;
#[cfg(target_os = "linux")]
mod namespaces;
mod text;
