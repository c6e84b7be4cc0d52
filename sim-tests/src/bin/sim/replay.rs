//! `sim replay`: one run again, with its log.

use std::process::ExitCode;
use std::time::Duration;

use proconsul_io_sim::trace::Stop;
use proconsul_sim_tests::runner::{self, View};

use crate::args::Args;

pub fn run(args: Args) -> Result<ExitCode, String> {
    let plan = args.plan_named()?;
    let stop = args.text("stop-at").map(stop).transpose()?;
    let view = View { echo: true, filter: args.text("log").map(str::to_owned), stop };
    let report = runner::watch(&plan, view);
    for violation in &report.violations {
        eprintln!("{violation}");
    }
    println!("{}", report.summary());
    Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// `12.5`: simulated seconds. `#4711`: the number of an event of the trace.
fn stop(text: &str) -> Result<Stop, String> {
    let bad = || format!("--stop-at {text}: neither simulated seconds nor #EVENT");
    if let Some(event) = text.strip_prefix('#') {
        return event.parse().map(Stop::Event).map_err(|_| bad());
    }
    let seconds: f64 = text.trim_end_matches('s').parse().map_err(|_| bad())?;
    Duration::try_from_secs_f64(seconds).map(Stop::Time).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_stopped_at_a_time_or_at_an_event() {
        assert_eq!(stop("12.5"), Ok(Stop::Time(Duration::from_millis(12_500))));
        assert_eq!(stop("3s"), Ok(Stop::Time(Duration::from_secs(3))));
        assert_eq!(stop("#4711"), Ok(Stop::Event(4711)));
        for bad in ["", "-1", "#", "soon", "nan"] {
            assert!(stop(bad).is_err(), "{bad}");
        }
    }
}
