//! Panics of the database while it is read are refusals.
//!
//! fjall may panic on damage, on the reader's thread with its locks held, so that its destructors panic again and the process
//! aborts, or on a thread of its own, which nobody hears. Neither can be caught. So the first panic while somebody reads ends
//! the process with the words that an error would have.

use std::panic;
use std::process;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, ThreadId};

/// Who reads, and what is to be said if that ends in a panic.
struct Reader {
    thread: ThreadId,
    refuse: fn(&str, &str) -> String,
    /// What is read.
    place: String,
}

static READERS: Mutex<Vec<Reader>> = Mutex::new(Vec::new());

fn readers() -> MutexGuard<'static, Vec<Reader>> {
    READERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does something with the database in a place. If it panics, on this thread or on one of its own, the process prints what
/// `refuse` makes of the place and the panic's words, and ends with status 1.
pub fn reading<T>(place: String, refuse: fn(&str, &str) -> String, read: impl FnOnce() -> T) -> T {
    install();
    let own = thread::current().id();
    readers().push(Reader { thread: own, refuse, place });
    let result = read();
    readers().retain(|reader| reader.thread != own);
    result
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let current = thread::current();
            let of_database = current.name().is_some_and(|name| name.starts_with("fjall"));
            let readers = readers();
            if let Some(reader) = readers.iter().find(|it| of_database || it.thread == current.id()) {
                let words = info.payload_as_str().unwrap_or("no words");
                eprintln!("{}", (reader.refuse)(&reader.place, words));
                process::exit(1);
            }
            drop(readers);
            before(info);
        }));
    });
}
