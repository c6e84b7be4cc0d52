//! Rules for comparing: by path, and the first that fits counts.

use std::cmp::Ordering;

use regex_lite::Regex;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::paths::lookup;

/// What holds at the paths that fit a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Only the presence of the keys is compared.
    Keys,
    /// May be absent, is not compared.
    Optional,
    /// An array without a defined order, sorted by this field, or as a whole.
    Sort(Option<String>),
    /// An array that may have further elements; they are paired by this key.
    Has(String),
    /// What the recorded answer says already: what is not compared is not in it, or a placeholder.
    Recorded,
}

/// Rules in their order.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<(String, Regex, Rule)>);

impl Rules {
    /// The rule for a path.
    pub fn at(&self, path: &str) -> Option<&Rule> {
        self.0.iter().find(|(_, pattern, _)| pattern.is_match(path)).map(|(_, _, rule)| rule)
    }

    /// These rules, and behind them those of others whose patterns they do not have.
    pub fn with_defaults(&self, defaults: &Rules) -> Rules {
        let new = |(pattern, _, _): &&(String, Regex, Rule)| !self.0.iter().any(|(own, _, _)| own == pattern);
        Rules(self.0.iter().chain(defaults.0.iter().filter(new)).cloned().collect())
    }
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Rules, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Rules;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("rules by path")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Rules, A::Error> {
                let mut rules = Rules::default();
                while let Some((pattern, rule)) = map.next_entry::<String, String>()? {
                    let regex = regex(&pattern);
                    rules.0.push((pattern, regex, Rule::parse(&rule)));
                }
                Ok(rules)
            }
        }
        from.deserialize_map(InOrder)
    }
}

/// `[*]` is any position, `.*` any name, and a `..Name` in front that name anywhere.
fn regex(pattern: &str) -> Regex {
    let (anywhere, rest) = match pattern.strip_prefix("..") {
        Some(rest) => (r".*\.", rest),
        None => ("", pattern),
    };
    let rest = regex_lite::escape(rest).replace(r"\[\*\]", r"\[\d+\]").replace(r"\.\*", r"\.[^.\[]+");
    Regex::new(&format!(r"(?s)\A{anywhere}{rest}\z")).expect("an escaped pattern")
}

impl Rule {
    fn parse(text: &str) -> Rule {
        match text.split_once(':') {
            Some(("sort", field)) => Rule::Sort(Some(field.to_owned())),
            Some(("has", field)) => Rule::Has(field.to_owned()),
            None if text == "sort" => Rule::Sort(None),
            None if text == "keys" => Rule::Keys,
            None if text == "optional" => Rule::Optional,
            _ => Rule::Recorded,
        }
    }
}

/// The array in the order that the rule asks for; as it is if an element lacks the field.
pub fn in_order(array: &[Value], rule: &Rule) -> Vec<Value> {
    let Rule::Sort(field) = rule else { return array.to_vec() };
    let key = |element: &Value| -> Option<Key> {
        let value = match field {
            Some(field) => lookup(element, &format!("$.{field}"))?,
            None => element.clone(),
        };
        Some(match value.as_i64() {
            Some(number) => Key(number, String::new()),
            None => Key(0, value.to_string()),
        })
    };
    let keyed: Option<Vec<(Key, &Value)>> = array.iter().map(|one| Some((key(one)?, one))).collect();
    match keyed {
        None => array.to_vec(),
        Some(mut keyed) => {
            keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
            keyed.into_iter().map(|(_, one)| one.clone()).collect()
        }
    }
}

/// Numbers by their size, everything else by its text.
struct Key(i64, String);

impl Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.0.cmp(&other.0).then_with(|| self.1.cmp(&other.1))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(value: Value) -> Rules {
        serde_json::from_value(value).expect("rules")
    }

    #[test]
    fn patterns_stand_for_positions_names_and_depths() {
        let rules = rules(json!({"$[*].A": "keys", "$.*.B": "optional", "..C": "sort", "$.x.y": "any"}));
        assert_eq!(rules.at("$[12].A"), Some(&Rule::Keys));
        assert_eq!(rules.at("$[12].A.B"), None);
        assert_eq!(rules.at("$.name.B"), Some(&Rule::Optional));
        assert_eq!(rules.at("$[0].deep[1].C"), Some(&Rule::Sort(None)));
        assert_eq!(rules.at("$.x.y"), Some(&Rule::Recorded));
        assert_eq!(rules.at("$.x.yz"), None);
    }

    #[test]
    fn arrays_are_sorted_by_a_field_if_all_have_it() {
        let array = [json!({"a": {"n": 10}}), json!({"a": {"n": 9}})];
        let rule = Rule::parse("sort:a.n");
        assert_eq!(in_order(&array, &rule), [array[1].clone(), array[0].clone()]);
        let array = [json!({"a": {"n": 10}}), json!({})];
        assert_eq!(in_order(&array, &rule), array);
        assert_eq!(in_order(&[json!("b"), json!("a")], &Rule::Sort(None)), [json!("a"), json!("b")]);
    }
}
