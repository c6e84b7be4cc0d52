//! Completion of command lines in shells.
//!
//! The shell asks the program itself, as it asks Consul: with the line so far in `COMP_LINE` and the cursor's place in
//! `COMP_POINT` it prints candidates, one per line. So an entry that was made for Consul goes on to work when the program is
//! called `consul`.

use std::path::{Path, PathBuf};

use clap::Args;
use proconsul_io_real::words::io_reason;

use super::command::{Failure, Run, fail};
use super::{Action, Terminal, table};

/// The shells that can be set up, with the files of those who use them.
const FILES: &[(&str, &str)] =
    &[("bash", ".bashrc"), ("zsh", ".zshrc"), ("fish", ".config/fish/config.fish")];

#[derive(Args)]
pub(crate) struct Options {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for Options {
    /// Prints what sets a shell up.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let (program, path) = (terminal.program.clone(), path_of_program(terminal));
        let [shell] = self.args.as_slice() else {
            return fail("Name one shell: bash, zsh or fish");
        };
        match entry(shell, &program, &path) {
            Some(text) => terminal.say(text),
            None => return fail(format!("Unknown shell {shell:?}: it is bash, zsh or fish")),
        }
        Ok(())
    }
}

/// Where this program is.
fn path_of_program(terminal: &Terminal<'_>) -> String {
    std::env::current_exe().map_or_else(|_| terminal.program.clone(), |path| path.display().to_string())
}

/// The lines that set a shell up.
fn entry(shell: &str, program: &str, path: &str) -> Option<String> {
    Some(match shell {
        "bash" => format!("complete -o nospace -C {path} {program}"),
        "zsh" => {
            format!("autoload -U +X bashcompinit && bashcompinit\ncomplete -o nospace -C {path} {program}")
        }
        "fish" => format!(
            "complete -c {program} -f -a \"(env COMP_LINE=(commandline -cp) COMP_POINT=(string length -- (commandline \
             -cp)) {path})\""
        ),
        _ => return None,
    })
}

/// Writes the lines into the files of the shells that the user has, or takes them out; the exit status.
pub(super) fn install(on: bool, terminal: &mut Terminal<'_>) -> u8 {
    let Some(home) = (terminal.env)("HOME").filter(|home| !home.is_empty()).map(PathBuf::from) else {
        return terminal.fail("There is no HOME, so no files of shells can be found");
    };
    let (program, path) = (terminal.program.clone(), path_of_program(terminal));
    let mut done = 0;
    for (shell, file) in FILES {
        let file = home.join(file);
        let text = entry(shell, &program, &path).expect("each has one");
        match change(&file, &text, on) {
            Ok(true) => {
                done += 1;
                terminal.say(format!("{}: {}", file.display(), if on { "set up" } else { "taken out" }));
            }
            Ok(false) => {}
            Err(error) => {
                return terminal.fail(format!("{}: {}", file.display(), io_reason(&error)));
            }
        }
    }
    if done == 0 && on {
        return terminal.fail(format!("Nothing to set up; for one shell, see: {program} completion -h"));
    }
    0
}

/// Whether a file that is there was changed.
fn change(file: &Path, text: &str, on: bool) -> std::io::Result<bool> {
    let before = match std::fs::read_to_string(file) {
        Ok(before) => before,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let is_ours = |line: &str| text.lines().any(|own| own == line);
    let mut after: String =
        before.lines().filter(|line| !is_ours(line)).flat_map(|line| [line, "\n"]).collect();
    if on {
        after.push_str(text);
        after.push('\n');
    }
    if after == before {
        return Ok(false);
    }
    std::fs::write(file, after)?;
    Ok(true)
}

/// What may follow on a command line that ends where the cursor is: names of commands and flags.
pub(super) fn candidates(line: &str) -> Vec<String> {
    let mut words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let last = if line.ends_with(char::is_whitespace) { "" } else { words.pop().unwrap_or_default() };
    let path: Vec<&str> = words.into_iter().filter(|word| !word.starts_with('-')).collect();
    let path = path.join(" ");
    let mut found = Vec::new();
    if let Some(flag) = last.strip_prefix('-') {
        let name = flag.trim_start_matches('-');
        let longest = table::entries()
            .filter(|entry| path == entry.path || path.starts_with(&format!("{} ", entry.path)))
            .max_by_key(|entry| entry.path.len());
        if let Some(Action::Run { command, .. }) = longest.map(|entry| entry.action) {
            let command = command();
            let names = command.get_arguments().filter_map(|arg| arg.get_long());
            found.extend(names.filter(|long| long.starts_with(name)).map(|long| format!("-{long}")));
        }
    } else {
        for entry in table::entries() {
            let rest = if path.is_empty() { Some(entry.path) } else { below(entry.path, &path) };
            if let Some(rest) = rest.filter(|rest| !rest.contains(' ') && rest.starts_with(last)) {
                found.push(rest.to_owned());
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn below<'a>(entry: &'a str, path: &str) -> Option<&'a str> {
    entry.strip_prefix(path)?.strip_prefix(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_flags_are_proposed() {
        assert_eq!(candidates("consul mem"), ["members"]);
        assert_eq!(candidates("consul kv ge"), ["get"]);
        assert_eq!(candidates("consul operator "), ["autopilot", "raft", "usage"]);
        assert_eq!(candidates("consul kv get -rec"), ["-recurse"]);
        assert_eq!(candidates("consul kv get --sep"), ["-separator"]);
        assert_eq!(candidates("consul kv get some/key -http-a"), ["-http-addr"]);
        assert!(candidates("consul ").len() > 20);
        assert!(candidates("consul nosuch ").is_empty());
    }

    #[test]
    fn a_file_gets_its_lines_once_and_loses_them_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(".bashrc");
        let text = entry("bash", "consul", "/usr/bin/consul").expect("known");
        assert!(!change(&file, &text, true).expect("readable"), "what is not there is left alone");
        std::fs::write(&file, "alias a=b\n").expect("writable");
        assert!(change(&file, &text, true).expect("writable"));
        assert!(!change(&file, &text, true).expect("writable"));
        let now = std::fs::read_to_string(&file).expect("readable");
        assert_eq!(now, "alias a=b\ncomplete -o nospace -C /usr/bin/consul consul\n");
        assert!(change(&file, &text, false).expect("writable"));
        assert_eq!(std::fs::read_to_string(&file).expect("readable"), "alias a=b\n");
    }
}
