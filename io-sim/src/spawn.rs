//! Tasks on the host that starts them.

use std::pin::Pin;

use proconsul_io_real::ports::Spawn;

/// Starts tasks on the simulated host whose task calls it; they end when that host is killed.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimSpawn;

impl Spawn for SimSpawn {
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        drop(madsim::task::spawn(task));
    }
}
