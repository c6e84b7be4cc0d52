//! Operations over time, class by class, with the faults behind them.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::{Class, LEFT, Scale, Text, WIDTH};
use crate::history::{Nanos, Outcome};
use crate::process::trial::plan::Lane;
use crate::process::trial::{Event, Run};

/// Height of a strip.
const STRIP: f64 = 34.0;

/// Height of a line of faults.
const LINE: f64 = 16.0;

/// Strips are made of so many columns.
const COLUMNS: u64 = 240;

/// Answered, failed, unknown.
const COLOURS: [&str; 3] = ["#2a7f62", "#e0a100", "#c1121f"];

/// The colour of a fault.
pub(super) fn shade(event: &Event) -> &'static str {
    match (event.bad, event.lane) {
        (true, _) => "#c1121f",
        (false, Lane::Processes) => "#7b2d8b",
        (false, Lane::Links) => "#1f5fbf",
    }
}

pub(super) fn write(page: &mut String, run: &Run, scale: Scale) -> fmt::Result {
    let mut strips: BTreeMap<Class, Vec<[u32; 3]>> = BTreeMap::new();
    for operation in run.history.operations() {
        let strip = strips
            .entry(Class::of(operation))
            .or_insert_with(|| vec![[0; 3]; usize::try_from(COLUMNS).expect("a small number")]);
        let at = operation.completed.unwrap_or(operation.invoked);
        let column =
            usize::try_from(at.min(scale.length - 1) * COLUMNS / scale.length).expect("below COLUMNS");
        let kind = match operation.outcome {
            Outcome::Ok(_) => 0,
            Outcome::Failed => 1,
            Outcome::Unknown => 2,
        };
        strip[column][kind] += 1;
    }
    let lines = place(&run.events);
    let count = lines.iter().map(|line| line + 1).max().unwrap_or(0);
    let faults = LINE * count as f64 + 6.0;
    let height = faults + STRIP * strips.len() as f64 + 18.0;
    writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">")?;
    scale.write_shades(page, run, height)?;
    scale.write_axis(page, height)?;
    for (event, line) in run.events.iter().zip(lines) {
        write_event(page, event, line as f64 * LINE, scale)?;
    }
    for (place, (class, strip)) in strips.iter().enumerate() {
        let bottom = faults + STRIP * (place as f64 + 1.0);
        let most = strip.iter().map(|column| column.iter().sum::<u32>()).max().unwrap_or(1).max(1);
        writeln!(page, "<text x=\"0\" y=\"{:.1}\">{}</text>", bottom - 10.0, class.name())?;
        for (column, counts) in strip.iter().enumerate() {
            let from = scale.x(column as Nanos * scale.length / COLUMNS);
            let mut top = bottom;
            for (count, colour) in counts.iter().zip(COLOURS) {
                if *count > 0 {
                    let tall = (STRIP - 6.0) * f64::from(*count) / f64::from(most);
                    top -= tall;
                    let wide = (WIDTH - LEFT) / COLUMNS as f64 - 0.4;
                    writeln!(
                        page,
                        "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"{tall:.1}\" fill=\"{colour}\"/>"
                    )?;
                }
            }
        }
    }
    let [answered, failed, unknown] = COLOURS;
    writeln!(
        page,
        "</svg>\n<p class=\"legend\">Each column counts operations that ended then, scaled by class: \
         <span style=\"color:{answered}\">answered</span>, <span style=\"color:{failed}\">failed</span>, \
         <span style=\"color:{unknown}\">unknown</span>. Shades are faults: of \
         <span style=\"color:#7b2d8b\">processes</span> and of <span style=\"color:#1f5fbf\">links</span>. \
         Calm begins at {:.1} s.</p>",
        super::seconds(run.mended)
    )
}

fn write_event(page: &mut String, event: &Event, top: f64, scale: Scale) -> fmt::Result {
    let (from, until) = (scale.x(event.from), scale.x(event.until.unwrap_or(event.from)));
    let colour = shade(event);
    writeln!(
        page,
        "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"3\" fill=\"{colour}\"/>",
        top + 12.0,
        (until - from).max(2.0)
    )?;
    // A name that would leave the page ends with its bar.
    let (x, anchor) = if from > WIDTH * 0.72 { (until.max(from + 2.0), "end") } else { (from, "start") };
    writeln!(
        page,
        "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
        top + 10.0,
        Text(&event.what)
    )
}

/// The lines on which events are named, so that no two names of a line overlap.
fn place(events: &[Event]) -> Vec<usize> {
    // Names take about six units per character; in time of the history that depends on the scale, so that a line is
    // simply not used twice within some events.
    let lines = 6.min(events.len().max(1));
    (0..events.len()).map(|number| number % lines).collect()
}
