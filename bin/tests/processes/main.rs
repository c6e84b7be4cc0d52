//! Agents as real processes: what an operator sees when they are started, killed, stopped, misconfigured and asked.
//!
//! Everything stays on loopback, on ports that were free a moment before; every process is ended by its id, and every
//! directory is removed, when the value that stands for it goes out of scope. Nothing waits for a duration where it
//! could wait for a condition.

mod cache;
mod checks;
mod cli;
mod clients;
mod command_lines;
mod discovery;
mod events;
mod failover;
mod federation;
mod front;
mod full;
mod hostile;
mod kills;
mod leaving;
mod locks;
mod moving;
mod names;
mod operators;
mod refusals;
mod remote;
mod resolvers;
mod restarts;
mod signals;
mod snapshots;
mod support;
mod template;
mod tour;
mod watches;
mod wiped;
