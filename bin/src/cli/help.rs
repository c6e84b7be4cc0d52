//! Help texts, with flags in the one-dash style of the command line.

use std::fmt::Write as _;

use clap::{Arg, ArgAction};

use super::table::{self, Action, Entry};

/// Width of option descriptions.
const WIDTH: usize = 76;

/// The list of all commands.
pub(super) fn top(program: &str) -> String {
    let commands = table::entries().filter(|entry| !entry.path.contains(' '));
    format!(
        "Usage: {program} [--version] [--help] <command> [<args>]\n\nAvailable commands are:\n{}",
        list(commands.map(|entry| (entry.path, entry)))
    )
}

/// Help about one command.
pub(super) fn of(entry: &Entry, program: &str) -> String {
    let mut text = format!("Usage: {program} {}\n\n", entry.usage());
    let about = if entry.about.is_empty() { entry.summary } else { entry.about };
    for line in about.replace("PROGRAM", program).lines() {
        let _ = writeln!(text, "{}{line}", if line.is_empty() { "" } else { "  " });
    }
    match entry.action {
        Action::Group { example } => {
            let _ = write!(text, "\n      $ {program} {example}\n");
            subcommands(&mut text, entry);
        }
        Action::Later { example, flags } => {
            let example = format!("{} {example}", entry.path);
            let _ = write!(text, "\n      $ {program} {}\n", example.trim_end());
            text.push_str("\n  This command is not available in this version yet.\n");
            subcommands(&mut text, entry);
            let mut flags: Vec<&str> = flags.iter().copied().flatten().copied().collect();
            flags.sort_unstable();
            if !flags.is_empty() {
                text.push_str("\nOptions, once it is there\n\n");
            }
            for flag in flags {
                let _ = writeln!(text, "  -{flag}");
            }
        }
        Action::Run { command, .. } => {
            let command = command();
            let mut arguments: Vec<&Arg> =
                command.get_arguments().filter(|arg| arg.get_long().is_some()).collect();
            arguments.sort_by_key(|arg| arg.get_long());
            if !arguments.is_empty() {
                text.push_str("\nOptions\n");
            }
            for arg in arguments {
                option(&mut text, arg);
            }
        }
    }
    text.trim_end().to_owned()
}

/// Lists the commands below one, if there are any.
fn subcommands(text: &mut String, entry: &Entry) {
    let inside = format!("{} ", entry.path);
    let members = table::entries().filter_map(|e| {
        let name = e.path.strip_prefix(&inside)?;
        (!name.contains(' ')).then_some((name, e))
    });
    let list = list(members);
    if !list.is_empty() {
        let _ = writeln!(text, "\nSubcommands:\n{list}");
    }
}

fn list<'a>(entries: impl Iterator<Item = (&'a str, &'a Entry)>) -> String {
    let mut entries: Vec<(&str, &Entry)> = entries.collect();
    entries.sort_by_key(|(name, _)| *name);
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, entry) in entries {
        let later = if matches!(entry.action, Action::Later { .. }) { " (not yet)" } else { "" };
        let _ = writeln!(text, "    {name:width$}    {}{later}", entry.summary);
    }
    text.trim_end().to_owned()
}

fn option(text: &mut String, arg: &Arg) {
    let name = arg.get_long().unwrap_or_default();
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue)
        || arg.get_num_args().is_some_and(|n| n.min_values() == 0);
    let value = arg.get_value_names().and_then(|names| names.first()).map_or("value", |name| name.as_str());
    let value = if is_switch { String::new() } else { format!("=<{}>", value.to_lowercase()) };
    let _ = writeln!(text, "\n  -{name}{value}");
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let repeated =
        if matches!(arg.get_action(), ArgAction::Append) { " May be given several times." } else { "" };
    // clap takes the full stop off the end.
    let stop = if help.is_empty() || help.ends_with('.') { "" } else { "." };
    let mut line = String::new();
    for word in format!("{help}{stop}{repeated}").split_whitespace() {
        if !line.is_empty() && line.len() + word.len() + 6 > WIDTH {
            let _ = writeln!(text, "     {line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(text, "     {line}");
}
