//! Clients that change and read several keys at once: accounts between which they transfer, so that the sum stays.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proconsul_jepsen::history::{Consistency, Entry, Op, Reply, TxnAction, TxnVerb};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Client;
use super::client::{Ask, KvJson};
use crate::http::Response;

/// So many accounts are there.
const ACCOUNTS: u64 = 4;
/// Each of them is opened with so much.
const OPENING: i64 = 100;
/// Between what makes a value unique and what is on the account.
const BALANCE: char = '=';

/// Accounts by key, as somebody saw them at one time.
type Accounts = BTreeMap<String, Entry>;

pub(super) async fn run(client: &mut Client) {
    // What this client has seen last: maybe old by now, which conditions are for.
    let mut seen = Accounts::new();
    for _ in 0..client.operations {
        if client.must_stop() {
            return;
        }
        let choice = client.rng.below(10);
        if seen.is_empty() || choice < 3 {
            seen = read_all(client).await.unwrap_or(seen);
            if seen.is_empty() {
                open(client).await;
            }
        } else if choice < 8 {
            transfer(client, &mut seen).await;
        } else {
            spoil(client, &seen).await;
        }
        client.think().await;
    }
}

fn account(number: u64) -> String {
    format!("account{number}")
}

/// Reads all accounts at once. `None` if there was no answer.
pub(super) async fn read_all(client: &mut Client) -> Option<Accounts> {
    let get = |number| TxnAction { key: account(number), verb: TxnVerb::GetOrEmpty };
    let actions: Vec<_> = (0..ACCOUNTS).map(get).collect();
    let keys: Vec<_> = actions.iter().map(|action| action.key.clone()).collect();
    let mode = if client.one_in(2) { "consistent" } else { client.shared.fresh_mode };
    let Reply::Txn { entries, .. } = client.transact(actions, mode).await? else { return None };
    let accounts: Accounts = keys.into_iter().zip(entries).filter_map(|(key, it)| Some((key, it?))).collect();
    let sum: i64 = accounts.values().map(balance).sum();
    let opened = i64::try_from(accounts.len()).expect("a handful") * OPENING;
    let all = usize::try_from(ACCOUNTS).expect("a handful");
    if sum != opened || (accounts.len() != all && !accounts.is_empty()) {
        let what = format!("the accounts were seen together as {accounts:?}, whose sum is {sum}");
        client.shared.audit.report("transactions", what);
    }
    Some(accounts)
}

/// Opens all accounts at once, if none is open.
async fn open(client: &mut Client) {
    let mut actions: Vec<_> = (0..ACCOUNTS)
        .map(|number| TxnAction { key: account(number), verb: TxnVerb::CheckNotExists })
        .collect();
    for number in 0..ACCOUNTS {
        let value = holding(client, OPENING);
        actions.push(TxnAction { key: account(number), verb: TxnVerb::Set { value } });
    }
    client.transact(actions, "").await;
}

/// Moves something from one account to another, if both are still as they were.
async fn transfer(client: &mut Client, seen: &mut Accounts) {
    let from = client.rng.below(ACCOUNTS);
    let to = (from + 1 + client.rng.below(ACCOUNTS - 1)) % ACCOUNTS;
    let (from, to) = (account(from), account(to));
    let (Some(source), Some(target)) = (seen.get(&from).cloned(), seen.get(&to).cloned()) else { return };
    let amount = 1 + i64::try_from(client.rng.below(20)).expect("a small number");
    let less = holding(client, balance(&source) - amount);
    let more = holding(client, balance(&target) + amount);
    let act = |key: &String, verb| TxnAction { key: key.clone(), verb };
    let actions = if client.one_in(2) {
        vec![
            act(&from, TxnVerb::Cas { expected: source.modify_index, value: less }),
            act(&to, TxnVerb::Cas { expected: target.modify_index, value: more }),
            act(&to, TxnVerb::Get),
        ]
    } else {
        vec![
            act(&from, TxnVerb::CheckIndex { index: source.modify_index }),
            act(&to, TxnVerb::CheckIndex { index: target.modify_index }),
            act(&from, TxnVerb::Set { value: less }),
            act(&to, TxnVerb::Set { value: more }),
        ]
    };
    // Whatever came of it, what was seen is old now.
    client.transact(actions, "").await;
    if client.one_in(2) {
        seen.remove(&from);
        seen.remove(&to);
    }
}

/// Changes an account and then demands what cannot be, or what is hardly so any more: nothing is changed.
async fn spoil(client: &mut Client, seen: &Accounts) {
    let key = account(client.rng.below(ACCOUNTS));
    let value = holding(client, 1_000_000);
    let condition = if client.one_in(2) && !client.shared.restores {
        TxnVerb::CheckNotExists
    } else {
        // Indexes are never used twice, and the first ones are the group's own.
        TxnVerb::CheckIndex { index: 1 }
    };
    let other = seen.keys().next().cloned().unwrap_or_else(|| account(0));
    let actions = vec![
        TxnAction { key, verb: TxnVerb::Set { value } },
        TxnAction { key: other, verb: condition },
        TxnAction { key: account(0), verb: TxnVerb::GetOrEmpty },
    ];
    if let Some(Reply::Txn { .. }) = client.transact(actions, "").await {
        let what = "a transaction was made although a condition cannot have held".to_owned();
        client.shared.audit.report("transactions", what);
    }
}

fn holding(client: &mut Client, balance: i64) -> String {
    format!("{}{BALANCE}{balance}", client.fresh_value())
}

fn balance(entry: &Entry) -> i64 {
    let (_, balance) = entry.value.split_once(BALANCE).expect("accounts have a balance");
    balance.parse().expect("balances are numbers")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    results: Option<Vec<Row>>,
    errors: Option<Vec<Failure>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    #[serde(rename = "KV")]
    kv: KvJson,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    op_index: usize,
}

impl Client {
    /// Several actions on keys, all or none; written down. `mode` is for those that only look.
    pub(super) async fn transact(&mut self, actions: Vec<TxnAction>, mode: &str) -> Option<Reply> {
        let body = Value::Array(actions.iter().map(request).collect()).to_string();
        let op = Op::Txn { actions: actions.clone(), consistency: Consistency::Linearizable };
        let target = format!("/v1/txn?{mode}");
        self.record("", op, Ask::put(&target, body), |response| reply(&actions, response)).await
    }
}

/// An action as the HTTP interface wants it.
fn request(action: &TxnAction) -> Value {
    let key = &action.key;
    let encoded = |value: &str| BASE64_STANDARD.encode(value);
    let kv = match &action.verb {
        TxnVerb::Get => json!({ "Verb": "get", "Key": key }),
        TxnVerb::GetOrEmpty => json!({ "Verb": "get-or-empty", "Key": key }),
        TxnVerb::CheckIndex { index } => json!({ "Verb": "check-index", "Key": key, "Index": index }),
        TxnVerb::CheckNotExists => json!({ "Verb": "check-not-exists", "Key": key }),
        TxnVerb::CheckSession { session } => {
            json!({ "Verb": "check-session", "Key": key, "Session": session })
        }
        TxnVerb::Set { value } => json!({ "Verb": "set", "Key": key, "Value": encoded(value) }),
        TxnVerb::Cas { expected, value } => {
            json!({ "Verb": "cas", "Key": key, "Value": encoded(value), "Index": expected })
        }
        TxnVerb::Delete => json!({ "Verb": "delete", "Key": key }),
        TxnVerb::DeleteCas { expected } => json!({ "Verb": "delete-cas", "Key": key, "Index": expected }),
    };
    json!({ "KV": kv })
}

fn reply(actions: &[TxnAction], response: &Response) -> Option<Reply> {
    if !matches!(response.status, 200 | 409) {
        return None;
    }
    let answer: Answer = serde_json::from_slice(&response.body)
        .unwrap_or_else(|error| panic!("/v1/txn: {error}: {}", response.text()));
    if response.status == 409 {
        let failed: Vec<_> = answer.errors.into_iter().flatten().map(|error| error.op_index).collect();
        assert!(!failed.is_empty(), "a transaction fails for a reason: {}", response.text());
        return Some(Reply::RolledBack { failed });
    }
    let mut rows = answer.results.into_iter().flatten();
    let mut index = None;
    let entries = actions
        .iter()
        .map(|action| {
            let is_shown = match action.verb {
                TxnVerb::CheckNotExists | TxnVerb::Delete | TxnVerb::DeleteCas { .. } => false,
                TxnVerb::Get
                | TxnVerb::GetOrEmpty
                | TxnVerb::CheckIndex { .. }
                | TxnVerb::CheckSession { .. }
                | TxnVerb::Set { .. }
                | TxnVerb::Cas { .. } => true,
            };
            let row = is_shown.then(|| rows.next()).flatten()?;
            assert_eq!(row.kv.key, action.key, "results come in the order of actions: {}", response.text());
            if action.verb.value().is_some() {
                index = Some(row.kv.modify_index);
            }
            let looks = matches!(action.verb, TxnVerb::Get | TxnVerb::GetOrEmpty);
            (looks && row.kv.modify_index > 0).then(|| row.kv.into_entry())
        })
        .collect();
    assert!(rows.next().is_none(), "no action has two results: {}", response.text());
    Some(Reply::Txn { entries, index })
}
