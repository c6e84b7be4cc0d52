//! Reads objects of requests and configuration files field by field, and says exactly what is wrong with them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::{Text, duration};

/// Where a definition comes from, which decides how keys are compared and how errors read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A request: `CamelCase` and `snake_case` keys alike.
    Api,
    /// A configuration file: `snake_case` keys in any letter case; a list of one element stands for its element,
    /// because that is how HCL blocks read.
    File,
}

/// Why an object could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Keys that mean nothing, as dotted paths.
    #[error("{}", unknown_keys(.0))]
    UnknownKeys(Vec<String>),
    /// A value of a wrong type.
    #[error("'{path}' expected {expected}, got {got}")]
    Type {
        /// Dotted path of the value.
        path: String,
        /// What was expected.
        expected: &'static str,
        /// What stands there.
        got: String,
    },
    /// A duration that cannot be read.
    #[error("time: invalid duration {text:?} ({path})")]
    Duration {
        /// Dotted path of the value.
        path: String,
        /// What stands there.
        text: String,
    },
}

fn unknown_keys(paths: &[String]) -> String {
    paths.iter().map(|path| format!("invalid config key {path}")).collect::<Vec<_>>().join("; ")
}

/// A JSON object whose fields are taken one by one; what is left at the end is unknown.
pub(crate) struct Object {
    source: Source,
    path: String,
    fields: BTreeMap<String, (String, Value)>,
}

impl Object {
    pub(crate) fn new(source: Source, path: &str, value: &Value) -> Result<Object, DecodeError> {
        let map = match (source, value) {
            (_, Value::Object(map)) => map.clone(),
            (_, Value::Null) => Map::new(),
            (Source::File, Value::Array(list)) if list.len() == 1 => {
                return Object::new(source, path, &list[0]);
            }
            _ => return Err(wrong(path, "an object", value)),
        };
        let fields = map.into_iter().map(|(key, value)| (canonical(source, &key), (key, value))).collect();
        Ok(Object { source, path: path.into(), fields })
    }

    pub(crate) fn source(&self) -> Source {
        self.source
    }

    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    /// Whether there is a field; null is absent.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.fields.get(&canonical(self.source, key)).is_some_and(|(_, value)| !value.is_null())
    }

    /// Takes a field by its `snake_case` name; null is absent.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        let (_, value) = self.fields.remove(&canonical(self.source, key))?;
        (!value.is_null()).then_some(value)
    }

    /// Takes a field that must be a scalar, out of the list of one element that HCL may have put it in.
    fn scalar(&mut self, key: &str) -> Option<Value> {
        match (self.source, self.take(key)?) {
            (Source::File, Value::Array(mut list)) if list.len() == 1 => list.pop(),
            (_, value) => Some(value),
        }
    }

    pub(crate) fn text(&mut self, key: &str) -> Result<Text, DecodeError> {
        match self.scalar(key) {
            None => Ok(Text::default()),
            Some(Value::String(text)) => Ok(text.into()),
            Some(other) => Err(wrong(&self.path_of(key), "a string", &other)),
        }
    }

    pub(crate) fn flag(&mut self, key: &str) -> Result<bool, DecodeError> {
        match self.scalar(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(wrong(&self.path_of(key), "true or false", &other)),
        }
    }

    pub(crate) fn integer(&mut self, key: &str) -> Result<Option<i64>, DecodeError> {
        match self.scalar(key) {
            None => Ok(None),
            Some(Value::Number(number)) if number.as_i64().is_some() => Ok(number.as_i64()),
            Some(Value::Number(number))
                if number.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() < 9e15) =>
            {
                Ok(number.as_f64().map(|n| n as i64))
            }
            Some(other) => Err(wrong(&self.path_of(key), "an integer", &other)),
        }
    }

    /// A number that is not negative; zero when it is absent.
    pub(crate) fn unsigned(&mut self, key: &str) -> Result<u64, DecodeError> {
        match self.scalar(key) {
            None => Ok(0),
            Some(Value::Number(number)) if number.as_u64().is_some() => Ok(number.as_u64().unwrap_or(0)),
            Some(other) => Err(wrong(&self.path_of(key), "an unsigned integer", &other)),
        }
    }

    /// A duration in Go's notation, or a number of nanoseconds. Negative ones come out as zero: unset.
    pub(crate) fn duration(&mut self, key: &str) -> Result<Duration, DecodeError> {
        let path = self.path_of(key);
        let nanos = match self.scalar(key) {
            None => 0,
            Some(Value::String(text)) if text.is_empty() && self.source == Source::File => 0,
            Some(Value::String(text)) => {
                duration::parse(&text).ok_or(DecodeError::Duration { path, text })?
            }
            Some(Value::Number(number)) if number.as_f64().is_some() => match number.as_i64() {
                Some(nanos) => nanos,
                None => number.as_f64().map_or(0, |nanos| nanos as i64),
            },
            Some(other) => return Err(wrong(&path, "a duration such as \"10s\"", &other)),
        };
        Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
    }

    pub(crate) fn texts(&mut self, key: &str) -> Result<Vec<Text>, DecodeError> {
        let path = self.path_of(key);
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(value) => texts(&path, &value),
        }
    }

    pub(crate) fn map(&mut self, key: &str) -> Result<BTreeMap<Text, Text>, DecodeError> {
        let path = self.path_of(key);
        self.entries(key)?
            .into_iter()
            .map(|(key, value)| match value {
                Value::String(text) => Ok((Text::from(key), Text::from(text))),
                other => Err(wrong(&format!("{path}.{key}"), "a string", &other)),
            })
            .collect()
    }

    pub(crate) fn headers(&mut self, key: &str) -> Result<BTreeMap<Text, Vec<Text>>, DecodeError> {
        let path = self.path_of(key);
        self.entries(key)?
            .into_iter()
            .map(|(name, value)| Ok((Text::from(name.as_str()), texts(&format!("{path}.{name}"), &value)?)))
            .collect()
    }

    /// The entries of a map whose keys are data.
    pub(crate) fn entries(&mut self, key: &str) -> Result<Map<String, Value>, DecodeError> {
        match self.scalar(key) {
            None => Ok(Map::new()),
            Some(Value::Object(map)) => Ok(map),
            Some(other) => Err(wrong(&self.path_of(key), "a map", &other)),
        }
    }

    /// An object, `None` when it is absent.
    pub(crate) fn object(&mut self, key: &str) -> Result<Option<Object>, DecodeError> {
        let path = self.path_of(key);
        self.take(key).map(|value| Object::new(self.source, &path, &value)).transpose()
    }

    /// Whether all its fields are what they are when they are left out.
    pub(crate) fn says_nothing(&self) -> bool {
        self.fields.values().all(|(_, value)| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Bool(true) => false,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
        })
    }

    /// A list of objects; a single object stands for a list of one in configuration files.
    pub(crate) fn objects(&mut self, key: &str) -> Result<Vec<Object>, DecodeError> {
        let path = self.path_of(key);
        match (self.source, self.take(key)) {
            (_, None) => Ok(Vec::new()),
            (source, Some(Value::Array(list))) => list
                .iter()
                .enumerate()
                .map(|(at, value)| Object::new(source, &format!("{path}[{at}]"), value))
                .collect(),
            (_, Some(other)) => Err(wrong(&path, "a list", &other)),
        }
    }

    /// Fails when a field was given that nobody took.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.fields.is_empty() {
            return Ok(());
        }
        let prefix =
            |key: &String| if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
        Err(DecodeError::UnknownKeys(self.fields.values().map(|(key, _)| prefix(key)).collect()))
    }
}

fn texts(path: &str, value: &Value) -> Result<Vec<Text>, DecodeError> {
    let Value::Array(list) = value else { return Err(wrong(path, "a list of strings", value)) };
    list.iter()
        .enumerate()
        .map(|(at, value)| match value {
            Value::String(text) => Ok(Text::from(text.as_str())),
            Value::Null => Ok(Text::default()),
            other => Err(wrong(&format!("{path}[{at}]"), "a string", other)),
        })
        .collect()
}

fn canonical(source: Source, key: &str) -> String {
    match source {
        Source::Api => key.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect(),
        Source::File => key.to_lowercase(),
    }
}

fn wrong(path: &str, expected: &'static str, value: &Value) -> DecodeError {
    let got = match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "a boolean".into(),
        Value::Number(number) => format!("number {number}"),
        Value::String(text) => format!("string {text:.40?}"),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    };
    DecodeError::Type { path: path.into(), expected, got }
}
