//! Where the effects of the node's machines go.

use std::sync::Arc;

use super::{Node, PeerMessage, duties, transfer};
use crate::agent;
use crate::api::HttpReply;
use crate::boundary::{Checkpoint, Outbox, Output};
use crate::ids::{LogIndex, OpId, RequestId, ServerId};
use crate::node::jobs::Origin;
use crate::raft::{self, Entry, Payload, SnapshotMeta};
use crate::store::command::Command;
use crate::store::query::WatchKey;
use crate::time::Now;
use crate::wal;

impl Node {
    pub(super) fn on_raft_effect(&mut self, now: Now, effect: raft::Effect, out: &mut Outbox) {
        match effect {
            raft::Effect::Send { to, message } => self.frames.push((to, PeerMessage::Raft(message))),
            raft::Effect::Persist { token, records } => {
                let mut writes = Vec::new();
                match &mut self.wal {
                    Some(wal) => wal.push(token.0, records, &mut writes),
                    None => self.raft(now, |raft, cx| raft.on_persisted(cx, token)),
                }
                push_writes(writes, out);
            }
            raft::Effect::Commit { entries } => self.apply(now, entries, out),
            raft::Effect::ReadReady { ticket, index } => self.on_read_index(now, ticket, Some(index)),
            raft::Effect::ReadFailed { ticket } => self.on_read_index(now, ticket, None),
            raft::Effect::ReadSnapshot { to, seq } => self.send_chunk(now, to, seq),
            raft::Effect::SnapshotData { meta, seq, data, last } => {
                match self.incoming.take(meta, seq, &data, last) {
                    Ok(Some((meta, store))) => self.install(now, meta, store, out),
                    Ok(None) => {}
                    Err(reason) => self.halt(reason, out),
                }
            }
            raft::Effect::RoleChanged => self.on_role_changed(now),
            raft::Effect::Forgotten => {
                self.give_up = Some(format!(
                    "the Raft group counts on the vote of this server ({}), which has no log: a server that forgot its \
                     vote must not vote; restore its data directory, or give it another identity (remove the file \
                     node-id, or set another node_id): it joins as a new server then",
                    self.about.id
                ));
            }
        }
    }

    /// Applies committed entries and answers those who proposed them.
    fn apply(&mut self, now: Now, entries: Vec<Entry>, out: &mut Outbox) {
        let mut touched = Vec::new();
        for entry in entries {
            assert_eq!(entry.index, self.applied.next(), "entries are applied in order, once");
            let mut dirty = Vec::new();
            let mut size = 64;
            if let Payload::Command(payload) = &entry.payload {
                let command = match self.decode(payload) {
                    Ok(command) => command,
                    Err(bad) => return self.halt(format!("log entry {}: {bad}", entry.index), out),
                };
                if let Command::FormatRaised { to } = command
                    && let Err(newer) = self.understands(to)
                {
                    return self.halt(format!("log entry {}: {newer}", entry.index), out);
                }
                size += payload.len() as u64;
                let applied = self.store.apply(entry.index.0, &command);
                touched.extend(applied.touched);
                dirty = applied.dirty;
                if applied.replaced {
                    self.checkpointing.on_restored();
                }
                self.applied = entry.index;
                self.on_applied(now, entry.index, applied.response);
            }
            self.applied = entry.index;
            self.checkpointing.on_applied(entry.index, size, dirty);
        }
        self.publish = true;
        self.tell_group(now);
        self.follow_leadership(now);
        self.duties(now, |duties, cx, facts| duties.on_applied(cx, facts, &touched));
        self.touched.append(&mut touched);
        self.on_caught_up(now);
    }

    fn on_role_changed(&mut self, now: Now) {
        self.publish = true;
        self.form(now, |forming, cx, facts| forming.look(cx, facts));
        let led = (self.raft.leader(), self.raft.term(), self.is_leader());
        if led != self.led {
            let lost = self.led.2 && (!led.2 || led.1 != self.led.1);
            self.led = led;
            if lost {
                self.outgoing = transfer::Outgoing::default();
                self.duties(now, |duties, cx, _| duties.end(cx));
            }
            self.on_leader_changed(now, lost);
            if led.0.is_some() {
                self.agent(now, |agent, cx| agent.on_leader_known(cx));
            }
        }
        let handing_over = self.raft.is_handing_over();
        if std::mem::replace(&mut self.handing_over, handing_over) && !handing_over {
            self.retry_held(now);
        }
        self.follow_leadership(now);
    }

    pub(super) fn on_duty_effect(&mut self, now: Now, effect: duties::Effect) {
        match effect {
            duties::Effect::Propose(command) => self.propose_for(now, Origin::Duty, command),
            duties::Effect::ChangeMembership(change) => {
                // Refused while leadership is handed over, or lost: whoever leads then decides again.
                let _ = self.raft(now, |raft, cx| raft.propose_membership(cx, change));
            }
        }
    }

    /// Duties begin when everything that came before this server's term is applied.
    fn follow_leadership(&mut self, now: Now) {
        if self.is_leader()
            && self.raft.ready()
            && !self.duties.active()
            && self.applied >= self.raft.commit_index()
        {
            self.duties(now, |duties, cx, facts| duties.begin(cx, facts));
        }
    }

    pub(super) fn on_logged(&mut self, now: Now, write: u64, out: &mut Outbox) {
        let mut writes = Vec::new();
        let durable = self.wal.as_mut().and_then(|wal| wal.on_done(write, &mut writes));
        push_writes(writes, out);
        if let Some(token) = durable {
            self.raft(now, |raft, cx| raft.on_persisted(cx, raft::PersistToken(token)));
        }
    }

    /// Begins a checkpoint when one is due. Without a log there is nothing to keep; the log in memory is cut.
    pub(super) fn begin_checkpoint(&mut self, out: &mut Outbox) {
        if !self.checkpointing.due() || self.installing.is_some() {
            return;
        }
        let op = self.op();
        let checkpoint = self.checkpointing.begin(op, self.applied_meta(), &self.store);
        if self.wal.is_some() {
            out.push(Output::Checkpoint { op, checkpoint: Box::new(checkpoint) });
        } else {
            self.on_checkpoint_saved(op, out);
        }
    }

    fn on_checkpoint_saved(&mut self, op: OpId, out: &mut Outbox) -> bool {
        let Some((meta, keep_after)) = self.checkpointing.on_saved(op) else { return false };
        self.raft.compact(meta, keep_after);
        self.drop_log(keep_after, out);
        true
    }

    fn drop_log(&mut self, keep_after: LogIndex, out: &mut Outbox) {
        let mut writes = Vec::new();
        if let Some(wal) = &mut self.wal {
            wal.drop_before(keep_after.next(), &mut writes);
        }
        push_writes(writes, out);
    }

    pub(super) fn on_saved(&mut self, now: Now, op: OpId, out: &mut Outbox) {
        if !self.on_kept(op)
            && !self.on_checkpoint_saved(op, out)
            && let Some((_, meta, store)) = self.installing.take_if(|(installing, ..)| *installing == op)
        {
            self.installed(now, meta, store);
        }
    }

    fn applied_meta(&self) -> SnapshotMeta {
        self.raft.snapshot_meta(self.applied).expect("the last applied entry's term is known")
    }

    /// The next rows of a snapshot for a follower that needs what the log has no more.
    fn send_chunk(&mut self, now: Now, to: ServerId, seq: u64) {
        let meta = self.applied_meta();
        let store = &self.store;
        if let Some(chunk) = self.outgoing.chunk(to, seq, || (meta, store.clone())) {
            self.raft(now, |raft, cx| {
                raft.on_snapshot_data(cx, to, chunk.meta, seq, chunk.data, chunk.last);
            });
        }
    }

    /// A whole snapshot was received: durable first, effective then.
    fn install(&mut self, now: Now, meta: SnapshotMeta, store: crate::store::Store, out: &mut Outbox) {
        assert!(self.installing.is_none(), "Raft installs one snapshot at a time");
        if let Err(newer) = self.understands(store.format()) {
            return self.halt(format!("a snapshot from the leader: {newer}"), out);
        }
        if self.wal.is_none() {
            return self.installed(now, meta, store);
        }
        let op = self.op();
        let checkpoint = Checkpoint { meta: meta.clone(), store: store.clone(), dirty: None };
        self.installing = Some((op, meta, store));
        out.push(Output::Checkpoint { op, checkpoint: Box::new(checkpoint) });
    }

    fn installed(&mut self, now: Now, meta: SnapshotMeta, store: crate::store::Store) {
        assert!(meta.index > self.applied, "nothing is applied while a snapshot is installed");
        self.store = store;
        self.applied = meta.index;
        self.checkpointing.on_replaced();
        self.touched.push(WatchKey::All);
        self.publish = true;
        self.raft(now, |raft, cx| raft.on_snapshot_installed(cx, &meta));
        self.tell_group(now);
        self.on_caught_up(now);
    }

    pub(super) fn on_agent_effect(&mut self, now: Now, effect: agent::Effect, out: &mut Outbox) {
        match effect {
            agent::Effect::Probe { op, probe } => out.push(Output::Probe { op, probe }),
            agent::Effect::Cancel { op } => out.push(Output::Cancel { op }),
            // Who leaves is deregistered; it must not register itself again.
            agent::Effect::Propose { ticket, .. } if self.leaving.is_under_way() => {
                let refused = Err("this agent is leaving".to_owned());
                self.agent(now, |agent, cx| agent.on_proposed(cx, ticket, refused));
            }
            agent::Effect::FetchCatalog { ticket } | agent::Effect::FetchNode { ticket, .. }
                if self.leaving.is_under_way() =>
            {
                self.agent(now, |agent, cx| agent.on_catalog(cx, ticket, None));
            }
            agent::Effect::Propose { ticket, command } => {
                self.propose_for(now, Origin::Agent(ticket), command)
            }
            agent::Effect::FetchCatalog { ticket } => {
                let node = self.about.node.clone();
                self.fetch_catalog(now, ticket, node);
            }
            agent::Effect::FetchNode { ticket, node } => self.fetch_catalog(now, ticket, node),
            agent::Effect::Persist { changes, ticket } => self.save_local(ticket, changes),
            agent::Effect::Changed => {
                self.publish = true;
                self.answer_local_waits(now);
            }
        }
    }

    fn save_local(&mut self, ticket: u64, changes: Vec<(crate::Text, Option<bytes::Bytes>)>) {
        let reply =
            self.awaiting_save.take_if(|(awaited, ..)| *awaited == ticket).map(|(_, id, reply)| (id, reply));
        self.keep(changes, reply);
    }

    pub(super) fn on_agent_call(&mut self, now: Now, id: RequestId, call: agent::Call) {
        let settings = match &call {
            agent::Call::Reload { settings, .. } => Some(settings.clone()),
            _ => None,
        };
        let called = self.agent(now, |agent, cx| agent.call(cx, call));
        if let Some(settings) = settings.filter(|_| called.is_ok()) {
            let about = Arc::make_mut(&mut self.about);
            about.node_meta = settings.node_meta;
            about.front.discovery_max_stale = settings.discovery_max_stale;
        }
        match called {
            Ok(agent::CallDone::WhenPersisted(ticket)) => {
                self.awaiting_save = Some((ticket, id, HttpReply::text(200, "")));
            }
            Ok(agent::CallDone::Now) => self.replies.push((id, HttpReply::text(200, ""))),
            Err(error) => self.replies.push((id, HttpReply::text(error.status, error.text))),
        }
    }

    /// Encodes and sends what this step says to other servers.
    pub(super) fn send_frames(&mut self, out: &mut Outbox) {
        for (to, message) in std::mem::take(&mut self.frames) {
            let (address, datacenter) = self.rpc_address(to);
            let format = self.format_of(to);
            out.push(Output::Peer { to, address, datacenter, frame: message.encode(format) });
        }
    }
}

fn push_writes(writes: Vec<wal::Write>, out: &mut Outbox) {
    for write in writes {
        out.push(Output::Log(write));
    }
}
