use std::path::{Path, PathBuf};
use std::process::Command as Process;

use proconsul_core::ids::{LogIndex, Term};
use proconsul_core::raft::{Membership, SnapshotMeta};
use proconsul_core::rng::Rng;
use proconsul_core::store::command::{Command, KvCommand, KvVerb};

use super::*;

/// Names the directory that a child of this test program is to load.
const TO_LOAD: &str = "PROCONSUL_TEST_LOADS";
/// What the child calls what it loaded.
const LOADED: &str = "loaded: ";
/// What it calls a refusal.
const REFUSED: &str = "refused: ";

fn run<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(task)
}

/// Everything that a load gives, as text.
fn load(directory: &Path) -> io::Result<String> {
    let mut checkpoints = FjallCheckpoints::open(directory)?;
    let Loaded { meta, store, local } = run(checkpoints.load())?;
    let (rows, _) = store.rows_after(None, usize::MAX);
    Ok(format!(
        "{meta:?} {} rows {:08x} {local:?}",
        rows.len(),
        crc32c::crc32c(format!("{rows:?}").as_bytes())
    ))
}

/// Six saves: the state as a whole and by changes, and the agent's own.
fn save(directory: &Path) {
    let mut checkpoints = FjallCheckpoints::open(directory).expect("nothing is there");
    let mut store = Store::new();
    for round in 0..3_u64 {
        let mut dirty = Vec::new();
        for key in 0..20 {
            let index = 2 + round * 20 + key;
            let value = Bytes::from(vec![u8::try_from(round).expect("small") + 1; 50]);
            let command = KvCommand { verb: KvVerb::Set, key: format!("k{key}").into(), value, flags: 0 };
            dirty.extend(store.apply(index, &Command::Kv(command)).dirty);
        }
        let index = LogIndex(21 + round * 20);
        let meta = SnapshotMeta { index, term: Term(1), membership: Membership::default() };
        let dirty = (round != 1).then_some(dirty);
        let checkpoint = Checkpoint { meta, store: store.clone(), dirty };
        run(checkpoints.save(&checkpoint)).expect("a good disk");
        let kept = (Text::new(format!("service/{round}")), Some(Bytes::from_static(b"definition")));
        let removed = (Text::new("service/0"), (round == 0).then(|| Bytes::from_static(b"definition")));
        run(checkpoints.save_local(&[kept, removed])).expect("a good disk");
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).expect("below it"));
        fs::create_dir_all(target.parent().expect("a directory")).expect("made");
        fs::copy(&file, &target).expect("copied");
    }
}

/// Loads in a process of its own, for a panic of the database's ends it.
fn load_elsewhere(directory: &Path) -> Result<String, String> {
    let output = Process::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "checkpoints::tests::child_of_the_tests_on_damage", "--nocapture"])
        .env(TO_LOAD, directory)
        .output()
        .expect("it starts");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let said =
        |what: &str| text.split_once(what).and_then(|(_, rest)| rest.lines().next()).map(str::to_owned);
    match (said(LOADED), said(REFUSED)) {
        (Some(loaded), None) => Ok(loaded),
        (None, Some(refused)) => Err(refused),
        _ => panic!("{}: neither loaded nor refused: {:?} {text}", directory.display(), output.status),
    }
}

/// Does nothing but where one of the tests below has started it.
#[test]
fn child_of_the_tests_on_damage() {
    let Some(directory) = std::env::var_os(TO_LOAD) else { return };
    let refuse = |place: &str, words: &str| format!("{REFUSED}{place} {words}");
    match reading("the database panicked:".to_owned(), refuse, || load(Path::new(&directory))) {
        Ok(loaded) => println!("{LOADED}{loaded}"),
        Err(error) => println!("{REFUSED}{error}"),
    }
}

#[test]
fn a_flipped_bit_or_a_lost_end_is_refused_or_makes_no_difference() {
    let dir = tempfile::tempdir().expect("a directory");
    let good = dir.path().join("good");
    fs::create_dir(&good).expect("made");
    save(&good.join("state"));
    let expected = load_elsewhere(&good.join("state")).expect("undamaged");
    assert!(expected.contains("LogIndex(61)") && expected.contains("service/2"), "{expected}");
    let mut rng = Rng::from_seed(1);
    let (mut refused, mut harmless) = (0, 0);
    for file in files(&good) {
        let relative = file.strip_prefix(&good).expect("below it");
        let bytes = fs::read(&file).expect("readable");
        // A journal is mostly room for what may come.
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let Some(last) = used.last() else { continue };
        let mut damages: Vec<Vec<u8>> = (0..6)
            .map(|_| {
                let at = used[usize::try_from(rng.below(used.len() as u64)).expect("small")];
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << rng.below(8);
                damaged
            })
            .collect();
        damages.push(bytes[..last / 2].to_vec());
        for damaged in damages {
            let bad = dir.path().join("bad");
            copy(&good, &bad);
            fs::write(bad.join(relative), damaged).expect("written");
            match load_elsewhere(&bad.join("state")) {
                Ok(loaded) => {
                    assert_eq!(loaded, expected, "{}: accepted", relative.display());
                    harmless += 1;
                }
                Err(_) => refused += 1,
            }
            fs::remove_dir_all(&bad).expect("removed");
        }
    }
    assert!(refused > harmless, "{refused} refused, {harmless} harmless");
}

/// fjall repeated the clearing of a keyspace at the next start, over what had been put there since.
#[test]
fn regression_a_state_that_was_replaced_as_a_whole_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    save(&state);
    // A crash has left part of the next one.
    let opened = Opened::open(&state).expect("undamaged");
    let name = state_name(opened.generation + 1);
    let unfinished = opened.database.keyspace(&name, state_options).expect("made");
    unfinished.insert(b"left", b"over").expect("written");
    drop((unfinished, opened));
    let mut checkpoints = FjallCheckpoints::open(&state).expect("undamaged");
    let Loaded { store, .. } = run(checkpoints.load()).expect("undamaged");
    let meta = SnapshotMeta { index: LogIndex(90), ..SnapshotMeta::default() };
    run(checkpoints.save(&Checkpoint { meta, store, dirty: None })).expect("a good disk");
    drop(checkpoints);
    let first = load(&state).expect("undamaged");
    assert!(first.contains("LogIndex(90)"), "{first}");
    assert_eq!(load(&state).expect("undamaged"), first);
}

#[test]
fn saves_that_are_gone_are_missed() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    save(&state);
    assert_eq!(read_seal(&seal(&state)).expect("sealed"), 6);
    write_seal(&seal(&state), 7).expect("written");
    let error = load(&state).expect_err("one is missing").to_string();
    assert!(error.contains("of 7 saves only 6 are left"), "{error}");
    write_seal(&seal(&state), 5).expect("written");
    load(&state).expect("a crash came before the last one was counted");
    fs::remove_dir_all(&state).expect("removed");
    let error = load(&state).expect_err("all are missing").to_string();
    assert!(error.contains("is gone, with 5 saves"), "{error}");
}

#[test]
fn what_is_saved_after_a_load_adds_up_as_well() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    save(&state);
    let mut checkpoints = FjallCheckpoints::open(&state).expect("it is there");
    let Loaded { meta, mut store, .. } = run(checkpoints.load()).expect("undamaged");
    let command = KvCommand { verb: KvVerb::Delete, key: "k3".into(), value: Bytes::new(), flags: 0 };
    let dirty = store.apply(100, &Command::Kv(command)).dirty;
    let meta = SnapshotMeta { index: LogIndex(100), ..meta };
    run(checkpoints.save(&Checkpoint { meta, store, dirty: Some(dirty) })).expect("a good disk");
    run(checkpoints.save_local(&[("service/2".into(), None)])).expect("a good disk");
    drop(checkpoints);
    let loaded = load(&state).expect("it adds up");
    assert!(loaded.contains("LogIndex(100)") && !loaded.contains("service/2"), "{loaded}");
}
