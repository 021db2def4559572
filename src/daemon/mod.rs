//! The daemon.

#[cfg(target_os = "linux")]
pub mod privileges;
