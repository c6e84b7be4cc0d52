//! What a client agent keeps for its DNS, between the sockets and the node: the core keeps the books
//! ([`proconsul_core::dns::kept`]), here servers are asked.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use proconsul_core::api::{Authorizer, Call, Request};
use proconsul_core::dns::kept::{Begun, Kept, Onward, Said, Subject};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::Settings;
use crate::gate::Gate;

/// What is kept. Cheap to clone.
#[derive(Clone)]
pub(super) struct Names {
    gate: Gate,
    settings: Settings,
    state: Arc<RwLock<State>>,
}

#[derive(Default)]
struct State {
    kept: Kept,
    /// One for each subject that is kept.
    asking: BTreeMap<Subject, Asking>,
}

/// A subject that servers are asked for all the time.
struct Asking {
    task: AbortHandle,
    heard: watch::Receiver<Heard>,
}

/// What has been heard about a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    /// It is kept.
    Enough,
    /// A server has answered with what cannot be kept.
    Useless,
}

/// Whether subjects are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Had {
    /// All of them.
    All,
    /// No: there is no place, or it is too much.
    TooMuch,
    /// No: servers do not answer.
    NoServer,
}

impl State {
    fn stop(&mut self, subjects: &[Subject]) {
        for subject in subjects {
            if let Some(asking) = self.asking.remove(subject) {
                asking.task.abort();
            }
        }
    }
}

/// What is kept, for as long as one looks at it.
pub(super) struct Looking<'a>(RwLockReadGuard<'a, State>);

impl Looking<'_> {
    pub(super) fn kept(&self) -> &Kept {
        &self.0.kept
    }
}

impl Names {
    pub(super) fn new(gate: Gate, settings: Settings) -> Names {
        Names { gate, settings, state: Arc::default() }
    }

    pub(super) fn look(&self) -> Looking<'_> {
        Looking(self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has these kept, and waits until a server has been heard about each.
    pub(super) async fn have(&self, subjects: &[Subject]) -> Had {
        for subject in subjects {
            let Some(mut heard) = self.begin(subject) else { return Had::TooMuch };
            match heard.wait_for(|heard| *heard != Heard::Nothing).await.as_deref() {
                Ok(Heard::Enough) => {}
                Ok(Heard::Useless | Heard::Nothing) => return Had::TooMuch,
                // Asking has ended without an answer.
                Err(_) => return Had::NoServer,
            }
        }
        Had::All
    }

    fn begin(&self, subject: &Subject) -> Option<watch::Receiver<Heard>> {
        let mut state = self.state();
        match state.kept.begin(subject, self.gate.now().mono) {
            Begun::Full => None,
            Begun::UnderWay => state.asking.get(subject).map(|asking| asking.heard.clone()),
            Begun::Ask(dropped) => {
                state.stop(&dropped);
                let (says, heard) = watch::channel(Heard::Nothing);
                let task = tokio::spawn(self.clone().keep(subject.clone(), says)).abort_handle();
                state.asking.insert(subject.clone(), Asking { task, heard: heard.clone() });
                Some(heard)
            }
        }
    }

    /// Asks servers for a subject for as long as it is kept.
    async fn keep(self, subject: Subject, heard: watch::Sender<Heard>) {
        loop {
            let read = self.look().kept().read(&subject, &self.settings.get());
            let Some(read) = read else { return };
            let asked_at = self.gate.now().mono;
            let request = Request { call: Call::Read(read), authorizer: Authorizer };
            let reply = self.gate.ask(request).await.ok().filter(|reply| reply.status == 200);
            let said = reply.as_ref().and_then(|reply| Said::of(&subject, reply));
            let onward = {
                let mut state = self.state();
                let mut dropped = Vec::new();
                let now = self.gate.now().mono;
                let onward = state.kept.settle(&subject, said, asked_at, now, &mut dropped);
                state.stop(&dropped);
                if onward == Onward::End {
                    state.asking.remove(&subject);
                }
                onward
            };
            match onward {
                Onward::Ask => {
                    heard.send_replace(Heard::Enough);
                }
                Onward::AskAfter(pause) => tokio::time::sleep(pause).await,
                Onward::End => {
                    if reply.is_some() {
                        heard.send_replace(Heard::Useless);
                    }
                    return;
                }
            }
        }
    }
}
