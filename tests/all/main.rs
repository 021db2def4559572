//! The tests that use real parts: files, sockets, namespaces, tshark, tcpdump. One module per subject.

#[cfg(target_os = "linux")]
mod alerts;
mod annotated;
#[cfg(target_os = "linux")]
mod apps;
mod capture_files;
#[cfg(target_os = "linux")]
mod check;
mod cli;
#[cfg(target_os = "linux")]
mod complexity;
mod decode;
mod documents;
#[cfg(target_os = "linux")]
mod encrypted_spool;
mod etl;
mod filters;
mod generate;
#[cfg(target_os = "linux")]
mod habits;
mod handover;
mod honest;
#[cfg(target_os = "linux")]
mod hostile_again;
#[cfg(target_os = "linux")]
mod hostile_names;
mod hostile_recorder;
mod house;
#[cfg(target_os = "linux")]
mod hunting;
#[cfg(target_os = "linux")]
mod hunting_with;
#[cfg(target_os = "linux")]
mod hunting_yara;
mod keeping;
#[cfg(target_os = "linux")]
mod live;
mod machine;
#[cfg(target_os = "linux")]
mod namespaces;
#[cfg(target_os = "linux")]
mod narrowed;
#[cfg(target_os = "linux")]
mod page;
#[cfg(target_os = "linux")]
mod recorder;
mod replay;
#[cfg(target_os = "linux")]
mod schema;
#[cfg(target_os = "linux")]
mod seeds;
mod servers;
#[cfg(target_os = "linux")]
mod service;
#[cfg(target_os = "linux")]
mod session_log;
#[cfg(target_os = "linux")]
mod shells;
mod text;
#[cfg(target_os = "linux")]
mod views;
mod washing_out;
