//! «The endpoint blocks until the resource changes» (documentation of blocking queries).

use std::time::Duration;

use proconsul_io_sim::time::sim_sleep;

use super::{Client, WAKE_LIMIT};

impl Client {
    /// A change or a deletion of a key wakes who waits for the key, and who waits for its prefix.
    pub(super) async fn prove_wakes(&mut self) {
        let prefix = format!("calm{}/", self.agent);
        for deletes in [false, true] {
            if self.put(&format!("{prefix}key"), "before").await.is_none() {
                return;
            }
            let of_key = self.watch(&format!("/v1/kv/{prefix}key")).await;
            let of_prefix = self.watch(&format!("/v1/kv/{prefix}?recurse")).await;
            // Longer than any watcher takes to reach its server.
            sim_sleep(Duration::from_millis(500)).await;
            if deletes {
                self.demand("DELETE", &format!("/v1/kv/{prefix}key"), "").await;
            } else {
                self.put(&format!("{prefix}key"), "after").await;
            }
            sim_sleep(WAKE_LIMIT).await;
            for (what, woken) in [("key", of_key), ("prefix", of_prefix)] {
                if !woken.is_finished() {
                    let change = if deletes { "deletion" } else { "change" };
                    let text = format!("a watcher of a {what} was not woken by its {change}");
                    self.violation("watch completeness", text);
                }
                woken.abort();
            }
        }
    }
}
