//! What the system says about a process.

use std::io;
use std::time::Duration;

/// CPU time of a process so far, user and system, of all its threads. Its grain is one tick, mostly 10 ms.
pub(crate) fn cpu(pid: u32) -> io::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {stat:?}"));
    // The second field is the program's name in parentheses, and may contain anything (proc_pid_stat(5)).
    let (_, fields) = stat.rsplit_once(')').ok_or_else(bad)?;
    let field = |number: usize| fields.split_ascii_whitespace().nth(number - 3)?.parse::<u64>().ok();
    let ticks = field(14).ok_or_else(bad)? + field(15).ok_or_else(bad)?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_nanos(ticks * 1_000_000_000 / per_second))
}

/// CPU time of the threads that a process has at present, in nanoseconds: finer than [`cpu`], but it forgets threads
/// that ended.
pub(crate) fn cpu_of_threads(pid: u32) -> io::Result<Duration> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread can end between being listed and being read.
        if let Ok(schedstat) = std::fs::read_to_string(thread?.path().join("schedstat")) {
            sum += schedstat.split_ascii_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(sum))
}

/// Memory of a process that is in RAM, in bytes.
pub(crate) fn resident(pid: u32) -> io::Result<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, statm.clone()))?;
    Ok(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let pid = std::process::id();
        let before = cpu_of_threads(pid).unwrap();
        let mut sum = 0u64;
        while cpu_of_threads(pid).unwrap() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(cpu(pid).unwrap() < Duration::from_secs(3_600));
        assert!(resident(pid).unwrap() > 100_000);
    }
}
