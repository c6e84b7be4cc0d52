//! The program: everything is in the library beside it.

use std::ffi::OsString;
use std::process::ExitCode;

use proconsul::cli;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next();
    let args: Vec<OsString> = args.collect();
    let (mut out, mut err, mut input) = (std::io::stdout(), std::io::stderr(), std::io::stdin());
    let mut terminal = cli::Terminal {
        program: cli::program_name(program.as_deref()),
        out: &mut out,
        err: &mut err,
        input: &mut input,
        env: &|name| std::env::var(name).ok(),
    };
    ExitCode::from(cli::run(&args, &mut terminal))
}
