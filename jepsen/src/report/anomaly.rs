//! The operations that show a broken promise, as bars and as a table.

use std::fmt::{self, Write};

use super::{LEFT, Text, WIDTH};
use crate::history::Outcome;
use crate::verdict::Violation;

/// More bars than this are not a picture.
const MOST: usize = 60;

/// Height of a bar with its distance.
const BAR: f64 = 18.0;

pub(super) fn write(page: &mut String, violation: &Violation) -> fmt::Result {
    let operations = &violation.operations[..violation.operations.len().min(MOST)];
    let start = operations.iter().map(|operation| operation.invoked).min().unwrap_or(0);
    let ends = operations.iter().map(|operation| operation.completed.unwrap_or(operation.invoked));
    let end = ends.max().unwrap_or(start).max(start + 1);
    let x = |at: u64| LEFT + (WIDTH - LEFT) * ((at - start) as f64 / (end - start) as f64);
    let height = BAR * operations.len() as f64 + 4.0;
    writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">")?;
    for (place, operation) in operations.iter().enumerate() {
        let top = BAR * place as f64 + 2.0;
        let from = x(operation.invoked);
        let (until, colour) = match (&operation.outcome, operation.completed) {
            (Outcome::Ok(_), Some(at)) => (x(at), "#2a7f62"),
            (Outcome::Failed, Some(at)) => (x(at), "#e0a100"),
            // It may take effect at any time.
            (_, _) => (WIDTH, "#c1121f"),
        };
        writeln!(page, "<text x=\"0\" y=\"{:.1}\">client {}</text>", top + 11.0, operation.client)?;
        writeln!(
            page,
            "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\" \
             fill-opacity=\"0.55\"/>",
            (until - from).max(2.0),
            BAR - 4.0
        )?;
    }
    writeln!(page, "</svg>\n<pre>{}</pre>", Text(&violation.to_string()))
}
