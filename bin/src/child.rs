//! Programs that commands run: how they are called, and how they are ended together with what they have started.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::ExitStatus;

use proconsul_io_real::words::io_reason;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::process::Command;

/// The program that reads a command line: the user's shell.
fn shell() -> OsString {
    std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into())
}

/// The process that a command line or a list of arguments stands for.
#[must_use]
pub fn command(args: &[String], by_shell: bool) -> Command {
    if by_shell {
        let mut command = Command::new(shell());
        command.arg("-c").arg(args.join(" "));
        return command;
    }
    let mut command = Command::new(args.first().map_or("", String::as_str));
    command.args(args.get(1..).unwrap_or_default());
    command
}

/// The first argument of a process of this program that is to become another one, see [`bound`]. No command is called so.
const STAND_IN: &str = "@child-of";

/// A process of the same program and arguments (nothing else of the command is taken over), bound to this one: it is killed
/// when this one is gone, however that came about. It has to be started
/// by the main thread, which ends last. What the process itself has started is not bound, nor is a program that runs as
/// another user than its file's (setuid). Elsewhere than on Linux nothing is bound.
///
/// Only a process can bind itself: what is started is this program once more, which [`stand_in`] turns into the other one.
///
/// # Errors
/// There is no such program.
pub fn bound(command: Command) -> io::Result<Command> {
    if !cfg!(target_os = "linux") {
        return Ok(command);
    }
    let command = command.into_std();
    find(command.get_program())?;
    // This very file, also when another one has taken its name.
    let mut bound = Command::new("/proc/self/exe");
    bound.arg(STAND_IN).arg(std::process::id().to_string());
    bound.arg(command.get_program()).args(command.get_args());
    Ok(bound)
}

/// Becomes another program, if the arguments ask for that; the exit status if that fails.
#[must_use]
pub fn stand_in(args: &[OsString]) -> Option<u8> {
    #[cfg(target_os = "linux")]
    if let [first, parent, program, args @ ..] = args
        && first == STAND_IN
    {
        use std::os::unix::process::CommandExt as _;
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        // The parent may have gone before: then nobody would send the signal.
        let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
        if now.map(OsString::from).as_ref() != Some(parent) {
            return Some(1);
        }
        let error = std::process::Command::new(program).args(args).exec();
        let why = unstarted(&[program.to_string_lossy().into_owned()], &error);
        eprintln!("Error starting handler: {why}");
        return Some(1);
    }
    let _ = args;
    None
}

/// Whether there is such a program, by its path or in `PATH`.
fn find(program: &OsStr) -> io::Result<()> {
    let is_program = |path: &Path| {
        rustix::fs::access(path, rustix::fs::Access::EXEC_OK)?;
        if path.is_dir() { Err(io::Error::from(io::ErrorKind::PermissionDenied)) } else { Ok(()) }
    };
    if program.is_empty() {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    if program.as_encoded_bytes().contains(&b'/') {
        return is_program(Path::new(program));
    }
    let places = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let mut found = Err(io::Error::from(io::ErrorKind::NotFound));
    for place in std::env::split_paths(&places) {
        match is_program(&place.join(program)) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => found = Err(error),
            Err(_) => {}
        }
    }
    found
}

/// Why a program could not be started.
#[must_use]
pub fn unstarted(args: &[String], error: &io::Error) -> String {
    let name = args.first().map_or("", String::as_str);
    if error.kind() == io::ErrorKind::NotFound && !name.contains('/') {
        format!("exec: {name:?}: executable file not found in $PATH")
    } else {
        format!("fork/exec {name}: {}", io_reason(error))
    }
}

/// How a program failed; nothing if it did not.
#[must_use]
pub fn failure(status: ExitStatus) -> Option<String> {
    if status.success() {
        return None;
    }
    Some(match status.code() {
        Some(code) => format!("exit status {code}"),
        None => {
            let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default();
            format!("signal: {}", signal_name(signal))
        }
    })
}

/// A signal in the words of Go's `syscall` package, which scripts look for.
fn signal_name(signal: i32) -> String {
    match signal {
        1 => "hangup".to_owned(),
        2 => "interrupt".to_owned(),
        3 => "quit".to_owned(),
        6 => "aborted".to_owned(),
        9 => "killed".to_owned(),
        11 => "segmentation fault".to_owned(),
        13 => "broken pipe".to_owned(),
        14 => "alarm clock".to_owned(),
        15 => "terminated".to_owned(),
        other => format!("signal {other}"),
    }
}

/// Makes processes that lose their parent children of this one, so that [`kill_tree`] finds them.
pub fn adopt_orphans() {
    // Where the system does not know that, orphans go to another process and are not found.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Sends a signal to a process; one that has ended needs none.
pub fn send(process: u32, signal: Signal) {
    if let Some(pid) = pid(process) {
        let _ = kill_process(pid, signal);
    }
}

/// Ends all processes below this one at once.
pub fn kill_tree() {
    // A process may start another one while this looks.
    for _ in 0..8 {
        let below = descendants(std::process::id());
        if below.iter().filter(|process| is_there(**process)).count() == 0 {
            return;
        }
        for process in below {
            send(process, Signal::KILL);
        }
    }
}

fn pid(process: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(process).ok()?)
}

fn is_there(process: u32) -> bool {
    pid(process).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// The processes that a process has started, and those that these have.
fn descendants(process: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = vec![process];
    while let Some(parent) = open.pop() {
        let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in text.split_whitespace().filter_map(|child| child.parse().ok()) {
                if !found.contains(&child) {
                    found.push(child);
                    open.push(child);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn ends_are_told_in_the_words_that_scripts_know() {
        for (raw, expected) in [
            (0, None),
            (7 << 8, Some("exit status 7")),
            (9, Some("signal: killed")),
            (15, Some("signal: terminated")),
        ] {
            assert_eq!(failure(ExitStatus::from_raw(raw)).as_deref(), expected, "{raw}");
        }
    }

    #[test]
    fn programs_are_found_as_the_system_finds_them() {
        let kind = |program: &str| find(OsStr::new(program)).map_err(|error| error.kind());
        assert_eq!(kind("sh"), Ok(()));
        assert_eq!(kind("/bin/sh"), Ok(()));
        assert_eq!(kind("no-such-program"), Err(io::ErrorKind::NotFound));
        assert_eq!(kind("/no/such"), Err(io::ErrorKind::NotFound));
        assert_eq!(kind("/tmp/"), Err(io::ErrorKind::PermissionDenied));
        assert_eq!(kind(""), Err(io::ErrorKind::NotFound));
    }

    #[test]
    fn commands_of_users_are_not_taken_for_stand_ins() {
        assert_eq!(stand_in(&[]), None);
        assert_eq!(stand_in(&["kv".into(), "get".into(), "a".into(), "b".into()]), None);
        // The parent is another one by now.
        assert_eq!(stand_in(&[STAND_IN.into(), "0".into(), "/bin/false".into()]), Some(1));
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        let not_found = io::Error::from(io::ErrorKind::NotFound);
        let text = unstarted(&["nosuch".to_owned()], &not_found);
        assert_eq!(text, "exec: \"nosuch\": executable file not found in $PATH");
        let text = unstarted(&["/no/such".to_owned()], &not_found);
        assert!(text.starts_with("fork/exec /no/such: "), "{text}");
    }
}
