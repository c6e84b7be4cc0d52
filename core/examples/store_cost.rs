//! What a million keys cost: memory, writes, reads, checkpoint and restore.
//!
//! `cargo run --release -p proconsul-core --example store_cost [KEYS] [VALUE_BYTES]`

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "this measures; it decides nothing")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::store::command::{Command, KvCommand, KvVerb};
use proconsul_core::store::query::Query;
use proconsul_core::store::{Store, StoreBuilder};

/// Resident memory of this process in bytes, zero where there is no `/proc`.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn put(number: u64, value: &[u8]) -> Command {
    let key = Text::new(format!("app/config/{number:09}"));
    Command::Kv(KvCommand { verb: KvVerb::Set, key, value: Bytes::copy_from_slice(value), flags: 0 })
}

/// Time that this thread spent on a processor; time that passed where that is not known.
#[derive(Clone, Copy)]
struct Started(Instant, Option<u64>);

impl Started {
    fn now() -> Started {
        let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        Started(Instant::now(), schedstat.split(' ').next().and_then(|nanos| nanos.parse().ok()))
    }

    fn elapsed(self) -> Duration {
        match (self.1, Started::now().1) {
            (Some(started), Some(now)) => Duration::from_nanos(now - started),
            _ => self.0.elapsed(),
        }
    }
}

fn report(what: &str, started: Started, times: u64) {
    let spent = started.elapsed();
    let nanos = spent.as_nanos() as f64 / times as f64;
    println!("{what:32} {nanos:9.0} ns each, {:6.2} s in all", spent.as_secs_f64());
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let keys: u64 = arguments.next().unwrap_or(1_000_000);
    let value = vec![b'v'; usize::try_from(arguments.next().unwrap_or(100)).expect("a size")];
    // A walk over all numbers in an order without order.
    let stride = (keys * 7 / 11) | 1;
    let scattered = |at: u64| at.wrapping_mul(stride) % keys;

    for (name, order) in [("in order", None), ("scattered", Some(scattered))] {
        let before = resident();
        let mut store = Store::new();
        let started = Started::now();
        let mut view = store.clone();
        for at in 0..keys {
            let number = order.as_ref().map_or(at, |order| order(at));
            store.apply(at + 2, &put(number, &value));
            if at % 32 == 0 {
                // A batch is published: readers hold the former view until they get the next.
                view = store.clone();
            }
        }
        report(&format!("new keys, {name}"), started, keys);
        drop(view);
        let bytes = resident().saturating_sub(before) as f64 / store.kv_len() as f64;
        println!("{:32} {bytes:9.0} bytes of resident memory per key", "");

        let started = Started::now();
        let changed = [b"w", &value[1..]].concat();
        let mut view = store.clone();
        for at in 0..keys / 4 {
            store.apply(keys + at + 2, &put(scattered(at), &changed));
            if at % 32 == 0 {
                view = store.clone();
            }
        }
        drop(view);
        report("changed keys, scattered", started, keys / 4);

        let started = Started::now();
        let mut found = 0;
        for at in 0..keys / 4 {
            let query = Query::Kv(Text::new(format!("app/config/{:09}", scattered(at + 7))));
            found += u64::from(store.evaluate(&query).exists);
        }
        report("reads, scattered", started, keys / 4);
        assert_eq!(found, keys / 4);

        let started = Started::now();
        let index = store.query_index(&Query::KvTree(Text::new("app/")));
        report("index of everything below app/", started, keys);
        assert!(index > keys);

        let started = Started::now();
        let mut cursor = None;
        let mut rows = Vec::new();
        loop {
            let (chunk, next) = store.rows_after(cursor.as_ref(), 1 << 20);
            rows.extend(chunk);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        report("rows written", started, keys);
        drop(store);
        let started = Started::now();
        let mut builder = StoreBuilder::new();
        for (key, row) in &rows {
            builder.put_row(key.as_bytes(), row).expect("own rows are good");
        }
        let store = builder.finish();
        report("store built from rows", started, keys);
        assert_eq!(store.kv_len() as u64, keys);
    }
}
