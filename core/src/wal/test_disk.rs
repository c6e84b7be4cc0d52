//! A disk for tests: what was not synced may be lost sector by sector, or entry by entry in the directory.

use std::collections::BTreeMap;

use super::{BadLog, DiskOp, Opened, Options, Recovery};
use crate::rng::Rng;

#[derive(Clone, Debug, Default)]
pub(crate) struct TestDisk {
    /// What a reader sees.
    pub(crate) files: BTreeMap<String, File>,
    durable_names: BTreeMap<String, File>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct File {
    /// What a reader sees.
    pub(crate) view: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

impl File {
    fn put(bytes: &mut Vec<u8>, at: usize, content: &[u8]) {
        if bytes.len() < at + content.len() {
            bytes.resize(at + content.len(), 0);
        }
        bytes[at..at + content.len()].copy_from_slice(content);
    }

    fn crash(&mut self, rng: &mut Rng) {
        for (offset, content) in self.pending.drain(..) {
            let fate = rng.below(3);
            let mut from = 0;
            while from < content.len() {
                let sector_end = (offset + from + 1).next_multiple_of(512) - offset;
                let to = sector_end.min(content.len());
                if fate == 0 || (fate == 1 && rng.below(2) == 0) {
                    Self::put(&mut self.durable, offset + from, &content[from..to]);
                }
                from = to;
            }
        }
        self.view = self.durable.clone();
    }
}

impl TestDisk {
    pub(crate) fn perform(&mut self, op: &DiskOp) {
        match op {
            DiskOp::Create { name } => {
                assert!(self.files.insert(name.clone(), File::default()).is_none(), "{name} exists");
            }
            DiskOp::Zero { name, from, to } => self.write(name, *from, &vec![0; (to - from) as usize]),
            DiskOp::Write { name, offset, bytes } => self.write(name, *offset, bytes),
            DiskOp::Sync { name } => {
                let file = self.files.get_mut(name).expect("a file");
                for (offset, content) in std::mem::take(&mut file.pending) {
                    File::put(&mut file.durable, offset, &content);
                }
            }
            DiskOp::SyncDir => self.durable_names = self.files.clone(),
            DiskOp::Remove { name } => drop(self.files.remove(name).expect("a file")),
        }
    }

    #[cfg(test)]
    pub(crate) fn perform_all(&mut self, write: &super::Write) {
        write.ops.iter().for_each(|op| self.perform(op));
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) {
        let file = self.files.get_mut(name).expect("a file");
        File::put(&mut file.view, offset as usize, bytes);
        file.pending.push((offset as usize, bytes.to_vec()));
    }

    /// Power is lost: each write that was not synced is kept, lost, or kept in some of its sectors; each change of the
    /// directory that was not synced is kept or undone.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        let names: Vec<String> = self.files.keys().chain(self.durable_names.keys()).cloned().collect();
        for name in names {
            let visible = self.files.contains_key(&name);
            if visible != self.durable_names.contains_key(&name) && rng.below(2) == 0 {
                match self.durable_names.get(&name) {
                    Some(removed) => drop(self.files.insert(name, removed.clone())),
                    None => drop(self.files.remove(&name)),
                }
            }
        }
        self.files.values_mut().for_each(|file| file.crash(rng));
        self.durable_names = self.files.clone();
    }

    #[cfg(test)]
    pub(crate) fn recover(&self, options: Options) -> Result<Opened, BadLog> {
        self.recover_with(options, Rng::from_seed(self.files.len() as u64))
    }

    /// What a process that starts finds; `rng` draws the salts of what it writes.
    pub(crate) fn recover_with(&self, options: Options, rng: Rng) -> Result<Opened, BadLog> {
        let mut recovery = Recovery::begin(options, self.files.keys());
        while let Some(name) = recovery.next_file() {
            recovery.feed(&self.files[&name].view)?;
        }
        Ok(recovery.finish(rng))
    }

    #[cfg(test)]
    pub(crate) fn flip(&mut self, name: &str, bit: usize) {
        self.files.get_mut(name).expect("a file").view[bit / 8] ^= 1 << (bit % 8);
    }
}
