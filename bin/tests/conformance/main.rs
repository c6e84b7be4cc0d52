//! The HTTP and DNS interfaces against answers that Consul gave, recorded in `cases`.
//!
//! Every case gets agents of its own, on ports that were free a moment before; they are ended by their ids. Set
//! `PROCONSUL_CONFORMANCE_FILTER` to play only the cases whose file contains it:
//!
//! ```sh
//! PROCONSUL_CONFORMANCE_FILTER=kv/ cargo test -p proconsul --test conformance -- --nocapture
//! ```

mod case;
mod comparison;
mod dns;
mod exceptions;
mod ground;
mod paths;
mod player;
mod rules;
mod stub;
mod suite;
mod wire;

use ground::Kind;

#[test]
fn a_dev_agent_answers_as_recorded() {
    suite::play_all(Kind::Dev);
}

#[test]
fn a_client_agent_of_three_servers_answers_as_recorded() {
    suite::play_all(Kind::Client);
}

#[test]
fn a_dev_agent_answers_dns_questions_as_recorded() {
    dns::play_all();
}
