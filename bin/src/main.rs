//! The program: everything is in the library beside it.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use proconsul::{child, cli};

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next();
    let args: Vec<OsString> = args.collect();
    if let Some(status) = child::stand_in(&args) {
        return ExitCode::from(status);
    }
    let (mut out, mut err, mut input) = (std::io::stdout(), std::io::stderr(), std::io::stdin());
    let err_is_terminal = err.is_terminal();
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let mut terminal = cli::Terminal {
        program: cli::program_name(program.as_deref()),
        out: &mut out,
        err: &mut err,
        input: &mut input,
        env: &|name| std::env::var(name).ok(),
        err_is_terminal,
        colours: err_is_terminal
            && !is_set("NO_COLOR")
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
    };
    ExitCode::from(cli::run(&args, &mut terminal))
}
