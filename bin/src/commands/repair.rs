//! `operator raft repair`: a server whose log cannot be used begins anew.

use std::path::Path;

use clap::{ArgMatches, Args, Command};
use proconsul_io_real::files::DataDir;
use proconsul_io_real::owner;

use crate::cli::{Terminal, command_of, typed};
use crate::daemon::NODE_ID_FILE;

#[derive(Args)]
struct Options {
    /// Data directory of the server. No agent may run on it.
    #[arg(long, value_name = "path", default_value = "")]
    data_dir: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Flags of `operator raft repair`.
#[must_use]
pub fn command() -> Command {
    command_of::<Options>()
}

/// Moves the log, the state and the identity of a server aside.
pub fn run(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: Options = typed(matches);
    if options.data_dir.is_empty() {
        return terminal.fail("Error repairing: -data-dir is required");
    }
    let path = Path::new(&options.data_dir);
    if !path.is_dir() {
        return terminal.fail(format!("Error repairing: {} is no directory", path.display()));
    }
    let taken = match DataDir::take(path) {
        Ok(taken) => taken,
        Err(error) => return terminal.fail(format!("Error repairing: {error}")),
    };
    match owner::set_aside(taken.path(), NODE_ID_FILE) {
        Ok(aside) => {
            terminal.say(report(path, &aside));
            0
        }
        Err(error) => terminal.fail(format!("Error repairing: {error}")),
    }
}

fn report(path: &Path, aside: &owner::Aside) -> String {
    let former = aside.owner.map(|id| id.to_string()).unwrap_or_default();
    let (path, kept) = (path.display(), aside.path.display());
    let mut text = format!(
        "Moved {path}/raft to {kept}, and the identity of the server with it.\n\
         Start the server again: it joins its cluster as a new server, is restored from the others, and votes when \
         it has been healthy for a while."
    );
    if !former.is_empty() {
        text.push_str(&format!(
            "\nThe former one is removed by autopilot once it is replaced, or by: operator raft remove-peer -id={former}"
        ));
    }
    text.push_str(
        "\nA server that has no others begins empty: nothing but a backup of its state can bring that back.\n\
         Remove the directory when the server is well again.",
    );
    text
}
