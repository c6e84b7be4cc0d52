//! The simulated disk: forgets what was not synced, tears it by sectors, fills up, fails, slows down and rots.
//!
//! What it may do to a write that was not synced when the power goes: keep it, lose it, or keep any of its 512-byte
//! sectors and lose the others; each write by itself, in no order. A creation or removal that was not synced may be
//! undone, each by itself. A failed sync keeps some of what was written and gives no second chance to the rest, though
//! readers go on seeing it: that is how Linux behaves (Rebello and others, «Can Applications Recover from fsync
//! Failures?», ATC 2020). A process that dies without a loss of power loses nothing that was written.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proconsul_core::rng::Rng;
use proconsul_io_real::ports::Disk;

use crate::net::HostId;
use crate::time::sim_sleep;
use crate::trace::Trace;

/// What reaches a disk whole or not at all.
const SECTOR: usize = 512;

/// What goes wrong with a disk, beside loss of power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFaults {
    /// A sync takes between these, in simulated time (which counts in milliseconds).
    pub sync_latency: (Duration, Duration),
    /// Bytes that fit; a write beyond them fails, partly done.
    pub capacity: Option<u64>,
    /// Writes that fail with an I/O error, partly done, per thousand.
    pub write_errors: u32,
    /// Syncs that fail with an I/O error, per thousand.
    pub sync_errors: u32,
    /// Reads that fail with an I/O error, per thousand.
    pub read_errors: u32,
    /// Reads that give less than was asked for, per thousand. No fault, but rare on real disks.
    pub short_reads: u32,
}

impl Default for DiskFaults {
    fn default() -> Self {
        DiskFaults {
            sync_latency: (Duration::ZERO, Duration::from_millis(3)),
            capacity: None,
            write_errors: 0,
            sync_errors: 0,
            read_errors: 0,
            short_reads: 0,
        }
    }
}

/// What a loss of power did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerLoss {
    /// Writes that were not synced.
    pub unsynced: usize,
    /// Of them, those that are gone.
    pub lost: usize,
    /// Of them, those of which some sectors are gone.
    pub torn: usize,
    /// Creations and removals that were undone.
    pub undone: usize,
}

/// A host's disk. Clones share it; it is kept by whoever owns the world and outlives every process on the host.
#[derive(Clone)]
pub struct SimDisk {
    host: HostId,
    trace: Trace,
    state: Arc<Mutex<State>>,
}

struct State {
    rng: Rng,
    faults: DiskFaults,
    files: BTreeMap<FileId, File>,
    next_file: FileId,
    /// The directory as a process sees it.
    names: BTreeMap<String, FileId>,
    /// The directory as it is found after a loss of power, if every pending change is undone.
    durable_names: BTreeMap<String, FileId>,
}

type FileId = u64;

#[derive(Default)]
struct File {
    /// What a reader sees.
    view: Vec<u8>,
    /// What is on the platter.
    durable: Vec<u8>,
    /// What was written since the last sync, in order.
    pending: Vec<Pending>,
}

struct Pending {
    offset: usize,
    content: Content,
}

enum Content {
    Bytes(Bytes),
    Zeros(usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Torn,
    Lost,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(host: HostId, rng: Rng, faults: DiskFaults, trace: Trace) -> SimDisk {
        let state = State {
            rng,
            faults,
            files: BTreeMap::new(),
            next_file: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
        };
        SimDisk { host, trace, state: Arc::new(Mutex::new(state)) }
    }

    /// Changes what goes wrong from here on.
    pub fn set_faults(&self, change: impl FnOnce(&mut DiskFaults)) {
        // Not under the lock: the change may ask the disk something.
        let mut faults = self.lock().faults.clone();
        change(&mut faults);
        self.lock().faults = faults;
    }

    /// The power goes. To be called while no process runs on the host.
    pub fn lose_power(&self) -> PowerLoss {
        let mut state = self.lock();
        let State { rng, files, names, durable_names, .. } = &mut *state;
        let mut loss = PowerLoss::default();
        let changed: Vec<String> = names
            .keys()
            .chain(durable_names.keys())
            .filter(|name| names.get(*name) != durable_names.get(*name))
            .cloned()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        for name in changed {
            if rng.below(2) == 0 {
                loss.undone += 1;
                match durable_names.get(&name) {
                    Some(file) => names.insert(name, *file),
                    None => names.remove(&name),
                };
            }
        }
        *durable_names = names.clone();
        files.retain(|id, _| names.values().any(|used| used == id));
        for file in files.values_mut() {
            for write in std::mem::take(&mut file.pending) {
                loss.unsynced += 1;
                match file.settle(&write, rng) {
                    Fate::Kept => {}
                    Fate::Torn => loss.torn += 1,
                    Fate::Lost => loss.lost += 1,
                }
            }
            file.view.clone_from(&file.durable);
        }
        drop(state);
        let counts = [loss.unsynced, loss.lost, loss.torn, loss.undone].map(|count| count as u8);
        self.trace.record("disk power loss", self.host, &counts);
        loss
    }

    /// Flips one random bit of what was written and is not blank; `None` if there is nothing. Gives file and offset.
    pub fn rot(&self) -> Option<(String, u64)> {
        let mut state = self.lock();
        let State { rng, files, names, .. } = &mut *state;
        let used: Vec<(&String, FileId, usize)> = names
            .iter()
            .filter_map(|(name, id)| {
                let last = files[id].durable.iter().rposition(|byte| *byte != 0)?;
                Some((name, *id, last + 1))
            })
            .collect();
        let total: usize = used.iter().map(|(_, _, length)| length).sum();
        let mut drawn = usize::try_from(rng.below(total as u64)).ok()?;
        for (name, id, length) in used {
            if drawn < length {
                let bit = 1u8 << rng.below(8);
                let file = files.get_mut(&id).expect("every name has its file");
                file.durable[drawn] ^= bit;
                if let Some(seen) = file.view.get_mut(drawn) {
                    *seen ^= bit;
                }
                let found = (name.clone(), drawn as u64);
                drop(state);
                self.trace.record("disk rot", self.host, &found.1.to_le_bytes());
                return Some(found);
            }
            drawn -= length;
        }
        None
    }

    /// The disk is replaced by an empty one.
    pub fn wipe(&self) {
        let mut state = self.lock();
        state.files.clear();
        state.names.clear();
        state.durable_names.clear();
        drop(state);
        self.trace.record("disk wiped", self.host, &[]);
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a simulation runs on one thread and ends with its first panic")
    }

    fn put(&self, name: &str, offset: u64, content: Content) -> io::Result<()> {
        let mut state = self.lock();
        let id = state.find("write", name)?;
        let offset = usize::try_from(offset).expect("simulated files are small");
        let length = content.len();
        let fault = state.write_fault(id, offset + length);
        let written = match fault {
            None => content,
            // How much of a failed write is done nobody knows.
            Some(_) => content
                .prefix(usize::try_from(state.rng.below(length as u64 + 1)).expect("not above a length")),
        };
        let room = state.room_for(id);
        let file = state.files.get_mut(&id).expect("every name has its file");
        let written = match fault {
            Some(ErrorKind::StorageFull) => written.prefix(room.saturating_sub(offset)),
            _ => written,
        };
        written.put(&mut file.view, offset, 0..written.len());
        file.pending.push(Pending { offset, content: written });
        match fault {
            None => Ok(()),
            Some(ErrorKind::StorageFull) => {
                let text = format!("cannot write {name}: No space left on device (os error 28)");
                Err(io::Error::new(ErrorKind::StorageFull, text))
            }
            Some(_) => Err(broken("write", name)),
        }
    }
}

impl State {
    fn find(&self, action: &str, name: &str) -> io::Result<FileId> {
        self.names.get(name).copied().ok_or_else(|| {
            io::Error::new(
                ErrorKind::NotFound,
                format!("cannot {action} {name}: No such file or directory (os error 2)"),
            )
        })
    }

    fn strikes(&mut self, per_thousand: u32) -> bool {
        // Nothing is drawn for a fault that is not asked for: a plan without it runs as before.
        per_thousand > 0 && self.rng.below(1000) < u64::from(per_thousand)
    }

    fn used(&self) -> u64 {
        self.names.values().map(|id| self.files[id].view.len() as u64).sum()
    }

    fn write_fault(&mut self, id: FileId, end: usize) -> Option<ErrorKind> {
        if end > self.room_for(id).max(self.files[&id].view.len()) {
            return Some(ErrorKind::StorageFull);
        }
        self.strikes(self.faults.write_errors).then_some(ErrorKind::Other)
    }

    /// How large a file may become.
    fn room_for(&self, id: FileId) -> usize {
        let Some(capacity) = self.faults.capacity else { return usize::MAX };
        let own = self.files[&id].view.len() as u64;
        usize::try_from(capacity.saturating_sub(self.used() - own)).unwrap_or(usize::MAX)
    }
}

impl File {
    /// Decides what becomes of a write that was not synced.
    fn settle(&mut self, write: &Pending, rng: &mut Rng) -> Fate {
        let fate = [Fate::Kept, Fate::Torn, Fate::Lost][rng.below(3) as usize];
        let length = write.content.len();
        let mut from = 0;
        while from < length {
            let sector_end = (write.offset + from + 1).next_multiple_of(SECTOR) - write.offset;
            let to = sector_end.min(length);
            if fate == Fate::Kept || (fate == Fate::Torn && rng.below(2) == 0) {
                write.content.put(&mut self.durable, write.offset, from..to);
            }
            from = to;
        }
        fate
    }
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Content::Bytes(bytes) => bytes.len(),
            Content::Zeros(length) => *length,
        }
    }

    fn prefix(&self, length: usize) -> Content {
        match self {
            Content::Bytes(bytes) => Content::Bytes(bytes.slice(..length.min(bytes.len()))),
            Content::Zeros(all) => Content::Zeros(length.min(*all)),
        }
    }

    /// Puts a part of a content that begins at `offset` into a file.
    fn put(&self, file: &mut Vec<u8>, offset: usize, part: std::ops::Range<usize>) {
        if part.is_empty() {
            return;
        }
        let to = offset + part.end;
        if file.len() < to {
            file.resize(to, 0);
        }
        let place = &mut file[offset + part.start..to];
        match self {
            Content::Bytes(bytes) => place.copy_from_slice(&bytes[part]),
            Content::Zeros(_) => place.fill(0),
        }
    }
}

fn broken(action: &str, name: &str) -> io::Error {
    io::Error::other(format!("cannot {action} {name}: Input/output error (os error 5)"))
}

#[async_trait]
impl Disk for SimDisk {
    async fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    async fn len(&mut self, name: &str) -> io::Result<u64> {
        let state = self.lock();
        let id = state.find("read", name)?;
        Ok(state.files[&id].view.len() as u64)
    }

    async fn read_at(&mut self, name: &str, offset: u64, length: u64) -> io::Result<Bytes> {
        let mut state = self.lock();
        let id = state.find("read", name)?;
        let errors = state.faults.read_errors;
        if state.strikes(errors) {
            return Err(broken("read", name));
        }
        let size = state.files[&id].view.len() as u64;
        let mut length = length.min(size.saturating_sub(offset));
        let short = state.faults.short_reads;
        if length > 1 && state.strikes(short) {
            length = 1 + state.rng.below(length - 1);
        }
        let from = usize::try_from(offset.min(size)).expect("simulated files are small");
        let to = from + usize::try_from(length).expect("simulated files are small");
        Ok(Bytes::copy_from_slice(&state.files[&id].view[from..to]))
    }

    async fn create(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        if state.names.contains_key(name) {
            let text = format!("cannot create {name}: File exists (os error 17)");
            return Err(io::Error::new(ErrorKind::AlreadyExists, text));
        }
        let id = state.next_file;
        state.next_file += 1;
        state.files.insert(id, File::default());
        state.names.insert(name.to_owned(), id);
        drop(state);
        self.trace.record("disk create", self.host, name.as_bytes());
        Ok(())
    }

    async fn write_at(&mut self, name: &str, offset: u64, bytes: Bytes) -> io::Result<()> {
        self.trace.record("disk write", self.host, &bytes);
        self.put(name, offset, Content::Bytes(bytes))
    }

    async fn zero(&mut self, name: &str, from: u64, to: u64) -> io::Result<()> {
        self.trace.record("disk zero", self.host, &to.to_le_bytes());
        let length = usize::try_from(to.saturating_sub(from)).expect("simulated files are small");
        self.put(name, from, Content::Zeros(length))
    }

    async fn sync(&mut self, name: &str) -> io::Result<()> {
        let (latency, id) = {
            let mut state = self.lock();
            let id = state.find("sync", name)?;
            let (min, max) = state.faults.sync_latency;
            (min + state.rng.duration_below(max.saturating_sub(min)), id)
        };
        sim_sleep(latency).await;
        let mut state = self.lock();
        let errors = state.faults.sync_errors;
        let failed = state.strikes(errors);
        let State { rng, files, .. } = &mut *state;
        // The disk may have been replaced in the meantime.
        let Some(file) = files.get_mut(&id) else { return Err(broken("sync", name)) };
        for write in std::mem::take(&mut file.pending) {
            if failed {
                file.settle(&write, rng);
            } else {
                write.content.put(&mut file.durable, write.offset, 0..write.content.len());
            }
        }
        drop(state);
        self.trace.record("disk sync", self.host, &[u8::from(failed)]);
        if failed { Err(broken("sync", name)) } else { Ok(()) }
    }

    async fn sync_dir(&mut self) -> io::Result<()> {
        let mut state = self.lock();
        let errors = state.faults.sync_errors;
        if state.strikes(errors) {
            return Err(broken("sync", "the directory"));
        }
        state.durable_names = state.names.clone();
        let State { files, names, .. } = &mut *state;
        files.retain(|id, _| names.values().any(|used| used == id));
        drop(state);
        self.trace.record("disk sync directory", self.host, &[]);
        Ok(())
    }

    async fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.find("remove", name)?;
        state.names.remove(name);
        drop(state);
        self.trace.record("disk remove", self.host, name.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../io-real/src/ports/disk_suite.rs"]
mod disk_suite;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_sim;

    const HOST: HostId = HostId(1);

    fn disk(seed: u64, faults: DiskFaults) -> SimDisk {
        SimDisk::new(HOST, Rng::from_seed(seed), faults, Trace::default())
    }

    fn view(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
        let state = disk.lock();
        state.names.get(name).map(|id| state.files[id].view.clone())
    }

    /// A file with content, both durable.
    async fn durable_file(disk: &mut SimDisk, content: &[u8]) {
        disk.create("f").await.expect("created");
        disk.write_at("f", 0, Bytes::copy_from_slice(content)).await.expect("written");
        disk.sync("f").await.expect("synced");
        disk.sync_dir().await.expect("synced");
    }

    #[test]
    fn the_simulated_disk_keeps_the_contract_of_a_disk() {
        in_sim(1, || async {
            let faults = DiskFaults { short_reads: 500, ..DiskFaults::default() };
            disk_suite::a_disk_keeps_its_contract(&mut disk(1, faults)).await;
        });
    }

    #[test]
    fn a_log_on_it_recovers_what_was_acknowledged_after_each_loss_of_power() {
        for seed in 0..20 {
            in_sim(seed, move || async move {
                let faults = DiskFaults { short_reads: 300, ..DiskFaults::default() };
                let reopen = |disk: SimDisk| {
                    disk.lose_power();
                    disk
                };
                disk_suite::a_log_recovers_what_was_acknowledged(disk(seed, faults), reopen).await;
            });
        }
    }

    #[test]
    fn a_log_survives_any_moment_of_a_full_or_failing_disk() {
        let mut failed = 0;
        for seed in 0..60 {
            failed += in_sim(seed, move || async move {
                let disk = disk(seed, DiskFaults::default());
                let mut acknowledged = 0;
                let mut failed = 0;
                let mut plan = Rng::from_seed(seed ^ 0xff);
                for _ in 0..6 {
                    let (mut log, found) = disk_suite::Log::open(disk.clone()).await;
                    assert!(found.entries.len() >= acknowledged, "{} of {acknowledged}", found.entries.len());
                    let capacity = (plan.below(3) == 0).then(|| disk.used() + 3000);
                    disk.set_faults(|faults| {
                        faults.write_errors = 50;
                        faults.sync_errors = 50;
                        faults.capacity = capacity;
                    });
                    acknowledged = found.entries.len();
                    for _ in 0..20 {
                        if let Err(error) = log.append(plan.below(1500) as usize).await {
                            assert!(error.contains("cannot "), "{error}");
                            failed += 1;
                            break;
                        }
                        acknowledged += 1;
                    }
                    disk.set_faults(|faults| *faults = DiskFaults::default());
                    if plan.below(2) == 0 {
                        disk.lose_power();
                    }
                }
                failed
            });
        }
        assert!(failed > 100, "only {failed} failures in all");
    }

    #[test]
    fn a_killed_process_loses_nothing_but_a_loss_of_power_does() {
        in_sim(1, || async {
            let mut kept = 0;
            for seed in 0..50 {
                let mut disk = disk(seed, DiskFaults::default());
                durable_file(&mut disk, b"old").await;
                disk.write_at("f", 0, Bytes::from_static(b"new")).await.expect("written");
                assert_eq!(view(&disk.clone(), "f").as_deref(), Some(&b"new"[..]));
                disk.lose_power();
                kept += u32::from(view(&disk, "f").expect("durable") == b"new");
            }
            assert!((5..45).contains(&kept), "{kept}");
        });
    }

    #[test]
    fn an_interrupted_write_is_kept_by_whole_sectors() {
        in_sim(1, || async {
            let mut mixed = 0;
            for seed in 0..50 {
                let mut disk = disk(seed, DiskFaults::default());
                durable_file(&mut disk, &[1; 3000]).await;
                disk.write_at("f", 100, vec![2; 2500].into()).await.expect("written");
                disk.lose_power();
                let found = view(&disk, "f").expect("durable");
                let old = |at: usize| !(100..2600).contains(&at);
                for (sector, bytes) in found.chunks(512).enumerate() {
                    let inside: Vec<u8> = bytes
                        .iter()
                        .enumerate()
                        .filter(|(at, _)| !old(sector * 512 + at))
                        .map(|(_, byte)| *byte)
                        .collect();
                    assert!(inside.iter().all(|byte| *byte == inside[0]), "sector {sector} is torn");
                }
                mixed += u32::from(found.contains(&2) && found[100..2600].contains(&1));
            }
            assert!(mixed > 5, "{mixed}");
        });
    }

    #[test]
    fn creations_and_removals_without_a_sync_may_be_undone() {
        in_sim(1, || async {
            let (mut created, mut removed) = (0, 0);
            for seed in 0..50 {
                let mut disk = disk(seed, DiskFaults::default());
                durable_file(&mut disk, b"old").await;
                disk.remove("f").await.expect("removed");
                disk.create("g").await.expect("created");
                let loss = disk.lose_power();
                created += u32::from(view(&disk, "g").is_some());
                removed += u32::from(view(&disk, "f").is_none());
                assert_eq!(
                    loss.undone,
                    usize::from(view(&disk, "f").is_some()) + usize::from(view(&disk, "g").is_none())
                );
            }
            assert!((5..45).contains(&created) && (5..45).contains(&removed), "{created} {removed}");
        });
    }

    #[test]
    fn after_a_failed_sync_a_second_one_saves_nothing() {
        in_sim(1, || async {
            let mut lost = 0;
            for seed in 0..50 {
                let mut disk = disk(seed, DiskFaults::default());
                durable_file(&mut disk, b"old").await;
                disk.write_at("f", 0, Bytes::from_static(b"new")).await.expect("written");
                disk.set_faults(|faults| faults.sync_errors = 1000);
                assert!(disk.sync("f").await.expect_err("broken").to_string().contains("cannot sync f"));
                disk.set_faults(|faults| faults.sync_errors = 0);
                disk.sync("f").await.expect("it says so");
                assert_eq!(view(&disk, "f").as_deref(), Some(&b"new"[..]));
                disk.lose_power();
                lost += u32::from(view(&disk, "f").expect("durable") == b"old");
            }
            assert!(lost > 10, "{lost}");
        });
    }

    #[test]
    fn a_full_disk_takes_what_fits_and_says_so() {
        in_sim(1, || async {
            let mut disk = disk(1, DiskFaults { capacity: Some(1000), ..DiskFaults::default() });
            durable_file(&mut disk, &[1; 900]).await;
            let error = disk.write_at("f", 900, vec![2; 200].into()).await.expect_err("full");
            assert_eq!(error.kind(), ErrorKind::StorageFull);
            assert!(disk.used() <= 1000);
            disk.write_at("f", 100, vec![3; 200].into()).await.expect("does not grow");
        });
    }

    #[test]
    fn rot_changes_one_bit_that_was_written() {
        in_sim(1, || async {
            let mut disk = disk(1, DiskFaults::default());
            assert_eq!(disk.rot(), None);
            durable_file(&mut disk, &[1; 100]).await;
            disk.zero("f", 100, 5000).await.expect("written");
            let (name, offset) = disk.rot().expect("something to rot");
            let found = view(&disk, &name).expect("a file");
            assert!(offset < 100);
            assert_eq!((found[offset as usize] ^ 1).count_ones(), 1);
        });
    }
}
