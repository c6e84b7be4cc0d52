//! A trial as one page: verdicts, operations and faults over time, latencies, counts, and the first anomaly.
//!
//! The page needs nothing besides itself: no scripts, no other files. It is well-formed XML too.

mod anomaly;
mod latency;
mod summary;
mod timeline;

use std::fmt::{self, Write};

use crate::history::{Nanos, Op, Operation};
use crate::process::trial::{Finding, Judgement, Run};
use summary::Summary;
pub use summary::{Class, Counts};

/// How wide plots are, in user units of SVG.
const WIDTH: f64 = 1_000.0;

/// How much of that names take on the left.
const LEFT: f64 = 130.0;

/// What a page is about, besides the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// One line.
    pub title: String,
    /// Names and values of what was asked for, in order.
    pub facts: Vec<(String, String)>,
}

/// The page.
#[must_use]
pub fn page(about: &About, run: &Run, findings: &[Finding]) -> String {
    let mut page = String::new();
    write_page(&mut page, about, run, findings).expect("a string takes everything");
    page
}

fn write_page(page: &mut String, about: &About, run: &Run, findings: &[Finding]) -> fmt::Result {
    let good = !findings.iter().any(Finding::is_bad);
    let scale = Scale::of(run);
    writeln!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<title>{}</title>",
        Text(&about.title)
    )?;
    writeln!(page, "<style>{STYLE}</style>\n</head>\n<body>\n<h1>{}</h1>", Text(&about.title))?;
    let (class, says) = if good {
        ("passed", "Every promise was kept.")
    } else {
        ("violated", "A promise was broken, or could not be judged.")
    };
    writeln!(page, "<p class=\"{class}\">{says}</p>\n<table>")?;
    for (name, value) in &about.facts {
        writeln!(page, "<tr><th>{}</th><td>{}</td></tr>", Text(name), Text(value))?;
    }
    writeln!(page, "</table>\n<h2>Verdicts</h2>\n<table>")?;
    for finding in findings {
        let (class, word) = match finding.judgement {
            Judgement::Passed => ("passed", "kept"),
            Judgement::Violated => ("violated", "BROKEN"),
            Judgement::Undecided => ("violated", "undecided"),
            Judgement::Absent => ("absent", "not judged"),
        };
        writeln!(
            page,
            "<tr><th>{}</th><td class=\"{class}\">{word}</td><td>{}</td></tr>",
            Text(finding.name),
            Text(first_lines(&finding.says))
        )?;
    }
    writeln!(page, "</table>")?;
    if let Some(violation) = findings.iter().find_map(|finding| finding.violation.as_ref()) {
        writeln!(page, "<h2>First anomaly</h2>")?;
        anomaly::write(page, violation)?;
    }
    let summary = Summary::of(&run.history);
    writeln!(page, "<h2>Operations and faults</h2>")?;
    timeline::write(page, run, scale)?;
    writeln!(page, "<h2>Latency</h2>")?;
    latency::write(page, run, scale)?;
    writeln!(page, "<h2>Counts</h2>")?;
    summary.write(page)?;
    writeln!(page, "<h2>Events</h2>\n<table>")?;
    for event in &run.events {
        let until = event.until.map_or_else(String::new, |until| format!("{:.1} s", seconds(until)));
        let class = if event.bad { "violated" } else { "plain" };
        let what = Text(&event.what);
        writeln!(
            page,
            "<tr><td>{:.1} s</td><td>{until}</td><td class=\"{class}\">{what}</td></tr>",
            seconds(event.from)
        )?;
    }
    writeln!(page, "</table>")?;
    if !good && !run.logs.is_empty() {
        writeln!(page, "<h2>Logs</h2>\n<pre>{}</pre>", Text(&run.logs))?;
    }
    writeln!(page, "</body>\n</html>")
}

/// A text of a checker may go on with the operations, which are shown elsewhere.
fn first_lines(text: &str) -> &str {
    let end = text.match_indices('\n').nth(3).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1040px;padding:0 1em;color:#222;\
background:#fff}h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}table{border-collapse:collapse}\
th,td{text-align:left;padding:.15em .8em .15em 0;vertical-align:top;border-bottom:1px solid #eee}\
th{font-weight:500}td.number{text-align:right;font-variant-numeric:tabular-nums}.passed{color:#0a6b2d;font-weight:600}\
.violated{color:#b00020;font-weight:600}.absent{color:#777}pre{overflow-x:auto;background:#f6f6f6;padding:.8em;\
font-size:12px}svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#333}\
p.legend{color:#555;font-size:13px}";

/// From the time of a history to a place on the page.
#[derive(Clone, Copy, Debug)]
struct Scale {
    length: Nanos,
}

impl Scale {
    fn of(run: &Run) -> Scale {
        let ends = run.history.operations().iter().map(|o| o.completed.unwrap_or(o.invoked));
        let events = run.events.iter().map(|event| event.until.unwrap_or(event.from));
        Scale { length: ends.chain(events).max().unwrap_or(0).max(1) }
    }

    fn x(self, at: Nanos) -> f64 {
        LEFT + (WIDTH - LEFT) * (at.min(self.length) as f64 / self.length as f64)
    }

    /// Whole seconds to write on an axis.
    fn ticks(self) -> impl Iterator<Item = u64> {
        let all = self.length / SECOND;
        let step = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800].into_iter().find(|step| all / step <= 12);
        (0..=all).step_by(usize::try_from(step.unwrap_or(3_600)).expect("a small number"))
    }

    /// The lines of the axis, down to this height.
    fn write_axis(self, page: &mut String, height: f64) -> fmt::Result {
        for second in self.ticks() {
            let x = self.x(second * SECOND);
            let bottom = height - 14.0;
            writeln!(
                page,
                "<line x1=\"{x:.1}\" y1=\"0\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#e4e4e4\"/>"
            )?;
            writeln!(page, "<text x=\"{x:.1}\" y=\"{}\">{second} s</text>", height - 2.0)?;
        }
        Ok(())
    }

    /// The faults as shades behind everything else, with their names as tool tips.
    fn write_shades(self, page: &mut String, run: &Run, height: f64) -> fmt::Result {
        for event in &run.events {
            let (from, until) = (self.x(event.from), self.x(event.until.unwrap_or(self.length)));
            writeln!(
                page,
                "<rect x=\"{from:.1}\" y=\"0\" width=\"{:.1}\" height=\"{}\" fill=\"{}\" fill-opacity=\"0.13\">\
                 <title>{}</title></rect>",
                (until - from).max(1.0),
                height - 14.0,
                timeline::shade(event),
                Text(&event.what)
            )?;
        }
        Ok(())
    }
}

const SECOND: Nanos = 1_000_000_000;

fn seconds(at: Nanos) -> f64 {
    at as f64 / SECOND as f64
}

/// Text inside of an element or an attribute.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                // Not allowed in XML, not even as references.
                control if control.is_control() && control != '\n' && control != '\t' => {
                    f.write_char('\u{fffd}')?
                }
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// Whether an operation waits on purpose, so that its time says nothing.
fn waits(operation: &Operation) -> bool {
    matches!(
        operation.op,
        Op::Watch { .. } | Op::List { above: Some(_), .. } | Op::Catalog { above: Some(_), .. }
    )
}

#[cfg(test)]
mod tests;
