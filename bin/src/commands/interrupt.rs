//! Being interrupted, by SIGINT, SIGTERM or SIGHUP.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether somebody has interrupted the command. From its making on, signals do not end the process any more.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Catches signals from now on, on a thread of its own: the commands' runtimes come and go.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn catch() -> io::Result<Interrupt> {
        let (sender, receiver) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        drop(entered);
        let wait = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
            // Nobody may be interested any more.
            let _ = sender.send(true);
            std::future::pending::<()>().await;
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(wait))?;
        Ok(Interrupt(receiver))
    }

    /// Whether it has happened.
    pub(crate) fn happened(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it happens.
    pub(crate) async fn wait(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|happened| *happened).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
