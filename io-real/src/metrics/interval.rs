//! The metrics of one interval, and how they are written: JSON in the shape of Consul's API, and the text format of
//! Prometheus (exposition format 0.0.4).

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};
use time::UtcDateTime;

/// Names and values that tell metrics of one name apart.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Numbers about several events. Times are in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Stats {
    pub(super) count: u64,
    pub(super) sum: f64,
    pub(super) squares: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Stats {
    /// Events that are only counted: each has the value one.
    pub(super) fn of_events(count: u64) -> Stats {
        let (sum, one) = (count as f64, if count == 0 { 0.0 } else { 1.0 });
        Stats { count, sum, squares: sum, min: one, max: one }
    }

    pub(super) fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    /// Standard deviation of a sample.
    pub(super) fn deviation(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let count = self.count as f64;
        let above = self.squares - self.sum * self.sum / count;
        (above.max(0.0) / (count - 1.0)).sqrt()
    }
}

/// A value at one moment.
#[derive(Clone, Debug)]
pub(super) struct Gauge {
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) value: f64,
}

/// What happened in an interval.
#[derive(Clone, Debug)]
pub(super) struct Events {
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) stats: Stats,
    /// Count and sum since the start.
    pub(super) totals: (u64, f64),
}

/// All metrics of an interval.
#[derive(Clone, Debug, Default)]
pub struct Interval {
    /// When it began, in seconds since 1970.
    pub(super) began: u64,
    pub(super) length: Duration,
    pub(super) gauges: Vec<Gauge>,
    pub(super) counters: Vec<Events>,
    pub(super) samples: Vec<Events>,
}

impl Interval {
    /// As `/v1/agent/metrics` shows it. What did not happen in the interval is left out.
    #[must_use]
    pub fn json(&self) -> Vec<u8> {
        let gauges = self.gauges.iter().map(|gauge| {
            json!({"Name": gauge.name, "Value": number(gauge.value), "Labels": labels(&gauge.labels)})
        });
        let all = json!({
            "Timestamp": timestamp(self.began),
            "Gauges": gauges.collect::<Vec<_>>(),
            "Points": [],
            "Counters": self.events(&self.counters),
            "Samples": self.events(&self.samples),
        });
        all.to_string().into_bytes()
    }

    fn events(&self, events: &[Events]) -> Vec<Value> {
        let seconds = self.length.as_secs_f64().max(1.0);
        let happened = events.iter().filter(|events| events.stats.count > 0);
        let row = |events: &Events| {
            let stats = events.stats;
            json!({
                "Name": events.name,
                "Count": stats.count,
                "Rate": number(stats.sum / seconds),
                "Sum": number(stats.sum),
                "Min": number(stats.min),
                "Max": number(stats.max),
                "Mean": number(stats.mean()),
                "Stddev": number(stats.deviation()),
                "Labels": labels(&events.labels),
            })
        };
        happened.map(row).collect()
    }

    /// In the text format of Prometheus: gauges as they were last seen, counters and summaries since the start.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut text = String::with_capacity(8_192);
        let mut former = String::new();
        for gauge in &self.gauges {
            let name = heading(&mut text, &mut former, &gauge.name, "gauge");
            line(&mut text, &name, "", &gauge.labels, gauge.value);
        }
        for counter in self.counters.iter().filter(|counter| counter.totals.0 > 0) {
            let name = heading(&mut text, &mut former, &counter.name, "counter");
            line(&mut text, &name, "", &counter.labels, counter.totals.0 as f64);
        }
        for sample in self.samples.iter().filter(|sample| sample.totals.0 > 0) {
            let name = heading(&mut text, &mut former, &sample.name, "summary");
            line(&mut text, &name, "_sum", &sample.labels, sample.totals.1);
            line(&mut text, &name, "_count", &sample.labels, sample.totals.0 as f64);
        }
        text
    }
}

/// Begins the lines of a metric, once for all its labels; gives its name as Prometheus takes it.
fn heading(text: &mut String, former: &mut String, name: &str, kind: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == ':' { c } else { '_' };
    let name = name.chars().map(clean).collect::<String>();
    if *former != name {
        // Writing to a text does not fail.
        let _ = writeln!(text, "# HELP {name} {name}\n# TYPE {name} {kind}");
        former.clone_from(&name);
    }
    name
}

fn line(text: &mut String, name: &str, suffix: &str, labels: &Labels, value: f64) {
    let pairs = labels.iter().map(|(label, value)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{label}=\"{value}\"")
    });
    let pairs = pairs.collect::<Vec<_>>().join(",");
    let braces = if pairs.is_empty() { String::new() } else { format!("{{{pairs}}}") };
    // Writing to a text does not fail.
    let _ = writeln!(text, "{name}{suffix}{braces} {value}");
}

fn labels(labels: &Labels) -> Map<String, Value> {
    labels.iter().map(|(label, value)| ((*label).to_owned(), Value::from(value.as_str()))).collect()
}

/// Whole numbers without a fraction, as Go writes them.
fn number(value: f64) -> Value {
    const WHOLE_MAX: f64 = 9e15;
    if value.fract() == 0.0 && value.abs() < WHOLE_MAX {
        Value::from(value as i64)
    } else {
        Value::from(value)
    }
}

/// `2026-11-21 12:37:20 +0000 UTC`
fn timestamp(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| UtcDateTime::from_unix_timestamp(seconds).ok());
    let at = at.unwrap_or(UtcDateTime::UNIX_EPOCH);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = at.as_hms();
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000 UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_written_as_go_does() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 +0000 UTC"),
            (951_782_400, "2000-02-29 00:00:00 +0000 UTC"),
            (1_795_264_640, "2026-11-21 12:37:20 +0000 UTC"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
    }

    #[test]
    fn an_interval_is_written_in_both_formats() {
        let labels = vec![("path", "a\"b".to_owned())];
        let interval = Interval {
            began: 0,
            length: Duration::from_secs(10),
            gauges: vec![Gauge { name: "consul.x.g".into(), labels: Vec::new(), value: 1.5 }],
            counters: vec![Events {
                name: "consul.c".into(),
                labels: labels.clone(),
                stats: Stats::of_events(20),
                totals: (30, 30.0),
            }],
            samples: vec![Events {
                name: "consul.s".into(),
                labels,
                stats: Stats::default(),
                totals: (2, 3.5),
            }],
        };
        let json: Value = serde_json::from_slice(&interval.json()).expect("JSON");
        assert_eq!(json["Gauges"][0], json!({"Name": "consul.x.g", "Value": 1.5, "Labels": {}}));
        assert_eq!(json["Counters"][0]["Rate"], json!(2));
        assert_eq!(json["Samples"], json!([]), "nothing happened in this interval");
        assert_eq!(
            interval.prometheus(),
            "# HELP consul_x_g consul_x_g\n# TYPE consul_x_g gauge\nconsul_x_g 1.5\n\
             # HELP consul_c consul_c\n# TYPE consul_c counter\nconsul_c{path=\"a\\\"b\"} 30\n\
             # HELP consul_s consul_s\n# TYPE consul_s summary\n\
             consul_s_sum{path=\"a\\\"b\"} 3.5\nconsul_s_count{path=\"a\\\"b\"} 2\n"
        );
    }
}
