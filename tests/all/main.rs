//! The tests that use the real parts: files, sockets, namespaces, tshark, tcpdump. One module a subject.

mod filters;
#[cfg(target_os = "linux")]
mod service;
