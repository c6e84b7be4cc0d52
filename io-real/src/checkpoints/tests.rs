use std::os::unix::fs::FileExt as _;

use proconsul_core::ids::{LogIndex, Term};
use proconsul_core::raft::Membership;
use proconsul_core::rng::Rng;
use proconsul_core::store::Store;
use proconsul_core::store::command::{Command, KvCommand, KvVerb};

use super::*;

/// Everything that a load gives, to be compared.
type Content = (SnapshotMeta, Vec<(RowKey, Vec<u8>)>, Vec<(Text, Bytes)>);

fn run<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(task)
}

fn load(directory: &Path) -> io::Result<Content> {
    let mut checkpoints = FileCheckpoints::open(directory)?;
    let Loaded { meta, store, local } = run(checkpoints.load())?;
    Ok((meta, store.rows_after(None, usize::MAX).0, local))
}

/// A state that is changed, saved, and compared with what a load gives.
struct Model {
    directory: tempfile::TempDir,
    checkpoints: FileCheckpoints,
    store: Store,
    dirty: Vec<RowKey>,
    index: u64,
    local: BTreeMap<Text, Bytes>,
}

impl Model {
    fn new() -> Model {
        // Nothing here needs a disk, and syncs of a busy one take long.
        let memory = Some(Path::new("/dev/shm")).filter(|memory| memory.is_dir());
        let directory = memory.map_or_else(tempfile::tempdir, tempfile::tempdir_in).expect("a directory");
        let checkpoints = FileCheckpoints::open(&directory.path().join("state")).expect("nothing is there");
        let (store, dirty, local) = (Store::new(), Vec::new(), BTreeMap::new());
        Model { directory, checkpoints, store, dirty, index: 1, local }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn apply(&mut self, verb: KvVerb, key: u64, value: Vec<u8>) {
        self.index += 1;
        let command = KvCommand { verb, key: format!("key/{key}").into(), value: value.into(), flags: 0 };
        self.dirty.extend(self.store.apply(self.index, &Command::Kv(command)).dirty);
    }

    fn save(&mut self, whole: bool) {
        let dirty = std::mem::take(&mut self.dirty);
        let dirty = (!whole).then_some(dirty);
        let checkpoint = Checkpoint { meta: self.meta(), store: self.store.clone(), dirty };
        run(self.checkpoints.save(&checkpoint)).expect("a good disk");
    }

    fn save_local(&mut self, key: u64, value: Option<&'static str>) {
        let key = Text::new(format!("service/{key}"));
        let value = value.map(|value| Bytes::from_static(value.as_bytes()));
        match value.clone() {
            Some(value) => self.local.insert(key.clone(), value),
            None => self.local.remove(&key),
        };
        run(self.checkpoints.save_local(&[(key, value)])).expect("a good disk");
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { index: LogIndex(self.index), term: Term(3), membership: Membership::default() }
    }

    fn content(&self) -> Content {
        (self.meta(), self.store.rows_after(None, usize::MAX).0, self.local.clone().into_iter().collect())
    }

    fn reopen(&mut self) {
        self.checkpoints = FileCheckpoints::open(&self.path()).expect("undamaged");
    }

    /// The names of all files and what they hold.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(self.path()).expect("a directory");
        let read = |path: PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
            (name, fs::read(path).expect("readable"))
        };
        let mut files: Vec<_> = entries.map(|entry| read(entry.expect("an entry").path())).collect();
        files.sort();
        files
    }
}

/// Writes what a file is to hold. It is not cut to nothing first: some file systems sync one that was.
fn overwrite(path: &Path, bytes: &[u8]) {
    let file = fs::File::options().write(true).create(true).truncate(false).open(path).expect("a file");
    file.write_all_at(bytes, 0).expect("written");
    file.set_len(bytes.len() as u64).expect("cut");
}

/// A state with a first save and changes, and what the agent keeps.
fn saved() -> Model {
    let mut model = Model::new();
    for round in 0..3 {
        for key in 0..6 {
            let verb = if (key + round) % 5 == 4 { KvVerb::Delete } else { KvVerb::Set };
            model.apply(verb, key, vec![round as u8 + 1; 20]);
        }
        model.save(false);
        model.save_local(round, Some("definition"));
    }
    model.save_local(0, None);
    model
}

/// Loads every damaged state that `damage` makes of one file: each is refused, or no different from what was saved.
/// Answers how many were refused.
fn is_refused_or_the_same(
    model: &Model,
    damage: impl Fn(&[u8], usize) -> Option<Vec<u8>>,
    step: usize,
) -> (usize, usize) {
    let (mut refused, mut harmless) = (0, 0);
    let expected = model.content();
    for (name, pristine) in model.files() {
        let path = model.path().join(&name);
        for at in (0..).step_by(step) {
            let Some(bytes) = damage(&pristine, at) else { break };
            overwrite(&path, &bytes);
            match load(&model.path()) {
                Ok(content) => {
                    assert!(content == expected, "{name} {at}: accepted and different");
                    harmless += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{name} {at}: {error}");
                    assert!(error.to_string().contains(&format!("{name} is damaged at offset ")), "{error}");
                    assert!(fs::read(&path).expect("there") == bytes, "{name} {at}: changed, though refused");
                    refused += 1;
                }
            }
        }
        overwrite(&path, &pristine);
    }
    assert!(load(&model.path()).expect("pristine") == expected);
    (refused, harmless)
}

#[test]
fn a_flipped_bit_anywhere_is_refused_or_makes_no_difference() {
    let model = saved();
    let flip = |bytes: &[u8], bit: usize| {
        let mut bytes = bytes.to_vec();
        *bytes.get_mut(bit / 8)? ^= 1 << (bit % 8);
        Some(bytes)
    };
    // A prime: every bit of a byte has its turn. Most of the first page is blank and means nothing.
    let (refused, harmless) = is_refused_or_the_same(&model, flip, 13);
    assert!(refused > 500 && harmless > 1000, "{refused} refused, {harmless} harmless");
}

#[test]
fn every_flipped_bit_of_a_header_a_seal_and_the_frames_is_noticed() {
    let model = saved();
    let used = |bytes: &[u8], nth: usize| {
        let places = (0..24 * 8).chain(4096 * 8..bytes.len() * 8);
        let bit = places.into_iter().nth(nth)?;
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        Some(bytes)
    };
    let (refused, harmless) = is_refused_or_the_same(&model, used, 5);
    assert!(refused > 1000 && harmless == 0, "{refused} refused, {harmless} harmless");
}

#[test]
fn a_file_that_was_cut_is_refused() {
    let model = saved();
    let cut =
        |bytes: &[u8], length: usize| bytes.get(..length).filter(|cut| *cut != bytes).map(<[u8]>::to_vec);
    let (refused, harmless) = is_refused_or_the_same(&model, cut, 3);
    assert!(refused > 1000 && harmless == 0, "{refused} refused, {harmless} harmless");
}

#[test]
fn a_block_that_was_lost_is_refused() {
    let model = saved();
    let blank = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes.get_mut(at..)?.iter_mut().take(512).for_each(|byte| *byte = 0);
        Some(bytes)
    };
    let (refused, _) = is_refused_or_the_same(&model, blank, 64);
    assert!(refused > 20, "{refused}");
}

#[test]
fn a_save_that_a_crash_cut_short_is_gone_and_one_that_it_did_not_seal_is_there() {
    let mut model = Model::new();
    model.apply(KvVerb::Set, 1, vec![1; 50]);
    model.save(false);
    let (before, (name, sealed)) = (model.content(), model.files().remove(0));
    model.apply(KvVerb::Set, 2, vec![2; 3000]);
    model.save(false);
    let (after, whole) = (model.content(), model.files().remove(0).1);
    // The seals are as they were before the second save.
    let unsealed = [&sealed[..4096], &whole[4096..]].concat();
    for end in sealed.len()..whole.len() {
        overwrite(&model.path().join(&name), &unsealed[..end]);
        assert!(load(&model.path()).expect("torn") == before, "cut at {end}");
    }
    for lost in (sealed.len()..whole.len()).step_by(100) {
        let mut torn = unsealed.clone();
        torn[lost..].iter_mut().take(512).for_each(|byte| *byte = 0);
        fs::write(model.path().join(&name), &torn).expect("written");
        assert!(load(&model.path()).expect("torn") == before, "lost at {lost}");
    }
    fs::write(model.path().join(&name), &unsealed).expect("written");
    assert!(load(&model.path()).expect("whole") == after);
    let now = fs::read(model.path().join(&name)).expect("there");
    assert!(now == whole, "it is sealed now");
}

#[test]
fn saving_goes_on_behind_a_save_that_was_cut_short() {
    let mut model = saved();
    let files = model.files();
    for (name, bytes) in &files {
        let torn = [&bytes[..], &bytes[4096..bytes.len() - 20]].concat();
        fs::write(model.path().join(name), torn).expect("written");
    }
    model.reopen();
    for key in 0..3 {
        model.apply(KvVerb::Set, key, vec![9; 10]);
        model.save(false);
        model.save_local(key, Some("again"));
        assert!(load(&model.path()).expect("undamaged") == model.content());
    }
}

#[test]
fn whatever_is_saved_is_loaded() {
    for seed in 0..8 {
        let mut rng = Rng::from_seed(seed);
        let mut model = Model::new();
        for _ in 0..40 {
            for _ in 0..rng.below(8) {
                let verb = if rng.below(3) == 0 { KvVerb::Delete } else { KvVerb::Set };
                let size = if rng.below(20) == 0 { 2 << 20 } else { rng.below(50) as usize };
                model.apply(verb, rng.below(20), vec![rng.below(256) as u8; size]);
            }
            match rng.below(8) {
                0 => model.save(true),
                1 => {
                    model.save(false);
                    model.reopen();
                }
                2 => model.save_local(rng.below(5), None),
                3 => model.save_local(rng.below(5), Some("kept")),
                _ => model.save(false),
            }
        }
        model.save(false);
        assert!(load(&model.path()).expect("undamaged") == model.content(), "seed {seed}");
        assert!(model.files().len() <= 2, "former files are removed");
    }
}

#[test]
fn many_changes_are_gathered_in_a_new_file() {
    let mut model = Model::new();
    for round in 0..40 {
        model.apply(KvVerb::Set, 1, vec![round; 1 << 20]);
        model.save(false);
    }
    let files = model.files();
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].0, "state-00000000000000000003");
    assert!(files[0].1.len() < 20 << 20);
    assert!(load(&model.path()).expect("undamaged") == model.content());
}

#[test]
fn what_a_crash_left_of_other_files_is_removed() {
    let model = saved();
    let files = model.files();
    let state = &files[1];
    assert_eq!(state.0, "state-00000000000000000001");
    fs::write(model.path().join("state-00000000000000000002.new"), &state.1[..4500]).expect("written");
    fs::write(model.path().join("local-00000000000000000000"), "former").expect("written");
    assert!(load(&model.path()).expect("undamaged") == model.content());
    assert!(model.files() == files);
}

#[test]
fn what_another_version_left_is_refused_and_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("version"), "x").expect("written");
    let error = load(dir.path()).expect_err("unknown");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("version was left by another version"), "{error}");
    assert!(dir.path().join("version").exists());

    let model = saved();
    let (name, mut bytes) = model.files().remove(1);
    bytes[12] = 2;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..24]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    fs::write(model.path().join(name), bytes).expect("written");
    let error = load(&model.path()).expect_err("newer");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("start the newer version again"), "{error}");
}

#[test]
fn what_finds_no_room_has_changed_nothing() {
    let mut model = saved();
    let former = model.content();
    // A name that cannot be made: the next file of the state.
    let blocked = model.path().join("state-00000000000000000002.new");
    fs::create_dir(&blocked).expect("made");
    model.apply(KvVerb::Set, 1, vec![9; 10]);
    let checkpoint = Checkpoint { meta: model.meta(), store: model.store.clone(), dirty: None };
    run(model.checkpoints.save(&checkpoint)).expect_err("in the way");
    fs::remove_dir(&blocked).expect("removed");
    assert!(load(&model.path()).expect("undamaged") == former);
    run(model.checkpoints.save(&checkpoint)).expect("a good disk");
    assert!(load(&model.path()).expect("undamaged") == model.content());
}
