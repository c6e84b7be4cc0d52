//! The commands.

pub mod agent;
pub mod autopilot;
pub mod catalog;
pub mod config;
pub mod debug;
pub mod doctor;
pub mod event;
pub mod exec;
pub mod info;
pub mod intention;
mod interrupt;
pub mod keygen;
pub mod keyring;
pub mod kv;
pub mod kv_tree;
pub mod lock;
pub mod maint;
pub mod members;
pub mod membership;
pub mod monitor;
pub mod raft;
pub mod reload;
pub mod repair;
pub mod rtt;
pub mod services;
pub mod snapshot;
pub mod table;
pub mod tls;
pub mod usage;
pub mod validate;
pub mod version;
pub mod watch;

/// A name of a file from the bytes of an argument.
fn os_str(bytes: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    std::path::PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}
