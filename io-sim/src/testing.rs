//! Running one simulated world, for this crate's tests.

use madsim::runtime::Runtime;

/// Runs a future in a simulation of its own, on a thread of its own, and gives what it gives.
pub(crate) fn in_sim<F, T>(seed: u64, world: impl FnOnce() -> F + Send + 'static) -> T
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let thread = std::thread::spawn(move || {
        Runtime::with_seed_and_config(seed, madsim::Config::default()).block_on(world())
    });
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
