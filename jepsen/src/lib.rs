//! Histories of concurrent clients, and checkers that say whether a history keeps the promises of the store.
//!
//! The simulator's workloads and the harness for real processes record the same [`history::History`] and hand it to
//! the same checkers. A checker never guesses: what it cannot decide within its budget is
//! [`verdict::Verdict::Undecided`], which counts as a failure.
//!
//! | Module | Promise |
//! |---|---|
//! | [`linearizability`] | every key is a linearizable register with compare-and-set by modify index |
//! | [`index_order`] | the modify indexes that clients saw are one order of all changes, in agreement with real time |
//! | [`sessions`] | a session outlives its TTL, and what has ended stays ended |
//! | [`locks`] | a lock has one holder, fencing numbers grow, lock-delay is waited out |
//! | [`serializability`] | transactions, readings of prefixes and restores happen at once, in one order with all else |
//! | [`sets`] | what was added to a set is there, and nothing else |
//! | [`stale`] | a stale reading shows a state that the key had, no older than it says |
//! | [`fencing`] | no write in the name of a lock's holder follows one of a later holder |
//! | [`watches`] | a watcher misses no last state and its index never goes backwards |
//! | [`views`] | so it is with prefixes and parts of the catalog |
//! | [`catalog`] | the catalog shows what was registered, once each, and in the end nothing else |
//!
//! [`suite`] runs all that fit a history.

pub mod catalog;
pub mod fencing;
pub mod history;
pub mod index_order;
pub mod linearizability;
pub mod locks;
pub mod process;
pub mod report;
pub mod serializability;
pub mod sessions;
pub mod sets;
pub mod stale;
pub mod suite;
pub mod verdict;
pub mod views;
pub mod watches;
pub mod workload;
