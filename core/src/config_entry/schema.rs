//! How the fields of configuration entries are read and written: tables of fields, and one walk over them each way.
//!
//! Reading is as lenient about notation as clients are used to (letter case, `snake_case`, numbers as text, a list of
//! one for an object, because that is how HCL blocks read) and strict about names: what is in no table is refused.

use serde_json::{Map, Value};

use crate::api::render::json::Json;
use crate::duration;

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Type {
    /// A string.
    Text,
    /// A string in lower case.
    Word,
    /// True or false.
    Flag,
    /// A whole number.
    Integer,
    /// A percentage with two decimals.
    Weight,
    /// A duration, written in Go's notation.
    Duration,
    /// Strings.
    Texts,
    /// Whole numbers.
    Integers,
    /// Strings by name.
    TextMap,
    /// Whatever was given: an object whose keys are data.
    Free,
    /// Fields that are always there.
    Struct(&'static [Field]),
    /// Fields that may be absent as a whole.
    Option(&'static [Field]),
    /// Objects in order.
    List(&'static [Field]),
    /// Objects by name.
    Map(&'static [Field]),
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// As it is written.
    pub(super) name: &'static str,
    /// What it holds.
    pub(super) of: Type,
    /// Whether it is also written while it is unset.
    pub(super) always: bool,
}

/// A field that is left out while it is unset.
pub(super) const fn field(name: &'static str, of: Type) -> Field {
    Field { name, of, always: false }
}

/// A field that is always written.
pub(super) const fn always(name: &'static str, of: Type) -> Field {
    Field { name, of, always: true }
}

/// Reads an object into one that has only known fields, under their proper names, with values of their types. What is
/// unset is left out, except for empty lists, which are not the same as none where a field is always written.
///
/// # Errors
/// All that is wrong with it, in Consul's words.
pub(super) fn read(fields: &'static [Field], value: &Value) -> Result<Map<String, Value>, String> {
    let mut reader = Reader::default();
    let read = reader.object(fields, "", value);
    reader.refuse()?;
    if reader.unknown.is_empty() {
        return Ok(read);
    }
    let list: Vec<String> = reader.unknown.iter().map(|path| unknown(path)).collect();
    Err(crate::api::render::errors(&list))
}

/// Like [`read`], but what is in no table is passed over.
///
/// # Errors
/// What cannot be read, in Consul's words.
pub(super) fn read_known(fields: &'static [Field], value: &Value) -> Result<Map<String, Value>, String> {
    let mut reader = Reader::default();
    let read = reader.object(fields, "", value);
    reader.refuse()?;
    Ok(read)
}

fn unknown(path: &str) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    let hint = match canonical(name).as_str() {
        "namespace" => ", namespaces are a consul enterprise feature",
        "partition" => ", partitions are a consul enterprise feature",
        _ => "",
    };
    format!("invalid config key {path:?}{hint}")
}

fn canonical(name: &str) -> String {
    name.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect()
}

/// Collects what is wrong while it reads on.
#[derive(Default)]
struct Reader {
    errors: Vec<String>,
    unknown: Vec<String>,
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl Reader {
    /// Fails if anything could not be read.
    fn refuse(&self) -> Result<(), String> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = self.errors.iter().map(|error| format!("* {error}")).collect();
        Err(format!("{} error(s) decoding:\n\n{}", list.len(), list.join("\n")))
    }

    fn object(&mut self, fields: &'static [Field], path: &str, value: &Value) -> Map<String, Value> {
        let mut read = Map::new();
        let given = match value {
            Value::Object(map) => map,
            Value::Null => return read,
            Value::Array(list) if list.len() == 1 => return self.object(fields, path, &list[0]),
            other => {
                let got = if other.is_array() { "slice" } else { go_type(other) };
                self.errors.push(format!("'{path}' expected a map, got '{got}'"));
                return read;
            }
        };
        let mut left: Vec<(&String, &Value)> = given.iter().collect();
        for field in fields {
            let wanted = canonical(field.name);
            let exact = left.iter().position(|(key, _)| *key == field.name);
            let at = exact.or_else(|| left.iter().position(|(key, _)| canonical(key) == wanted));
            let value = at.map_or(&Value::Null, |at| left.remove(at).1);
            if let Some(value) = self.value(field, &join(path, field.name), value) {
                read.insert(field.name.to_owned(), value);
            }
        }
        self.unknown.extend(left.into_iter().map(|(key, _)| join(path, key)));
        read
    }

    /// Reads a value; `None` while it is unset.
    fn value(&mut self, field: &Field, path: &str, value: &Value) -> Option<Value> {
        if value.is_null() {
            return matches!(field.of, Type::Struct(_)).then(|| Value::Object(Map::new()));
        }
        let unless_zero = |value: Value, zero: bool| (!zero).then_some(value);
        match field.of {
            Type::Text | Type::Word | Type::Duration => {
                let text = match field.of {
                    Type::Duration => self.duration(path, value),
                    Type::Word => self.text(path, value).to_lowercase(),
                    _ => self.text(path, value),
                };
                let zero = text.is_empty();
                unless_zero(Value::String(text), zero)
            }
            Type::Flag => self.flag(path, value).then_some(Value::Bool(true)),
            Type::Integer => {
                let number = self.integer(path, value);
                unless_zero(number.into(), number == 0)
            }
            Type::Weight => {
                let number = self.float(path, value);
                let number = libm::round(number * 100.0) / 100.0;
                unless_zero(number.into(), number == 0.0)
            }
            Type::Texts => {
                let list = self.each(value, path, |reader, path, value| reader.text(path, value).into());
                self.list(field, list)
            }
            Type::Integers => {
                let list = self.each(value, path, |reader, path, value| reader.integer(path, value).into());
                self.list(field, list)
            }
            Type::TextMap => {
                let map = self.entries(path, value, |reader, path, value| reader.text(path, value).into());
                let empty = map.is_empty();
                unless_zero(Value::Object(map), empty)
            }
            Type::Free => {
                let map = self.entries(path, value, |_, _, value| value.clone());
                let empty = map.is_empty();
                unless_zero(Value::Object(map), empty)
            }
            Type::Struct(fields) | Type::Option(fields) => {
                Some(Value::Object(self.object(fields, path, value)))
            }
            Type::List(fields) => {
                let list =
                    self.each(value, path, |reader, path, value| reader.object(fields, path, value).into());
                self.list(field, list)
            }
            Type::Map(fields) => {
                let map = self
                    .entries(path, value, |reader, path, value| reader.object(fields, path, value).into());
                let empty = map.is_empty();
                unless_zero(Value::Object(map), empty)
            }
        }
    }

    #[expect(clippy::unused_self, reason = "it reads as the others do")]
    fn list(&mut self, field: &Field, list: Vec<Value>) -> Option<Value> {
        (field.always || !list.is_empty()).then_some(Value::Array(list))
    }

    /// The elements of a list; a single value stands for a list of one.
    fn each(
        &mut self,
        value: &Value,
        path: &str,
        read: impl Fn(&mut Reader, &str, &Value) -> Value,
    ) -> Vec<Value> {
        match value {
            Value::Array(list) => list
                .iter()
                .enumerate()
                .map(|(at, value)| read(self, &format!("{path}[{at}]"), value))
                .collect(),
            value => vec![read(self, &format!("{path}[0]"), value)],
        }
    }

    /// The entries of an object whose keys are data.
    fn entries(
        &mut self,
        path: &str,
        value: &Value,
        read: impl Fn(&mut Reader, &str, &Value) -> Value + Copy,
    ) -> Map<String, Value> {
        match value {
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| (key.clone(), read(self, &format!("{path}[{key}]"), value)))
                .collect(),
            Value::Array(list) if list.len() == 1 => self.entries(path, &list[0], read),
            Value::Array(list) if list.is_empty() => Map::new(),
            other => {
                let got = if other.is_array() { "slice" } else { go_type(other) };
                self.errors.push(format!("'{path}' expected a map, got '{got}'"));
                Map::new()
            }
        }
    }

    fn mismatch(&mut self, path: &str, expected: &str, value: &Value) {
        let got = go_type(value);
        self.errors.push(format!("'{path}' expected type '{expected}', got unconvertible type '{got}'"));
    }

    fn text(&mut self, path: &str, value: &Value) -> String {
        match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Bool(flag) => if *flag { "1" } else { "0" }.to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Array(list) if list.len() == 1 => self.text(path, &list[0]),
            other => {
                self.mismatch(path, "string", other);
                String::new()
            }
        }
    }

    fn flag(&mut self, path: &str, value: &Value) -> bool {
        match value {
            Value::Bool(flag) => *flag,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) if text.is_empty() => false,
            Value::String(text) => crate::api::parse_bool(text).unwrap_or_else(|| {
                self.errors.push(format!(
                    "cannot parse '{path}' as bool: strconv.ParseBool: parsing {text:?}: invalid syntax"
                ));
                false
            }),
            other => {
                self.mismatch(path, "bool", other);
                false
            }
        }
    }

    fn integer(&mut self, path: &str, value: &Value) -> i64 {
        match value {
            Value::Bool(flag) => i64::from(*flag),
            Value::Number(number) => {
                number.as_i64().unwrap_or_else(|| number.as_f64().map_or(0, |number| number as i64))
            }
            Value::String(text) if text.is_empty() => 0,
            Value::String(text) => text.parse().unwrap_or_else(|_| {
                self.errors.push(format!(
                    "cannot parse '{path}' as int: strconv.ParseInt: parsing {text:?}: invalid syntax"
                ));
                0
            }),
            other => {
                self.mismatch(path, "int", other);
                0
            }
        }
    }

    fn float(&mut self, path: &str, value: &Value) -> f64 {
        match value {
            Value::Bool(flag) => f64::from(u8::from(*flag)),
            Value::Number(number) => number.as_f64().unwrap_or(0.0),
            Value::String(text) => {
                text.parse().ok().filter(|number: &f64| number.is_finite()).unwrap_or_else(|| {
                    self.errors.push(format!(
                        "cannot parse '{path}' as float: strconv.ParseFloat: parsing {text:?}: invalid syntax"
                    ));
                    0.0
                })
            }
            other => {
                self.mismatch(path, "float32", other);
                0.0
            }
        }
    }

    /// A duration in Go's notation, normalised; empty while it is zero.
    fn duration(&mut self, path: &str, value: &Value) -> String {
        let nanos = match value {
            Value::String(text) => duration::parse(text).unwrap_or_else(|| {
                self.errors.push(format!("error decoding '{path}': time: invalid duration {text:?}"));
                0
            }),
            other => self.integer(path, other),
        };
        match nanos {
            0 => String::new(),
            nanos => {
                let text = duration::format(core::time::Duration::from_nanos(nanos.unsigned_abs()));
                if nanos < 0 { format!("-{text}") } else { text }
            }
        }
    }
}

/// Writes what [`read`] made, with what is always written.
pub(super) fn write(json: &mut Json, fields: &'static [Field], map: &Map<String, Value>) {
    json.open(b'{');
    for field in fields {
        write_field(json, field, map.get(field.name));
    }
    json.close(b'}');
}

fn write_field(json: &mut Json, field: &Field, value: Option<&Value>) {
    let Some(value) = value else {
        let zero: Option<&[u8]> = match field.of {
            Type::Struct(fields) => {
                json.key(field.name);
                write(json, fields, &Map::new());
                return;
            }
            _ if !field.always => None,
            Type::Text | Type::Word => Some(b"\"\""),
            Type::Flag => Some(b"false"),
            Type::Integer | Type::Weight => Some(b"0"),
            Type::Duration => Some(b"\"0s\""),
            Type::Texts
            | Type::Integers
            | Type::TextMap
            | Type::Free
            | Type::Option(_)
            | Type::List(_)
            | Type::Map(_) => Some(b"null"),
        };
        if let Some(zero) = zero {
            json.key(field.name);
            json.raw(zero);
        }
        return;
    };
    json.key(field.name);
    match (field.of, value) {
        (Type::Struct(fields) | Type::Option(fields), Value::Object(map)) => write(json, fields, map),
        (Type::List(fields), Value::Array(list)) => {
            json.open(b'[');
            for map in list.iter().filter_map(Value::as_object) {
                json.next();
                write(json, fields, map);
            }
            json.close(b']');
        }
        (Type::Map(fields), Value::Object(map)) => {
            json.open(b'{');
            for (key, value) in map.iter().filter_map(|(key, value)| Some((key, value.as_object()?))) {
                json.data_key(key);
                write(json, fields, value);
            }
            json.close(b'}');
        }
        (Type::Weight, Value::Number(number)) => {
            weight(json, number.as_f64().unwrap_or(0.0));
        }
        (_, value) => free(json, value),
    }
}

/// Writes a percentage: the shortest text among the numbers of half the width, which is what clients have.
pub(super) fn weight(json: &mut Json, weight: f64) {
    json.raw((weight as f32).to_string().as_bytes());
}

/// Writes any JSON in the notation of all other answers.
pub(crate) fn free(json: &mut Json, value: &Value) {
    match value {
        Value::Null => json.raw(b"null"),
        Value::Bool(flag) => json.flag(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (None, Some(float)) if number.is_f64() => json.float(float),
            _ => json.raw(number.to_string().as_bytes()),
        },
        Value::String(text) => json.string(text),
        Value::Array(list) => {
            json.open(b'[');
            for value in list {
                json.next();
                free(json, value);
            }
            json.close(b']');
        }
        Value::Object(map) => {
            json.open(b'{');
            for (key, value) in map {
                json.data_key(key);
                free(json, value);
            }
            json.close(b'}');
        }
    }
}
