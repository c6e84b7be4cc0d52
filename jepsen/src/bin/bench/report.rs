//! Figures as Markdown.

use std::fmt;
use std::time::Duration;

use crate::load::Sample;

/// One line of the load table.
struct Row {
    scenario: String,
    target: String,
    per_second: f64,
    percentiles: [f64; 4],
    cpu_per_request: f64,
    errors: u64,
}

/// The load table.
#[derive(Default)]
pub(crate) struct Loads(Vec<Row>);

impl Loads {
    /// Adds a line. The first one of a scenario is what the others are compared with.
    pub(crate) fn add(&mut self, scenario: &str, target: &str, mut sample: Sample) {
        sample.latencies.sort_unstable();
        let count = sample.latencies.len();
        let percentile = |part: f64| {
            let at = ((count as f64 * part) as usize).min(count.saturating_sub(1));
            sample.latencies.get(at).map_or(f64::NAN, |nanos| *nanos as f64 / 1e3)
        };
        self.0.push(Row {
            scenario: scenario.to_owned(),
            target: target.to_owned(),
            per_second: count as f64 / sample.duration.as_secs_f64(),
            percentiles: [0.5, 0.9, 0.99, 0.999].map(percentile),
            cpu_per_request: sample.cpu.as_secs_f64() * 1e6 / count as f64,
            errors: sample.errors,
        });
        eprintln!("measured: {scenario}, {target}: {:.0}/s", count as f64 / sample.duration.as_secs_f64());
    }
}

impl fmt::Display for Loads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "| load | target | requests/s | p50 µs | p90 µs | p99 µs | p99.9 µs | server CPU µs/request | × bare | errors |"
        )?;
        writeln!(f, "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        let mut bare = f64::NAN;
        let mut scenario = "";
        for row in &self.0 {
            if row.scenario != scenario {
                scenario = &row.scenario;
                bare = row.cpu_per_request;
            }
            let [p50, p90, p99, p999] = row.percentiles;
            writeln!(
                f,
                "| {} | {} | {:.0} | {p50:.0} | {p90:.0} | {p99:.0} | {p999:.0} | {:.1} | {:.2} | {} |",
                row.scenario,
                row.target,
                row.per_second,
                row.cpu_per_request,
                row.cpu_per_request / bare,
                row.errors
            )?;
        }
        writeln!(f)
    }
}

/// A duration in milliseconds.
pub(crate) fn millis(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e3)
}

/// Bytes in KiB.
pub(crate) fn kib(bytes: f64) -> String {
    format!("{:.1}", bytes / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_target_is_the_measure_of_the_others() {
        let sample = |cpu| Sample {
            latencies: (1..=1000).map(|n| n * 1_000).collect(),
            errors: 0,
            duration: Duration::from_secs(2),
            cpu: Duration::from_millis(cpu),
        };
        let mut loads = Loads::default();
        loads.add("GET", "bare", sample(10));
        loads.add("GET", "agent", sample(15));
        let text = loads.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "| GET | bare | 500 | 501 | 901 | 991 | 1000 | 10.0 | 1.00 | 0 |");
        assert_eq!(lines[3], "| GET | agent | 500 | 501 | 901 | 991 | 1000 | 15.0 | 1.50 | 0 |");
    }
}
