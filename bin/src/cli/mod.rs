//! The command line: which command is meant, help, and what to do with it.
//!
//! Exit codes are Consul's: 127 without a command or with an unknown one, 1 for errors, 0 for help.

pub mod command;
mod completion;
mod files;
pub mod flags;
mod help;
mod later;
mod nearest;
pub mod progress;
mod table;

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};

use clap::{ArgMatches, Command};

pub use command::{Failure, OrFail, Run, fail, no_arguments};
pub(crate) use files::ConfigFiles;
pub use table::{Action, Entry};

/// What a command talks to: the user, and the environment.
pub struct Terminal<'a> {
    /// The name under which the program was called.
    pub program: String,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    /// Standard input.
    pub input: &'a mut dyn Read,
    /// Environment variables.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Whether somebody looks at standard error: then there is progress to see.
    pub err_is_terminal: bool,
    /// Whether errors are coloured.
    pub colours: bool,
}

impl Terminal<'_> {
    /// Prints a line on standard output. A reader that went away is no concern of ours.
    pub fn say(&mut self, line: impl AsRef<[u8]>) {
        let _ = self.out.write_all(line.as_ref()).and_then(|()| self.out.write_all(b"\n"));
    }

    /// Prints a line on standard error.
    pub fn complain(&mut self, line: impl AsRef<[u8]>) {
        let _ = self.err.write_all(line.as_ref()).and_then(|()| self.err.write_all(b"\n"));
    }

    /// Prints an error on standard error.
    pub fn accuse(&mut self, line: impl AsRef<[u8]>) {
        if self.colours {
            self.complain([b"\x1b[31m", line.as_ref(), b"\x1b[0m"].concat());
        } else {
            self.complain(line);
        }
    }

    /// Prints an error on standard error, and ends with status 1.
    pub fn fail(&mut self, line: impl AsRef<[u8]>) -> u8 {
        self.accuse(line);
        1
    }
}

/// The name to show in help texts.
#[must_use]
pub fn program_name(arg0: Option<&OsStr>) -> String {
    let name = arg0.and_then(|arg0| std::path::Path::new(arg0).file_name());
    name.map_or_else(|| "proconsul".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Runs the command that `args` (without the program's name) ask for, and returns the exit status.
pub fn run(args: &[OsString], terminal: &mut Terminal<'_>) -> u8 {
    if let Some(line) = (terminal.env)("COMP_LINE") {
        // A shell asks what may follow.
        let point = (terminal.env)("COMP_POINT").and_then(|point| point.parse().ok()).unwrap_or(line.len());
        for candidate in completion::candidates(line.get(..point).unwrap_or(&line)) {
            terminal.say(candidate);
        }
        return 0;
    }
    let before_dashes = || args.iter().take_while(|arg| *arg != "--");
    let wants_help = before_dashes().any(|arg| arg == "-h" || arg == "-help" || arg == "--help");
    let Some(first) = args.first() else {
        let text = help::top(&terminal.program);
        terminal.complain(text);
        return 127;
    };
    let (entry, rest) = find(args);
    let Some(entry) = entry else {
        let version = ["-v", "-version", "--version"].iter().any(|v| first == v);
        let is_flag = first.as_encoded_bytes().starts_with(b"-");
        if wants_help && is_flag {
            let text = help::top(&terminal.program);
            terminal.say(text);
            return 0;
        }
        if version {
            crate::commands::version::print(terminal);
            return 0;
        }
        if let Some(on) = ["-autocomplete-install", "-autocomplete-uninstall"]
            .iter()
            .position(|flag| first == flag || first.to_str() == Some(&format!("-{flag}")))
        {
            return completion::install(on == 0, terminal);
        }
        if is_flag {
            return terminal.fail(
                "Invalid flags before the subcommand. If these flags are for\n\
                 the subcommand, please put them after the subcommand.",
            );
        }
        let text = help::top(&terminal.program);
        terminal.complain(text);
        propose(first, "", terminal);
        return 127;
    };
    if wants_help {
        let text = help::of(entry, &terminal.program);
        terminal.say(text);
        return 0;
    }
    match entry.action {
        Action::Group { .. } => {
            let text = help::of(entry, &terminal.program);
            terminal.complain(text);
            if let Some(written) = rest.first() {
                propose(written, &format!("{} ", entry.path), terminal);
            }
            1
        }
        Action::Later { .. } => {
            terminal.fail(format!("Error! {:?} is not available in this version yet", entry.path))
        }
        Action::Run { command, run } => match flags::parse(command(), rest) {
            Ok(matches) => run(&matches, terminal),
            Err(reason) => {
                let meant = reason.strip_prefix("flag provided but not defined: -").and_then(|written| {
                    let command = command();
                    let known: Vec<String> =
                        command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect();
                    nearest::nearest(written, known.iter().map(String::as_str)).map(str::to_owned)
                });
                terminal.accuse(reason);
                if let Some(meant) = meant {
                    terminal.complain(format!("did you mean -{meant}?"));
                }
                let text = format!("\nFor the flags of this command: {} {} -h", terminal.program, entry.path);
                terminal.complain(text);
                // There, 1 is an answer.
                if entry.path == "intention check" { 2 } else { 1 }
            }
        },
    }
}

/// Says which command may have been meant, if there is one.
fn propose(written: &OsStr, inside: &str, terminal: &mut Terminal<'_>) {
    let known = table::entries().filter_map(|entry| entry.path.strip_prefix(inside));
    let known = known.filter(|name| !name.contains(' '));
    if let Some(meant) = nearest::nearest(&written.to_string_lossy(), known) {
        terminal.complain(format!("\ndid you mean {:?}?", format!("{inside}{meant}")));
    }
}

/// The help text of a command.
pub(crate) fn usage(path: &str, program: &str) -> String {
    let entry = table::entries().find(|entry| entry.path == path);
    help::of(entry.expect("commands ask for their own text"), program)
}

/// The longest command that `args` begin with, and the arguments after it.
fn find(args: &[OsString]) -> (Option<&'static Entry>, &[OsString]) {
    let mut path = String::new();
    let mut best = (None, args);
    for (at, arg) in args.iter().enumerate() {
        let Some(word) = arg.to_str().filter(|word| !word.starts_with('-')) else { break };
        if at > 0 {
            path.push(' ');
        }
        path.push_str(word);
        match table::entries().find(|entry| entry.path == path) {
            Some(entry) => best = (Some(entry), &args[at + 1..]),
            None => break,
        }
    }
    best
}

/// Reads a derived set of arguments out of clap's matches.
pub fn typed<T: clap::FromArgMatches>(matches: &ArgMatches) -> T {
    T::from_arg_matches(matches).expect("the matches come from the command that the type itself described")
}

/// The clap command of a derived set of arguments.
#[must_use]
pub fn command_of<T: clap::Args>() -> Command {
    T::augment_args(Command::new("command"))
}

#[cfg(test)]
mod tests;
