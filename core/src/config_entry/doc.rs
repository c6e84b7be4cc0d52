//! Looking into the fields of an entry that was read: what is unset is empty.

use serde_json::{Map, Value};

/// An object of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doc<'a>(pub(crate) &'a Map<String, Value>);

impl<'a> Doc<'a> {
    /// A string; empty while it is unset.
    pub(crate) fn text(self, name: &str) -> &'a str {
        self.0.get(name).and_then(Value::as_str).unwrap_or("")
    }

    /// True or false.
    pub(crate) fn flag(self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A whole number; zero while it is unset.
    pub(crate) fn integer(self, name: &str) -> i64 {
        self.0.get(name).and_then(Value::as_i64).unwrap_or(0)
    }

    /// A number; zero while it is unset.
    pub(crate) fn number(self, name: &str) -> f64 {
        self.0.get(name).and_then(Value::as_f64).unwrap_or(0.0)
    }

    /// Strings.
    pub(crate) fn texts(self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// Objects in order.
    pub(crate) fn list(self, name: &str) -> impl Iterator<Item = Doc<'a>> + use<'a> {
        let list = self.0.get(name).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_object).map(Doc)
    }

    /// An object, unless it is unset.
    pub(crate) fn object(self, name: &str) -> Option<Doc<'a>> {
        self.0.get(name).and_then(Value::as_object).map(Doc)
    }

    /// Objects by name.
    pub(crate) fn map(self, name: &str) -> impl Iterator<Item = (&'a str, Doc<'a>)> + use<'a> {
        let map = self.0.get(name).and_then(Value::as_object).into_iter().flatten();
        map.filter_map(|(key, value)| Some((key.as_str(), Doc(value.as_object()?))))
    }

    /// Whether a field is set.
    pub(crate) fn has(self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}
