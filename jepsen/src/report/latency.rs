//! Latencies over time, as a map of how many operations took how long when.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::{Class, LEFT, Scale, WIDTH, waits};
use crate::history::{Operation, Outcome};
use crate::process::trial::Run;

/// Height of a map.
const TALL: f64 = 170.0;

/// Columns of a map.
const COLUMNS: u64 = 290;

/// Rows of a map: each is a tenth of a decade, from 0.1 ms to 10 s.
const ROWS: i32 = 50;

/// Rows of a decade.
const DECADE: i32 = 10;

pub(super) fn write(page: &mut String, run: &Run, scale: Scale) -> fmt::Result {
    let looks = |operation: &Operation| matches!(Class::of(operation), Class::Read | Class::StaleRead);
    write_map(page, "reads of keys", run, scale, &looks)?;
    write_map(page, "everything else", run, scale, &|operation| !looks(operation) && !waits(operation))?;
    writeln!(
        page,
        "<p class=\"legend\">Each dot stands for the operations that ended then after so long, darker for more of them; \
         green ones were answered, red ones were not. Blocking queries wait on purpose and are left out.</p>"
    )
}

fn write_map(
    page: &mut String,
    name: &str,
    run: &Run,
    scale: Scale,
    wanted: &dyn Fn(&Operation) -> bool,
) -> fmt::Result {
    let mut cells: BTreeMap<(u64, i32, bool), u32> = BTreeMap::new();
    for operation in run.history.operations().iter().filter(|operation| wanted(operation)) {
        let Some(completed) = operation.completed else { continue };
        let column = completed.min(scale.length - 1) * COLUMNS / scale.length;
        let answered = matches!(operation.outcome, Outcome::Ok(_));
        *cells.entry((column, row(completed - operation.invoked), answered)).or_default() += 1;
    }
    let most = f64::from(cells.values().copied().max().unwrap_or(1));
    let height = TALL + 18.0;
    let tall = TALL / f64::from(ROWS);
    writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">")?;
    scale.write_shades(page, run, height)?;
    scale.write_axis(page, height)?;
    writeln!(page, "<text x=\"0\" y=\"12\">{name}</text>")?;
    for (decade, label) in ["0.1 ms", "1 ms", "10 ms", "100 ms", "1 s"].into_iter().enumerate() {
        let y = TALL - decade as f64 * f64::from(DECADE) * tall;
        writeln!(
            page,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{WIDTH}\" y2=\"{y:.1}\" stroke=\"#e4e4e4\"/>"
        )?;
        writeln!(page, "<text x=\"{}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 6.0)?;
    }
    let wide = (WIDTH - LEFT) / COLUMNS as f64;
    for ((column, row, answered), count) in cells {
        let x = LEFT + column as f64 * wide;
        let y = TALL - f64::from(row + 1) * tall;
        let colour = if answered { "#2a7f62" } else { "#c1121f" };
        // Sixteen shades: a single operation is seen, too.
        let opacity = 0.4 + 0.6 * (f64::from(count) / most * 15.0).round() / 15.0;
        writeln!(
            page,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{tall:.1}\" fill=\"{colour}\" \
             fill-opacity=\"{opacity:.2}\"/>"
        )?;
    }
    writeln!(page, "</svg>")
}

/// The row of a latency.
fn row(nanos: u64) -> i32 {
    let tenths_of_ms = (nanos as f64 / 1e5).max(1.0);
    // Whole tenths of a decade above 0.1 ms.
    ((tenths_of_ms.log10() * f64::from(DECADE)) as i32).min(ROWS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decade_has_ten_rows() {
        assert_eq!([50_000, 100_000, 1_000_000, 10_000_000, 999_000_000_000].map(row), [0, 0, 10, 20, 49]);
    }
}
