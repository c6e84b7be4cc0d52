//! JSON by structure.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::text::has_placeholder;
use super::{Known, digits, short};
use crate::rules::{Rule, Rules, in_order};

/// The placeholder for the type of a value.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "<null>",
        Value::Bool(_) => "<bool>",
        Value::Number(number) if number.is_f64() => "<float>",
        Value::Number(_) => "<int>",
        Value::String(_) => "<string>",
        Value::Array(_) => "<array>",
        Value::Object(_) => "<object>",
    }
}

const TYPES: [&str; 7] = ["<null>", "<bool>", "<float>", "<int>", "<string>", "<array>", "<object>"];

fn is_number(kind: &str) -> bool {
    matches!(kind, "<int>" | "<float>")
}

impl Known {
    /// Adds a line for each place where a value is not as wanted.
    pub fn value_differs(
        &mut self,
        want: &Value,
        got: &Value,
        rules: &Rules,
        path: &str,
        problems: &mut Vec<String>,
    ) {
        if let Value::String(want) = want
            && let Some(outcome) = self.placeholder_differs(want, got)
        {
            problems.extend(outcome.err().map(|why| format!("{path}: {why}")));
            return;
        }
        match (want, got) {
            (Value::Object(want), Value::Object(got)) => {
                self.object_differs(want, got, rules, path, problems);
            }
            (Value::Array(want), Value::Array(got)) => self.array_differs(want, got, rules, path, problems),
            (Value::String(want), Value::String(got)) => {
                problems.extend(self.text_differs(want, got).map(|why| format!("{path}: {why}")));
            }
            (Value::Number(a), Value::Number(b)) => {
                let equal = a == b || (a.is_f64() || b.is_f64()) && near(want, got);
                problems.extend((!equal).then(|| format!("{path}: expected {want}, got {got}")));
            }
            _ if want != got => {
                problems.push(format!("{path}: expected {}, got {}", short(want), short(got)));
            }
            _ => {}
        }
    }

    /// Whether a value is what a placeholder for a whole value stands for; `None` if the text is no such.
    fn placeholder_differs(&mut self, want: &str, got: &Value) -> Option<Result<(), String>> {
        if want == "<any>" {
            return Some(Ok(()));
        }
        if TYPES.contains(&want) {
            let kind = type_of(got);
            let fits = kind == want || is_number(kind) && is_number(want);
            return Some(if fits { Ok(()) } else { Err(format!("expected {want}, got {}", short(got))) });
        }
        if want == "<pem>" {
            let fits = got.as_str().is_some_and(|text| text.starts_with("-----BEGIN"));
            return Some(if fits {
                Ok(())
            } else {
                Err(format!("expected a PEM block, got {}", short(got)))
            });
        }
        if let Some(rank) = want.strip_prefix("<i").and_then(|rest| rest.strip_suffix('>'))
            && digits(rank)
        {
            return Some(self.index_differs(rank.parse().expect("digits"), got));
        }
        if want.starts_with("${") && got.is_i64() | got.is_u64() {
            let value = self.variables.get(want.get(2..want.len() - 1).unwrap_or_default());
            let fits = value == Some(got);
            return Some(if fits { Ok(()) } else { Err(format!("expected {want}, got {got}")) });
        }
        None
    }

    /// `<i1>`, `<i2>`… are raft indexes in the order of their size; `<i0>` is any that is older than the case.
    fn index_differs(&mut self, rank: u64, got: &Value) -> Result<(), String> {
        let index = got.as_u64().filter(|index| *index >= 1);
        let index = index.ok_or_else(|| format!("expected a raft index, got {}", short(got)))?;
        if rank == 0 {
            return Ok(());
        }
        for (other, value) in &self.indexes {
            if other.cmp(&rank) != value.cmp(&index) {
                return Err(format!("expected <i{rank}>, where <i{other}> is {value}, got {index}"));
            }
        }
        self.indexes.insert(rank, index);
        Ok(())
    }

    fn object_differs(
        &mut self,
        want: &Map<String, Value>,
        got: &Map<String, Value>,
        rules: &Rules,
        path: &str,
        problems: &mut Vec<String>,
    ) {
        let mut wanted = BTreeMap::new();
        for (key, value) in want {
            let fits = |known: &mut Known, name: &str| {
                key == name || has_placeholder(key) && known.text_differs(key, name).is_none()
            };
            let name = got.keys().find(|name| fits(self, name)).unwrap_or(key);
            wanted.insert(name, value);
        }
        for (key, want) in &wanted {
            match got.get(*key) {
                Some(got) => self.value_differs(want, got, rules, &format!("{path}.{key}"), problems),
                None => problems.push(format!("{path}.{key}: missing, expected {}", short(want))),
            }
        }
        // Fields of later versions are fine, but data, with names in lower case, is not.
        let field = |key: &str| key.starts_with(char::is_uppercase) || key.starts_with("consul-");
        for (key, value) in got {
            if !wanted.contains_key(key)
                && !field(key)
                && rules.at(path) != Some(&Rule::Keys)
                && rules.at(&format!("{path}.{key}")) != Some(&Rule::Optional)
            {
                problems.push(format!("{path}.{key}: not expected, got {}", short(value)));
            }
        }
    }

    fn array_differs(
        &mut self,
        want: &[Value],
        got: &[Value],
        rules: &Rules,
        path: &str,
        problems: &mut Vec<String>,
    ) {
        let got = match rules.at(path) {
            Some(rule @ Rule::Sort(_)) => in_order(got, rule),
            Some(Rule::Has(key)) => {
                let paired = |want: &Value| got.iter().rfind(|one| one.get(key) == want.get(key));
                want.iter().map(|want| paired(want).cloned().unwrap_or_else(|| Map::new().into())).collect()
            }
            _ => got.to_vec(),
        };
        if want.len() != got.len() {
            let all = short(&Value::from(got.clone()));
            problems.push(format!("{path}: expected {} elements, got {}: {all}", want.len(), got.len()));
        }
        for (at, (want, got)) in want.iter().zip(&got).enumerate() {
            self.value_differs(want, got, rules, &format!("{path}[{at}]"), problems);
        }
    }
}

/// Whether two numbers are the same but for rounding.
fn near(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(known: &mut Known, rules: Value, want: Value, got: Value) -> Vec<String> {
        let rules: Rules = serde_json::from_value(rules).expect("rules");
        let mut problems = Vec::new();
        known.value_differs(&want, &got, &rules, "$", &mut problems);
        problems
    }

    fn same(rules: Value, want: Value, got: Value) -> bool {
        problems(&mut Known::default(), rules, want, got).is_empty()
    }

    #[test]
    fn types_values_and_order_count_but_the_order_of_keys_does_not() {
        assert!(same(json!({}), json!({"a": [1, "x"], "b": null}), json!({"b": null, "a": [1, "x"]})));
        for (want, got) in [
            (json!([1, 2]), json!([2, 1])),
            (json!(1), json!("1")),
            (json!(1), json!(2)),
            (json!(9_007_199_254_740_992_u64), json!(9_007_199_254_740_993_u64)),
            (json!(null), json!([])),
            (json!([]), json!({})),
            (json!({"A": null}), json!({})),
            (json!([1]), json!([1, 2])),
            (json!(true), json!(1)),
        ] {
            assert!(!same(json!({}), want.clone(), got.clone()), "{want} {got}");
        }
        assert!(same(json!({}), json!(0.1), json!(0.100_000_000_000_1)));
        assert!(same(json!({}), json!(1), json!(1.0)));
    }

    #[test]
    fn further_fields_are_fine_and_further_data_is_not() {
        assert!(same(json!({}), json!({}), json!({"Later": 1})));
        assert!(!same(json!({}), json!({}), json!({"web": 1})));
        assert!(same(json!({"$": "keys"}), json!({}), json!({"web": 1})));
        assert!(same(json!({"$.web": "optional"}), json!({}), json!({"web": 1})));
    }

    #[test]
    fn rules_sort_and_pair() {
        assert!(same(json!({"$": "sort"}), json!(["a", "b"]), json!(["b", "a"])));
        let got = json!([{"N": "z"}, {"N": "b", "V": 2}, {"N": "a", "V": 1}]);
        assert!(same(json!({"$": "has:N"}), json!([{"N": "a", "V": 1}, {"N": "b", "V": 2}]), got.clone()));
        assert!(!same(json!({"$": "has:N"}), json!([{"N": "c", "V": 1}]), got));
    }

    #[test]
    fn indexes_keep_their_order() {
        let mut known = Known::default();
        assert!(
            problems(&mut known, json!({}), json!(["<i2>", "<i1>", "<i2>"]), json!([9, 4, 9])).is_empty()
        );
        assert!(!problems(&mut known, json!({}), json!("<i3>"), json!(9)).is_empty());
        assert!(!problems(&mut known, json!({}), json!("<i1>"), json!(5)).is_empty());
        assert!(problems(&mut known, json!({}), json!("<i3>"), json!(10)).is_empty());
        assert!(problems(&mut known, json!({}), json!("<i0>"), json!(1)).is_empty());
        assert!(!problems(&mut known, json!({}), json!("<i0>"), json!(0)).is_empty());
    }

    #[test]
    fn keys_may_be_placeholders() {
        let id = "11111111-1111-1111-1111-111111111111";
        assert!(same(json!({}), json!({"<uuid1>": {"ID": "<uuid1>"}}), json!({id: {"ID": id}})));
    }
}
