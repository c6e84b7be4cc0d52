//! A bound on what reading costs.

/// Memory that any reader may take, whatever comes.
const FLOOR: u64 = 256 << 10;
/// And for each byte that came: structures are larger than what describes them.
const PER_BYTE: u64 = 256;

/// Does this, and demands that it never held more new memory than input of this many bytes justifies. Lengths that
/// an input merely announces justify nothing.
///
/// # Panics
/// It held more.
pub fn frugal<T>(input_bytes: usize, work: impl FnOnce() -> T) -> T {
    let mut result = None;
    let held = allocation_counter::measure(|| result = Some(work())).bytes_max;
    let bound = FLOOR + PER_BYTE * input_bytes as u64;
    assert!(held <= bound, "{held} bytes for an input of {input_bytes}, more than {bound}");
    result.expect("the work was done")
}
