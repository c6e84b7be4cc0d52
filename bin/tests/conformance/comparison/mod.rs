//! Whether an answer is the recorded one. Values that cannot be the same are placeholders in the record: they stand for
//! the first value that is found, and for the same from then on.

mod text;
mod values;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::case::Golden;
use super::paths::Variables;
use super::rules::Rules;
use super::wire::Reply;

/// What a running case knows: variables, and the values that placeholders have been found to stand for.
#[derive(Debug, Default)]
pub struct Known {
    pub variables: Variables,
    /// Values of `<uuid1>`, `<hash1>`….
    bound: BTreeMap<String, String>,
    /// Values of `<i1>`, `<i2>`….
    indexes: BTreeMap<u64, u64>,
}

/// Headers of every read.
const READ_HEADERS: [(&str, &str); 3] =
    [("X-Consul-Index", "<int>"), ("X-Consul-Knownleader", "true"), ("X-Consul-Lastcontact", "<int>")];

impl Known {
    pub fn new(variables: Variables) -> Known {
        Known { variables, ..Known::default() }
    }

    /// The problems with an answer; none if one of the recorded ones fits, else those with the first.
    pub fn check(&mut self, golden: &Golden, also: &[Golden], rules: &Rules, reply: &Reply) -> Vec<String> {
        let before = (self.bound.clone(), self.indexes.clone());
        let mut first = None;
        for golden in std::iter::once(golden).chain(also) {
            let mut problems = Vec::new();
            self.answer_differs(golden, rules, reply, &mut problems);
            if problems.is_empty() {
                return problems;
            }
            first.get_or_insert(problems);
            (self.bound, self.indexes) = before.clone();
        }
        first.expect("there is a recorded answer")
    }

    fn answer_differs(&mut self, golden: &Golden, rules: &Rules, reply: &Reply, problems: &mut Vec<String>) {
        let text = String::from_utf8_lossy(&reply.body);
        if reply.status != golden.status {
            problems.push(format!(
                "status: expected {}, got {} {}",
                golden.status,
                reply.status,
                short(&Value::from(text.as_ref()))
            ));
            return;
        }
        let read = READ_HEADERS.iter().filter(|_| golden.query).map(|(name, want)| (*name, Some(*want)));
        let own = golden.headers.iter().map(|(name, want)| (name.as_str(), want.as_deref()));
        let kind = golden.content_type.iter().map(|want| ("Content-Type", Some(want.as_str())));
        for (name, want) in read.chain(own).chain(kind) {
            let problem = match (want, reply.header(name)) {
                (Some("<int>"), Some(got)) if !digits(got) => Some(format!("expected a number, got {got}")),
                (Some("<int>"), Some(_)) | (None, None) => None,
                (Some(want), Some(got)) => self.text_differs(want, got),
                (want, got) => Some(format!("expected {want:?}, got {got:?}")),
            };
            problems.extend(problem.map(|problem| format!("{name}: {problem}")));
        }
        if let Some(want) = &golden.json {
            match &reply.json {
                Some(got) => self.value_differs(want, got, rules, "$", problems),
                None => problems.push(format!("body: expected JSON {}, got {text:?}", short(want))),
            }
        } else if let Some(want) = &golden.base64 {
            let got = STANDARD.encode(&reply.body);
            if *want != got {
                problems.push(format!("body: expected base64 {want}, got {got}"));
            }
        } else if let Some(want) = &golden.text
            && let Some(problem) = self.text_differs(want, &text)
        {
            problems.push(format!("body: {problem}"));
        }
    }
}

/// Whether a header is a plain number.
pub fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A value as JSON, cut where it gets long.
pub fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
