//! This program again, in namespaces of its own: network, mounts and processes (namespaces(7)).
//!
//! What happens in there concerns nobody else: addresses, links and mounts are its own and vanish with its last process,
//! and all processes inside end when the first one does. Root can have them, and so can everybody where the system
//! gives user namespaces to anyone; a plain container gives neither.
//!
//! The program that was called stays outside and watches. The one inside notices the end of the one outside by the end
//! of its standard input, so that nothing is left behind even when that one is killed.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// The kinds of namespaces, and that everything inside ends with unshare(1).
const OWN: [&str; 6] = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// For those who are not root outside.
const AS_ROOT: [&str; 2] = ["--user", "--map-root-user"];

/// How long the one inside may take to end what it started.
const END_WITHIN: Duration = Duration::from_secs(20);

/// What unshare(1) needs here to make namespaces in which networks and mounts can be made.
///
/// # Errors
///
/// Why there are none on this machine, in words for its user.
pub fn probe() -> Result<Vec<&'static str>, String> {
    let make = "mount -t tmpfs tmpfs /run && mkdir /run/netns && ip netns add probe \
                && ip link add bridge type bridge && ip link add port type veth peer name eth0 netns probe \
                && command -v nsenter";
    let mut refusal = String::new();
    for flags in [OWN.to_vec(), [&AS_ROOT[..], &OWN[..]].concat()] {
        let tried =
            Command::new("unshare").args(&flags).args(["sh", "-c", make]).stdin(Stdio::null()).output();
        match tried {
            Ok(output) if output.status.success() => return Ok(flags),
            Ok(output) => refusal = String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => return Err(format!("unshare: {error}")),
        }
    }
    Err(refusal)
}

/// Runs this program with these arguments in namespaces that it alone has, and waits until it ends. Ends it when this
/// process is asked to end.
///
/// # Errors
///
/// If it cannot be started.
pub fn run(flags: &[&str], arguments: &[String]) -> io::Result<ExitCode> {
    let inside = Command::new("unshare")
        .args(flags)
        .arg(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()?;
    let mut inside = Inside(inside);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let ended = async {
            loop {
                if let Some(status) = inside.0.try_wait()? {
                    return Ok::<_, io::Error>(status);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            biased;
            status = ended => {
                let code = status?.code().and_then(|code| u8::try_from(code).ok());
                Ok(ExitCode::from(code.unwrap_or(2)))
            }
            asked = super::asked_to_end() => {
                asked?;
                inside.end();
                Ok(ExitCode::from(2))
            }
        }
    })
}

/// The process outside of the namespaces that ends with the first one inside, and the other way round.
struct Inside(Child);

impl Inside {
    fn end(&mut self) {
        drop(self.0.stdin.take());
        let asked = Instant::now();
        while asked.elapsed() < END_WITHIN {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Its child, the first process inside, is killed with it, and so are all others there.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.end();
    }
}

/// To be called first inside: makes a place for the names of network namespaces.
///
/// # Errors
///
/// If the system refuses.
pub fn settle() -> io::Result<()> {
    call("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
    std::fs::create_dir("/run/netns")
}

/// A file system in memory, unmounted when it goes out of scope.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
}

impl Mount {
    /// Mounts it at a directory, with room for so many bytes. Inside namespaces it is there for no others.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn new(at: &Path, bytes: u64) -> io::Result<Mount> {
        let size = format!("size={bytes}");
        call("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &at.to_string_lossy()])?;
        Ok(Mount { at: at.to_owned() })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, because processes may still use it. It vanishes with the namespace at the latest.
        let _ = call("umount", &["--lazy", &self.at.to_string_lossy()]);
    }
}

/// Runs a program of the system.
fn call(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {}: {}", arguments.join(" "), said.trim())))
}

/// Waits until the one outside is gone, inside. If this process then does not end in time by itself, it is ended.
pub async fn abandoned() {
    let (gone, left) = oneshot::channel();
    std::thread::spawn(move || {
        // Nothing is ever sent; an error is an end too.
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = gone.send(());
        std::thread::sleep(END_WITHIN / 2);
        std::process::exit(2);
    });
    // The sender is never dropped before it has sent.
    let _ = left.await;
}
