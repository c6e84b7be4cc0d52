//! Reads HCL 1, the language of Consul's configuration files, into JSON values.
//!
//! HCL 1 (<https://github.com/hashicorp/hcl/tree/hcl1>) is not HCL 2: an object may stand on one line without commas
//! (`service { name = "web" port = 80 }`), keys may be quoted anywhere, `"{{ … }}"` and `"${…}"` are plain text, and a
//! document that begins with `{` is JSON. Readers of HCL 2 refuse such files, which is why this reader exists.
//!
//! Every object under a key becomes an element of a list, because repeating a block is how HCL 1 spells a list of
//! objects. Whether a list is welcome is decided by the [schema](super::schema).

use serde_json::{Map, Number, Value};

/// Deepest nesting of objects and lists. Service definitions need about eight.
const DEPTH_MAX: usize = 64;

/// Where and why a document cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct SyntaxError {
    /// Line, counted from 1.
    pub line: usize,
    /// What was found or missing.
    pub reason: String,
}

/// Reads a document. An empty one is an empty object.
pub fn parse(text: &str) -> Result<Value, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text)
            .map_err(|e| SyntaxError { line: e.line(), reason: json_reason(&e.to_string()) });
    }
    let mut parser = Parser { text, at: 0, line: 1 };
    let object = parser.items(None, 0)?;
    Ok(Value::Object(object))
}

/// The reason without the position that serde_json appends.
pub(crate) fn json_reason(text: &str) -> String {
    text.rsplit_once(" at line ").map_or(text, |(reason, _)| reason).to_owned()
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl Parser<'_> {
    fn fail<T>(&self, reason: impl Into<String>) -> Result<T, SyntaxError> {
        Err(SyntaxError { line: self.line, reason: reason.into() })
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        self.line += usize::from(c == '\n');
        Some(c)
    }

    /// What stands here, in words.
    fn here(&self) -> String {
        match self.peek() {
            None => "the end of the file".to_owned(),
            Some('\n') => "the end of the line".to_owned(),
            Some(c) => format!("{c:?}"),
        }
    }

    /// Skips blanks and comments: `#`, `//` and `/* */`.
    fn skip(&mut self) -> Result<(), SyntaxError> {
        loop {
            let rest = self.rest();
            if rest.starts_with('#') || rest.starts_with("//") {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.bump();
                }
            } else if rest.starts_with("/*") {
                let start = self.line;
                while !self.rest().starts_with("*/") {
                    if self.bump().is_none() {
                        return Err(SyntaxError {
                            line: start,
                            reason: "comment is never closed".to_owned(),
                        });
                    }
                }
                self.at += 2;
            } else if self.peek().is_some_and(char::is_whitespace) {
                self.bump();
            } else {
                return Ok(());
            }
        }
    }

    /// The items of an object up to `close`, or of the document.
    fn items(&mut self, close: Option<char>, depth: usize) -> Result<Map<String, Value>, SyntaxError> {
        if depth > DEPTH_MAX {
            return self.fail(format!("nested deeper than {DEPTH_MAX}"));
        }
        let opened = self.line;
        let mut object = Map::new();
        loop {
            self.skip()?;
            match self.peek() {
                found if found == close => {
                    self.bump();
                    return Ok(object);
                }
                None => {
                    return Err(SyntaxError {
                        line: opened,
                        reason: "this object is never closed".to_owned(),
                    });
                }
                Some(',') if close.is_some() => {
                    self.bump();
                }
                Some(_) => self.item(&mut object, depth)?,
            }
        }
    }

    /// `key = value`, `key: value` or `key "label"… { … }`.
    fn item(&mut self, object: &mut Map<String, Value>, depth: usize) -> Result<(), SyntaxError> {
        let mut keys = vec![self.key()?];
        loop {
            self.skip()?;
            match self.peek() {
                Some('=' | ':') if keys.len() == 1 => {
                    self.bump();
                    self.skip()?;
                    let value = self.value(depth)?;
                    put(object, &keys, value);
                    return Ok(());
                }
                Some('{') => {
                    self.bump();
                    let value = Value::Object(self.items(Some('}'), depth + keys.len())?);
                    put(object, &keys, value);
                    return Ok(());
                }
                Some('"') => keys.push(self.string()?),
                Some(c) if is_key_start(c) => keys.push(self.key()?),
                _ => {
                    let (here, key) = (self.here(), &keys[0]);
                    return self.fail(format!("expected = or {{ after {key:?}, found {here}"));
                }
            }
            if keys.len() > DEPTH_MAX {
                return self.fail("too many keys before a value");
            }
        }
    }

    fn key(&mut self) -> Result<String, SyntaxError> {
        match self.peek() {
            Some('"') => self.string(),
            Some(c) if is_key_start(c) => {
                let start = self.at;
                while self
                    .peek()
                    .is_some_and(|c| is_key_start(c) || c.is_ascii_digit() || c == '-' || c == '.')
                {
                    self.bump();
                }
                Ok(self.text[start..self.at].to_owned())
            }
            _ => {
                let here = self.here();
                self.fail(format!("expected a key, found {here}"))
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        match self.peek() {
            Some('{') => {
                self.bump();
                Ok(Value::Object(self.items(Some('}'), depth + 1)?))
            }
            Some('[') => self.list(depth + 1),
            Some('"') => self.string().map(Value::String),
            Some('<') => self.heredoc().map(Value::String),
            Some(c) if c.is_ascii_digit() || c == '-' || c == '.' => self.number(),
            Some(c) if is_key_start(c) => {
                let word = self.key()?;
                match word.as_str() {
                    "true" => Ok(Value::Bool(true)),
                    "false" => Ok(Value::Bool(false)),
                    _ => self.fail(format!("{word} is no value: text must be quoted")),
                }
            }
            _ => {
                let here = self.here();
                self.fail(format!("expected a value, found {here}"))
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        if depth > DEPTH_MAX {
            return self.fail(format!("nested deeper than {DEPTH_MAX}"));
        }
        let opened = self.line;
        self.bump();
        let mut list = Vec::new();
        loop {
            self.skip()?;
            match self.peek() {
                Some(']') => {
                    self.bump();
                    return Ok(Value::Array(list));
                }
                None => {
                    return Err(SyntaxError { line: opened, reason: "this list is never closed".to_owned() });
                }
                _ => list.push(self.value(depth)?),
            }
            self.skip()?;
            match self.peek() {
                Some(',') => {
                    self.bump();
                }
                Some(']') | None => {}
                Some(_) => {
                    let here = self.here();
                    return self.fail(format!("expected , or ] in a list, found {here}"));
                }
            }
        }
    }

    fn number(&mut self) -> Result<Value, SyntaxError> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+')) {
            self.bump();
        }
        let text = &self.text[start..self.at];
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
        let whole = if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
            i64::from_str_radix(hex, 16).ok()
        } else if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
            i64::from_str_radix(digits, 8).ok()
        } else {
            digits.parse::<i64>().ok()
        };
        let plain = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        let value = match whole {
            Some(whole) if !digits.starts_with(['-', '+']) => Some(Value::from(sign * whole)),
            _ => text.parse::<f64>().ok().filter(|_| plain).and_then(Number::from_f64).map(Value::Number),
        };
        match value {
            Some(value) => Ok(value),
            None => self.fail(format!("{text} is no number: text must be quoted")),
        }
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        let opened = self.line;
        self.bump();
        let mut out = String::new();
        // Depth of ${ … }, inside which quotes and escapes stay as they are.
        let mut braces = 0usize;
        loop {
            let Some(c) = self.bump() else {
                return Err(SyntaxError { line: opened, reason: "this text is never closed".to_owned() });
            };
            if braces > 0 {
                braces = match c {
                    '{' => braces + 1,
                    '}' => braces - 1,
                    _ => braces,
                };
                out.push(c);
                continue;
            }
            match c {
                '"' => return Ok(out),
                '\n' => {
                    return Err(SyntaxError {
                        line: opened,
                        reason: "this text is not closed on its line".to_owned(),
                    });
                }
                '$' if self.peek() == Some('{') => {
                    self.bump();
                    out.push_str("${");
                    braces = 1;
                }
                '\\' => out.push(self.escape()?),
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, SyntaxError> {
        match self.bump() {
            Some('a') => Ok('\u{07}'),
            Some('b') => Ok('\u{08}'),
            Some('f') => Ok('\u{0c}'),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('v') => Ok('\u{0b}'),
            Some(c @ ('\\' | '"')) => Ok(c),
            Some('x') => self.code(2),
            Some('u') => self.code(4),
            Some('U') => self.code(8),
            other => {
                let shown = other.map(String::from).unwrap_or_default();
                self.fail(format!("unknown escape \\{shown} (write \\\\ for a backslash)"))
            }
        }
    }

    fn code(&mut self, digits: usize) -> Result<char, SyntaxError> {
        let code = self.rest().get(..digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        match code.and_then(char::from_u32) {
            Some(c) => {
                self.at += digits;
                Ok(c)
            }
            None => self.fail(format!("expected {digits} hexadecimal digits of a character")),
        }
    }

    /// `<<END` or `<<-END` (which removes the indentation of the closing word).
    fn heredoc(&mut self) -> Result<String, SyntaxError> {
        let opened = self.line;
        let rest = self.rest();
        let Some(head) = rest.strip_prefix("<<") else {
            return self.fail("expected a value, found '<'");
        };
        let (first, body) = head.split_once('\n').unwrap_or((head, ""));
        let (indented, word) = match first.trim_end().strip_prefix('-') {
            Some(word) => (true, word),
            None => (false, first.trim_end()),
        };
        if word.is_empty() || !word.chars().all(|c| c.is_alphanumeric() || c == '_') {
            return self.fail("expected a word after <<");
        }
        let mut lines: Vec<&str> = Vec::new();
        let mut used = 2 + first.len() + 1;
        let mut closing = None;
        for line in body.split_inclusive('\n') {
            used += line.len();
            if line.trim() == word && (indented || line.trim_end() == word) {
                // The line break after the closing word stays outside.
                used -= line.len() - line.trim_end().len();
                closing = Some(line);
                break;
            }
            lines.push(line);
        }
        let Some(closing) = closing else {
            return Err(SyntaxError {
                line: opened,
                reason: format!("no line with {word} closes this text"),
            });
        };
        let margin = &closing[..closing.len() - closing.trim_start().len()];
        let cut = |line: &&str| match line.strip_prefix(margin) {
            Some(rest) if indented => rest.to_owned(),
            _ => (*line).to_owned(),
        };
        let text: String = lines.iter().map(cut).collect();
        self.line += lines.len() + 1;
        self.at += used;
        Ok(text)
    }
}

fn is_key_start(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

/// Stores a value under its keys. Objects accumulate in lists, of anything else the last one wins.
fn put(object: &mut Map<String, Value>, keys: &[String], value: Value) {
    let Some((key, inner)) = keys.split_first() else {
        return;
    };
    let value = if inner.is_empty() {
        value
    } else {
        let mut wrapped = Map::new();
        put(&mut wrapped, inner, value);
        Value::Object(wrapped)
    };
    if !value.is_object() {
        object.insert(key.clone(), value);
        return;
    }
    match object.get_mut(key) {
        Some(Value::Array(list)) => list.push(value),
        _ => {
            object.insert(key.clone(), Value::Array(vec![value]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proconsul_core::testing::fuzz::{cases, hostile_text};
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn documents_in_the_spellings_that_people_use() {
        for (text, expected) in [
            ("", json!({})),
            ("# c\n// d\n/* e\n */ a = 1", json!({"a": 1})),
            (
                "a = 0x1F\nb = 010\nc = -5\nd = 1.5\ne = 1e3",
                json!({"a": 31, "b": 8, "c": -5, "d": 1.5, "e": 1000.0}),
            ),
            ("a = true b = false", json!({"a": true, "b": false})),
            ("service { name = \"web\" port = 80 }", json!({"service": [{"name": "web", "port": 80}]})),
            ("service = { name = \"web\", port = 80, }", json!({"service": [{"name": "web", "port": 80}]})),
            ("s { a = 1 }\ns { a = 2 }", json!({"s": [{"a": 1}, {"a": 2}]})),
            ("s \"x\" { a = 1 }", json!({"s": [{"x": [{"a": 1}]}]})),
            ("l = [{ a = 1 }, { a = 2 },]", json!({"l": [{"a": 1}, {"a": 2}]})),
            ("ttl { \"*\" = \"5s\" \"a.b\" = \"1s\" }", json!({"ttl": [{"*": "5s", "a.b": "1s"}]})),
            ("a = \"x\"\na = \"y\"", json!({"a": "y"})),
            ("a = \"q\\\"\\n\\u00e9\"", json!({"a": "q\"\né"})),
            ("a = \"{{ GetInterfaceIP \\\"eth0\\\" }}\"", json!({"a": "{{ GetInterfaceIP \"eth0\" }}"})),
            ("a = \"${ f(\"x\") } %{b}\"", json!({"a": "${ f(\"x\") } %{b}"})),
            ("a = <<END\n one\nEND\nb = 1", json!({"a": " one\n", "b": 1})),
            ("a = <<-END\n   one\n  END\nb = 1", json!({"a": " one\n", "b": 1})),
            (" { \"a\": [1, null] } ", json!({"a": [1, null]})),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn errors_name_the_line() {
        for (text, line, part) in [
            ("a = = 1", 1, "expected a value, found '='"),
            ("a =\n= 1", 2, "expected a value"),
            ("\na = word", 2, "must be quoted"),
            ("a {\n b = 1\n", 1, "never closed"),
            ("a = [1 2]", 1, "expected , or ]"),
            ("a = \"x\nb = 1", 1, "not closed on its line"),
            ("a = 12x", 1, "is no number"),
            ("a = \"\\q\"", 1, "unknown escape"),
            ("= 1", 1, "expected a key"),
            ("a", 1, "expected = or {"),
            ("a = <<E\nx", 1, "no line with E"),
            ("{\n\"a\" 1}", 2, "expected `:`"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.reason.contains(part), "{text}: {error}");
        }
    }

    /// Values that both languages can say, for writing them as HCL.
    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z\"\\\\\n ${}#é]{0,8}"
                .prop_filter("no interpolation", |s| !s.contains("${"))
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z_]{1,5}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// JSON's own notation of values is also HCL's.
    fn written(object: &Map<String, Value>) -> String {
        object.iter().map(|(key, value)| format!("{key} = {value} ")).collect()
    }

    /// What the reader makes of objects: elements of lists, under every key.
    fn wrapped(value: Value) -> Value {
        let inside = |object: Map<String, Value>| -> Map<String, Value> {
            let wrap = |value: Value| match wrapped(value) {
                object @ Value::Object(_) => Value::Array(vec![object]),
                other => other,
            };
            object.into_iter().map(|(key, value)| (key, wrap(value))).collect()
        };
        match value {
            Value::Object(object) => Value::Object(inside(object)),
            Value::Array(list) => Value::Array(list.into_iter().map(wrapped).collect()),
            other => other,
        }
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn what_is_written_is_read_again(map in prop::collection::btree_map("k[a-z_]{0,5}", values(), 0..5)) {
            let object: Map<String, Value> = map.into_iter().collect();
            let text = written(&object);
            prop_assert_eq!(parse(&text), Ok(wrapped(Value::Object(object))), "{}", text);
        }

        #[test]
        fn hostile_text_is_read_or_refused_at_little_cost(text in hostile_text(
            prop_oneof![
                prop::collection::btree_map("k[a-z_]{0,5}", values(), 0..5)
                    .prop_map(|map| written(&map.into_iter().collect())),
                "[a-z0-9 =:,{}\\[\\]\"\\\\\n<$#/*.é-]{0,60}",
            ],
            100,
        )) {
            let held = allocation_counter::measure(|| drop(parse(&text))).bytes_max;
            prop_assert!(held < 64 * 1024 + 512 * text.len() as u64, "{} bytes", held);
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        assert!(parse(&"a { ".repeat(10_000)).is_err());
        assert!(parse(&format!("a = {}", "[".repeat(10_000))).is_err());
    }
}
