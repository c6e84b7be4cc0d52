//! The `proconsul` program: the agent and the commands that talk to one.
//!
//! It answers to Consul's command line; a link or copy named `consul` behaves the same and shows that name in its help.

pub mod banner;
mod base64;
pub mod child;
pub mod cli;
pub mod client;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod lock;
pub mod log;
pub mod remote;
pub mod session;
pub mod watch;
pub mod x509;
