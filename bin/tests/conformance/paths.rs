//! Paths into answers, and variables in requests.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Variables by name: texts and numbers.
pub type Variables = BTreeMap<String, Value>;

/// What is at `$.a[0].b`, with `.length` for the number of elements of an array.
pub fn lookup(doc: &Value, path: &str) -> Option<Value> {
    let mut found = doc;
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (position, behind) = inner.split_once(']')?;
            found = found.get(position.parse::<usize>().ok()?)?;
            rest = behind;
        } else {
            let inner = rest.strip_prefix('.')?;
            let end = inner.find(['.', '[']).unwrap_or(inner.len());
            let (name, behind) = inner.split_at(end);
            rest = behind;
            match found {
                Value::Array(list) if name == "length" => {
                    let length = Value::from(list.len());
                    return rest.is_empty().then_some(length);
                }
                other => found = other.get(name)?,
            }
        }
    }
    Some(found.clone())
}

/// A variable as it stands in a text.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => spaced(other),
    }
}

/// JSON with a space after commas and colons, as bodies of the recorded requests had it.
fn spaced(value: &Value) -> String {
    let join = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Array(list) => format!("[{}]", join(list.iter().map(spaced).collect())),
        Value::Object(map) => {
            let entry =
                |(key, value): (&String, &Value)| format!("{}: {}", Value::from(&**key), spaced(value));
            format!("{{{}}}", join(map.iter().map(entry).collect()))
        }
        other => other.to_string(),
    }
}

/// Replaces `${name}` in a text.
pub fn substitute_text(text: &str, variables: &Variables) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match name_at_start(rest) {
            Some(name) => {
                let value = variables.get(name).ok_or_else(|| format!("${{{name}}} was not captured"))?;
                out.push_str(&plain(value));
                rest = &rest[name.len() + 3..];
            }
            None => {
                out.push_str("${");
                rest = &rest[2..];
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Replaces `${name}` in all strings; a string that is nothing but the name of a number becomes that number.
pub fn substitute(value: &Value, variables: &Variables) -> Result<Value, String> {
    Ok(match value {
        Value::Object(map) => {
            let replaced = map
                .iter()
                .map(|(key, value)| Ok((substitute_text(key, variables)?, substitute(value, variables)?)));
            Value::Object(replaced.collect::<Result<Map<_, _>, String>>()?)
        }
        Value::Array(list) => {
            Value::Array(list.iter().map(|one| substitute(one, variables)).collect::<Result<_, _>>()?)
        }
        Value::String(text) => {
            match name_at_start(text).and_then(|name| Some((name, variables.get(name)?))) {
                Some((name, number @ Value::Number(_))) if text.len() == name.len() + 3 => number.clone(),
                _ => Value::String(substitute_text(text, variables)?),
            }
        }
        other => other.clone(),
    })
}

/// The name in a text that begins with `${name}`.
pub fn name_at_start(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix("${")?.split_once('}')?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (!name.is_empty() && name.chars().all(fits)).then_some(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_values_and_lengths() {
        let doc = json!([{"a": [{"b-c": 7}]}]);
        assert_eq!(lookup(&doc, "$[0].a[0].b-c"), Some(json!(7)));
        assert_eq!(lookup(&doc, "$[0].a.length"), Some(json!(1)));
        assert_eq!(lookup(&doc, "$[1]"), None);
        assert_eq!(lookup(&doc, "$"), Some(doc));
    }

    #[test]
    fn variables_are_replaced_and_numbers_stay_numbers() {
        let variables = Variables::from([("i".into(), json!(7)), ("s".into(), json!("x"))]);
        let value = json!({"${s}": ["${i}", "a${i}b", "${s}", "$x", "${"]});
        assert_eq!(substitute(&value, &variables), Ok(json!({"x": [7, "a7b", "x", "$x", "${"]})));
        assert!(substitute(&json!("${gone}"), &variables).is_err());
    }
}
