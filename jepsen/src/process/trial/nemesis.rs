//! Lets the faults of a plan happen, and undoes them.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::plan::{Kind, Lane, Step};
use crate::history::Nanos;
use crate::process::client::Client;
use crate::process::cluster::{Cluster, get, retry_join};
use crate::process::recorder::Recorder;
use crate::workload::Random;

/// How long the question for the leader may take, and every other question of this module.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How often it looks whether a process has ended by itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How much later a change of the group is tried again that cannot be made yet.
const PUT_OFF: Duration = Duration::from_secs(2);

/// How long an agent that was asked to leave is given to end.
const LEAVE_WITHIN: Duration = Duration::from_secs(4);

/// Something that happened to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it happened to.
    pub lane: Lane,
    /// What, for a person.
    pub what: String,
    /// When it began, on the clock of the history.
    pub from: Nanos,
    /// When it was undone, if it was.
    pub until: Option<Nanos>,
    /// Whether it is something that should never happen.
    pub bad: bool,
}

/// What is to be done at a moment.
enum Action {
    Begin(Step),
    /// Undoes the fault of the event with this number.
    Undo(usize, Undo),
}

enum Undo {
    /// These agents run again.
    Start(Vec<usize>),
    Resume(usize),
    Mend(Vec<(Ipv4Addr, Ipv4Addr)>),
    /// The disk of this server has room again.
    Room(usize, PathBuf),
    /// This server's clock is right again.
    RightClock(usize),
    /// This new server leaves.
    Depart(usize),
    /// This agent, which may still be about to leave, is gone for good.
    Gone(usize),
}

/// The faults of a run.
pub(super) struct Nemesis<'a> {
    pub(super) cluster: &'a mut Cluster,
    recorder: Arc<Recorder>,
    binary: PathBuf,
    /// The library that shifts clocks, where there is one.
    shift: Option<PathBuf>,
    begun: Instant,
    length: Duration,
    queue: Vec<(Duration, Action)>,
    /// Agents whose process may end by itself.
    leaving: BTreeSet<usize>,
    pub(super) events: Vec<Event>,
}

impl<'a> Nemesis<'a> {
    pub(super) fn new(
        cluster: &'a mut Cluster,
        recorder: &Arc<Recorder>,
        binary: &Path,
        shift: Option<PathBuf>,
    ) -> Nemesis<'a> {
        Nemesis {
            cluster,
            recorder: Arc::clone(recorder),
            binary: binary.to_owned(),
            shift,
            begun: Instant::now(),
            length: Duration::ZERO,
            queue: Vec::new(),
            leaving: BTreeSet::new(),
            events: Vec::new(),
        }
    }

    /// Performs the steps, then undoes what is left of them, and returns no earlier than after the given time.
    pub(super) async fn run(&mut self, steps: &[Step], length: Duration) -> io::Result<()> {
        self.begun = Instant::now();
        self.length = length;
        self.queue = steps.iter().map(|step| (step.at, Action::Begin(*step))).collect();
        loop {
            let next = self.queue.iter().enumerate().min_by_key(|(_, (at, _))| *at).map(|(place, _)| place);
            let at = next.map_or(length, |place| self.queue[place].0);
            while self.begun.elapsed() < at {
                self.look()?;
                tokio::time::sleep(LOOK_EVERY.min(at.saturating_sub(self.begun.elapsed()))).await;
            }
            let Some(place) = next else { break };
            match self.queue.swap_remove(place).1 {
                Action::Begin(step) => self.begin(step).await?,
                Action::Undo(event, undo) => self.undo(event, undo).await?,
            }
        }
        self.look()
    }

    fn now(&self) -> Nanos {
        self.recorder.now()
    }

    fn schedule(&mut self, after: Duration, event: usize, undo: Undo) {
        self.queue.push((self.begun.elapsed() + after, Action::Undo(event, undo)));
    }

    fn note(&mut self, lane: Lane, what: String, bad: bool) -> usize {
        let from = self.now();
        self.events.push(Event { lane, what, from, until: None, bad });
        self.events.len() - 1
    }

    /// Notices processes that ended by themselves, and has them started again.
    pub(super) fn look(&mut self) -> io::Result<()> {
        for at in 0..self.cluster.agents.len() {
            let Some(status) = self.cluster.agents[at].ended()? else { continue };
            if self.leaving.contains(&at) {
                continue;
            }
            let full = self
                .queue
                .iter()
                .any(|(_, action)| matches!(action, Action::Undo(_, Undo::Room(full, _)) if *full == at));
            let name = self.cluster.agents[at].name().to_owned();
            let event = self.note(Lane::Processes, format!("{name} ended by itself: {status}"), !full);
            if !full {
                self.schedule(Duration::from_millis(500), event, Undo::Start(vec![at]));
            }
        }
        Ok(())
    }

    async fn begin(&mut self, step: Step) -> io::Result<()> {
        let mut random = Random::new(step.draw);
        let leader = leader(self.cluster).await;
        let target = self.target(step.leader, leader, &mut random);
        let Some(target) =
            target.filter(|_| step.kind != Kind::KillClient).or_else(|| self.client(&mut random))
        else {
            return Ok(());
        };
        let changes_group = matches!(step.kind, Kind::Leave | Kind::Join | Kind::RemovePeer | Kind::Wipe);
        if changes_group && !self.group_is_whole().await {
            // One that has come back gets its vote after a while.
            let later = self.begun.elapsed() + PUT_OFF;
            if later + step.lasts < self.length {
                self.queue.push((later, Action::Begin(step)));
                return Ok(());
            }
            let what = format!("{}: left out, the group was not whole", step.kind);
            let event = self.note(step.kind.lane(), what, false);
            self.events[event].until = Some(self.now());
            return Ok(());
        }
        let role = if Some(target) == leader { " (leader)" } else { "" };
        let name = format!("{}{role}", self.cluster.agents[target].name());
        match step.kind {
            Kind::Kill | Kind::KillClient => {
                let event = self.note(Lane::Processes, format!("kill -9 of {name}"), false);
                self.cluster.agents[target].kill();
                self.schedule(step.lasts, event, Undo::Start(vec![target]));
            }
            Kind::KillAll => {
                let all: Vec<usize> = (0..self.cluster.servers().len()).collect();
                let event = self.note(Lane::Processes, "kill -9 of all servers".to_owned(), false);
                for server in &all {
                    self.cluster.agents[*server].kill();
                }
                self.schedule(step.lasts, event, Undo::Start(all));
            }
            Kind::Pause => {
                let event = self.note(Lane::Processes, format!("{name} stopped"), false);
                self.cluster.agents[target].pause()?;
                self.schedule(step.lasts, event, Undo::Resume(target));
            }
            Kind::Restart => {
                let event = self.note(Lane::Processes, format!("SIGTERM to {name}"), false);
                self.leaving.insert(target);
                self.cluster.agents[target].send(Signal::TERM)?;
                self.schedule(step.lasts.max(LEAVE_WITHIN / 2), event, Undo::Start(vec![target]));
            }
            Kind::Cut | Kind::OneWay => self.cut(step, target, &name, &mut random)?,
            Kind::Disk => {
                let event = self.note(Lane::Processes, format!("disk of {name} full"), false);
                let ballast = self.cluster.agents[target].directory().join("data/ballast");
                fill(&ballast)?;
                self.schedule(step.lasts, event, Undo::Room(target, ballast));
            }
            Kind::Clock => {
                let Some(library) = self.shift.clone() else { return Ok(()) };
                // From some milliseconds to some hours.
                let off_ms = 1_u64 << (4 + random.below(21));
                let sign = if random.below(2) == 0 { '+' } else { '-' };
                let off = format!("{sign}{}.{:03}", off_ms / 1_000, off_ms % 1_000);
                let event = self.note(Lane::Processes, format!("clock of {name} off by {off} s"), false);
                let agent = &mut self.cluster.agents[target];
                agent.kill();
                agent.set_environment(vec![
                    ("LD_PRELOAD".to_owned(), library.to_string_lossy().into_owned()),
                    ("FAKETIME".to_owned(), off),
                    ("FAKETIME_DONT_FAKE_MONOTONIC".to_owned(), "1".to_owned()),
                ]);
                agent.start()?;
                self.schedule(step.lasts, event, Undo::RightClock(target));
            }
            Kind::Leave => {
                let event = self.note(Lane::Processes, format!("{name} leaves"), false);
                self.leaving.insert(target);
                self.tell(target, "PUT", "/v1/agent/leave".to_owned());
                self.schedule(step.lasts.max(LEAVE_WITHIN), event, Undo::Start(vec![target]));
            }
            Kind::Join => self.join(step)?,
            Kind::RemovePeer => {
                let event = self.note(Lane::Processes, format!("{name} killed and removed"), false);
                let peer = self.cluster.agents[target].rpc();
                self.cluster.agents[target].kill();
                let others = (0..self.cluster.servers().len()).filter(|server| *server != target);
                for other in others.collect::<Vec<_>>() {
                    self.tell(other, "DELETE", format!("/v1/operator/raft/peer?address={peer}"));
                }
                self.schedule(step.lasts, event, Undo::Start(vec![target]));
            }
            Kind::Wipe => {
                let event = self.note(Lane::Processes, format!("{name} killed and wiped"), false);
                self.cluster.agents[target].kill();
                empty(&self.cluster.agents[target].directory().join("data"))?;
                self.schedule(step.lasts, event, Undo::Start(vec![target]));
            }
            Kind::Transfer => {
                let asked = self.cluster.agents[leader.unwrap_or(target)].http();
                let event = self.note(Lane::Processes, "leadership given away".to_owned(), false);
                let mut http = Client::with_timeout(asked, ANSWER_WITHIN * 3);
                let said = match http.request("PUT", "/v1/operator/raft/transfer-leader", b"").await {
                    Ok(answer) if answer.status == 200 => "done".to_owned(),
                    Ok(answer) => format!("status {}", answer.status),
                    Err(error) => error.to_string(),
                };
                self.events[event].what = format!("leadership given away: {said}");
                self.events[event].until = Some(self.now());
            }
        }
        Ok(())
    }

    fn cut(&mut self, step: Step, target: usize, name: &str, random: &mut Random) -> io::Result<()> {
        let addresses: Vec<Ipv4Addr> = self.cluster.agents.iter().map(|agent| agent.address()).collect();
        let aim = addresses[target];
        let others: Vec<Ipv4Addr> = addresses.iter().copied().filter(|other| *other != aim).collect();
        let from_aim = || others.iter().map(|other| (aim, *other));
        let to_aim = || others.iter().map(|other| (*other, aim));
        let (what, links): (String, Vec<_>) = match (step.kind, random.below(3)) {
            (Kind::Cut, 0) => {
                let (mut left, mut right) = (Vec::new(), Vec::new());
                for agent in &self.cluster.agents {
                    if random.below(2) == 0 { left.push(agent) } else { right.push(agent) }
                }
                let names = |part: &[&crate::process::agent::Agent]| {
                    part.iter().map(|agent| agent.name()).collect::<Vec<_>>().join(", ")
                };
                let what = format!("cut between {{{}}} and {{{}}}", names(&left), names(&right));
                let pairs =
                    left.iter().flat_map(|one| right.iter().map(|other| (one.address(), other.address())));
                (what, pairs.flat_map(|(one, other)| [(one, other), (other, one)]).collect())
            }
            (Kind::Cut, _) => (format!("{name} cut off"), from_aim().chain(to_aim()).collect()),
            (_, 0) => (format!("nothing from {name} arrives"), from_aim().collect()),
            (_, 1) => (format!("nothing arrives at {name}"), to_aim().collect()),
            _ => {
                let drawn = usize::try_from(random.below(others.len() as u64)).expect("few agents");
                let other = others[drawn];
                let agent = self.cluster.agents.iter().find(|agent| agent.address() == other);
                let other_name = agent.map_or("another", |agent| agent.name());
                (format!("nothing from {name} arrives at {other_name}"), vec![(aim, other)])
            }
        };
        let event = self.note(Lane::Links, what, false);
        for (from, to) in &links {
            self.cluster.network().cut(*from, *to)?;
        }
        self.schedule(step.lasts, event, Undo::Mend(links));
        Ok(())
    }

    fn join(&mut self, step: Step) -> io::Result<()> {
        let known: Vec<String> =
            self.cluster.servers().iter().map(|server| server.address().to_string()).collect();
        let mut arguments = vec!["-server".to_owned()];
        arguments.extend(retry_join(&known));
        let name = format!("spare-{}", self.cluster.agents.len());
        let event = self.note(Lane::Processes, format!("{name} joins"), false);
        self.cluster.add(&self.binary, &name, arguments)?.start()?;
        // Long enough to get a vote.
        self.schedule(
            step.lasts.max(Duration::from_secs(5)),
            event,
            Undo::Depart(self.cluster.agents.len() - 1),
        );
        Ok(())
    }

    async fn undo(&mut self, event: usize, undo: Undo) -> io::Result<()> {
        match undo {
            Undo::Start(agents) => {
                for at in agents {
                    self.leaving.remove(&at);
                    let agent = &mut self.cluster.agents[at];
                    // One that does not leave in time is hurried.
                    agent.kill();
                    agent.start()?;
                }
            }
            Undo::Resume(at) => {
                // All servers may have been killed meanwhile.
                if self.cluster.agents[at].ended()?.is_none() && self.cluster.agents[at].is_paused() {
                    self.cluster.agents[at].resume()?;
                }
            }
            Undo::Mend(links) => {
                for (from, to) in self.not_cut_again(links) {
                    self.cluster.network().mend(from, to)?;
                }
            }
            Undo::Room(at, ballast) => {
                match std::fs::remove_file(ballast) {
                    // It has lost its directory meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    done => done?,
                }
                // One that ended for want of room is started again.
                self.cluster.agents[at].ended()?;
                if !self.cluster.agents[at].is_running() {
                    self.cluster.agents[at].start()?;
                }
            }
            Undo::RightClock(at) => {
                let agent = &mut self.cluster.agents[at];
                agent.kill();
                agent.set_environment(Vec::new());
                agent.start()?;
            }
            Undo::Depart(at) => {
                self.leaving.insert(at);
                self.tell(at, "PUT", "/v1/agent/leave".to_owned());
                self.schedule(LEAVE_WITHIN, event, Undo::Gone(at));
                return Ok(());
            }
            Undo::Gone(at) => self.cluster.agents[at].kill(),
        }
        self.events[event].until = Some(self.now());
        Ok(())
    }

    /// Those of the links that no other fault keeps cut. Faults of links follow each other, but one that began late, for
    /// want of servers that answer, may last into the next one.
    fn not_cut_again(&self, mut links: Vec<(Ipv4Addr, Ipv4Addr)>) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        for (_, action) in &self.queue {
            if let Action::Undo(_, Undo::Mend(others)) = action {
                links.retain(|link| !others.contains(link));
            }
        }
        links
    }

    /// A running server: the leader if that is asked for and known, otherwise another one.
    fn target(&self, wants_leader: bool, leader: Option<usize>, random: &mut Random) -> Option<usize> {
        let running: Vec<usize> =
            (0..self.cluster.servers().len()).filter(|at| self.cluster.agents[*at].is_running()).collect();
        if let Some(leader) = leader.filter(|leader| wants_leader && running.contains(leader)) {
            return Some(leader);
        }
        let others: Vec<usize> = running.iter().copied().filter(|at| Some(*at) != leader).collect();
        pick(&others, random).or_else(|| pick(&running, random))
    }

    fn client(&self, random: &mut Random) -> Option<usize> {
        let clients: Vec<usize> = (self.cluster.servers().len()..self.cluster.agents.len())
            .filter(|at| self.cluster.agents[*at].name().starts_with("client"))
            .filter(|at| self.cluster.agents[*at].is_running())
            .collect();
        pick(&clients, random)
    }

    /// Asks an agent for something and does not wait for it.
    fn tell(&self, at: usize, method: &'static str, path: String) {
        let address = self.cluster.agents[at].http();
        tokio::spawn(async move {
            // Whatever it answers is seen in what it does.
            let _ = Client::with_timeout(address, LEAVE_WITHIN).request(method, &path, b"").await;
        });
    }

    /// Whether all servers run and have a vote, and nobody else has.
    async fn group_is_whole(&self) -> bool {
        let servers = self.cluster.servers();
        if !servers.iter().all(|server| server.is_running()) {
            return false;
        }
        let path = "/v1/operator/raft/configuration";
        let answer = tokio::time::timeout(ANSWER_WITHIN, get(servers[0].http(), path)).await;
        let Ok(Ok(group)) = answer else { return false };
        let members = group["Servers"].as_array().map_or(&[][..], Vec::as_slice);
        let votes = |member: &Value| {
            member["Voter"] == true
                && servers.iter().any(|server| member["Address"] == server.rpc().to_string())
        };
        members.len() == servers.len() && members.iter().all(votes)
    }
}

fn pick(from: &[usize], random: &mut Random) -> Option<usize> {
    let many = u64::try_from(from.len()).ok().filter(|many| *many > 0)?;
    from.get(usize::try_from(random.below(many)).ok()?).copied()
}

/// The server that most running servers take for the leader, if any of them answers soon.
async fn leader(cluster: &Cluster) -> Option<usize> {
    let mut votes = vec![0; cluster.servers().len()];
    for server in cluster.servers().iter().filter(|server| server.is_running()) {
        let answer = tokio::time::timeout(ANSWER_WITHIN, get(server.http(), "/v1/status/leader")).await;
        let Ok(Ok(named)) = answer else { continue };
        let found = cluster.servers().iter().position(|other| named == other.rpc().to_string());
        if let Some(found) = found {
            votes[found] += 1;
        }
    }
    let most = (0..votes.len()).max_by_key(|at| votes[*at])?;
    (votes[most] > 0).then_some(most)
}

/// Writes until the disk is full.
fn fill(ballast: &Path) -> io::Result<()> {
    let mut file = std::fs::File::create(ballast)?;
    let block = vec![0; 64 * 1024];
    loop {
        match file.write_all(&block) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Removes everything in a directory, and not the directory, which may be a mount.
fn empty(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
