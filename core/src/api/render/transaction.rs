//! The reply to a transaction (`/v1/txn`).

use super::json::{Json, indent};
use super::rows;
use crate::api::{HttpReply, QueryMeta};
use crate::store::{Outcome, TransactionRow};

/// The reply to a transaction that wrote; indented by the caller if that is wanted.
pub(crate) fn written(outcome: &Outcome) -> HttpReply {
    HttpReply::json(status(outcome), body(outcome, None))
}

/// The reply to a transaction that only read. It tells in its body what other reads tell in headers.
pub(crate) fn read(outcome: &Outcome, meta: &QueryMeta, pretty: bool) -> HttpReply {
    let compact = body(outcome, Some(meta));
    HttpReply::json(status(outcome), if pretty { indent(&compact) } else { compact })
}

fn status(outcome: &Outcome) -> u16 {
    if outcome.is_ok() { 200 } else { 409 }
}

fn body(outcome: &Outcome, meta: Option<&QueryMeta>) -> Vec<u8> {
    let mut json = Json::with_capacity(1_024);
    json.open(b'{');
    json.key("Results");
    match outcome {
        Ok(rows) => super::list(&mut json, rows, row),
        Err(_) => json.raw(b"null"),
    }
    json.key("Errors");
    match outcome {
        Ok(_) => json.raw(b"null"),
        Err(errors) => super::list(&mut json, errors, |json, error| {
            json.open(b'{');
            json.key("OpIndex");
            json.number(error.operation.into());
            json.key("What");
            json.string(&error.what);
            json.close(b'}');
        }),
    }
    if let Some(meta) = meta {
        super::prepared::meta(&mut json, meta, "");
    }
    json.close(b'}');
    json.into_bytes()
}

fn row(json: &mut Json, row: &TransactionRow) {
    json.open(b'{');
    match row {
        TransactionRow::Kv(entry) => {
            json.key("KV");
            rows::kv_entry(json, entry);
        }
        TransactionRow::Node(node) => {
            json.key("Node");
            rows::node(json, node);
        }
        TransactionRow::Service(service) => {
            json.key("Service");
            rows::service_with_nulls(json, service);
        }
        TransactionRow::Check(check) => {
            json.key("Check");
            rows::check_with_nulls(json, check);
        }
    }
    json.close(b'}');
}
