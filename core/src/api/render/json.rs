//! JSON as Go's `encoding/json` writes it, by hand into one buffer.
//!
//! What is written is compact; [`indent`] turns it into the indented form when that is asked for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A buffer that knows where commas belong.
pub(crate) struct Json {
    buf: Vec<u8>,
}

/// What a byte needs inside a JSON string: nothing, or an escape. Go escapes `<`, `>` and `&` so that JSON can stand
/// inside HTML. The two line separators that Go escapes too begin with 0xe2 and are looked at closer.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut at = 0;
    while at < 0x20 {
        plain[at] = false;
        at += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain[b'<' as usize] = false;
    plain[b'>' as usize] = false;
    plain[b'&' as usize] = false;
    plain[0xe2] = false;
    plain
};

const HEX: &[u8; 16] = b"0123456789abcdef";

impl Json {
    /// An empty buffer.
    pub(crate) fn with_capacity(bytes: usize) -> Json {
        Json { buf: Vec::with_capacity(bytes) }
    }

    /// The text.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.buf
    }

    /// Opens an object or a list, as a value.
    pub(crate) fn open(&mut self, bracket: u8) {
        self.buf.push(bracket);
    }

    /// Closes it.
    pub(crate) fn close(&mut self, bracket: u8) {
        self.buf.push(bracket);
    }

    /// Begins the next element of a list or field of an object.
    pub(crate) fn next(&mut self) {
        if !matches!(self.buf.last(), None | Some(b'{' | b'[')) {
            self.buf.push(b',');
        }
    }

    /// Begins a field with a name that needs no escapes.
    pub(crate) fn key(&mut self, name: &'static str) {
        self.next();
        self.buf.push(b'"');
        self.buf.extend_from_slice(name.as_bytes());
        self.buf.extend_from_slice(b"\":");
    }

    /// Begins a field whose name is data.
    pub(crate) fn data_key(&mut self, name: &str) {
        self.next();
        self.string(name);
        self.buf.push(b':');
    }

    /// JSON that was rendered before.
    pub(crate) fn raw(&mut self, json: &[u8]) {
        self.buf.extend_from_slice(json);
    }

    /// A number.
    pub(crate) fn number(&mut self, number: u64) {
        self.buf.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    /// A number as Go writes it: as few digits as identify it, with an exponent only when it is very small or large.
    pub(crate) fn float(&mut self, number: f64) {
        use std::io::Write as _;
        debug_assert!(number.is_finite(), "JSON has no such numbers");
        let text = &mut self.buf;
        let written = match number.abs() {
            size if size == 0.0 || (1e-6..1e21).contains(&size) => write!(text, "{number}"),
            size if size >= 1e21 => write!(text, "{}", format!("{number:e}").replace('e', "e+")),
            _ => write!(text, "{number:e}"),
        };
        written.expect("writing to a vector cannot fail");
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, flag: bool) {
        self.raw(if flag { b"true" } else { b"false" });
    }

    /// A string.
    pub(crate) fn string(&mut self, text: &str) {
        self.buf.push(b'"');
        let bytes = text.as_bytes();
        let mut done = 0;
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            if PLAIN[usize::from(byte)] {
                at += 1;
                continue;
            }
            if byte == 0xe2 && !matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9])) {
                at += 1;
                continue;
            }
            self.buf.extend_from_slice(&bytes[done..at]);
            match byte {
                b'"' | b'\\' => self.buf.extend_from_slice(&[b'\\', byte]),
                b'\n' => self.buf.extend_from_slice(b"\\n"),
                b'\r' => self.buf.extend_from_slice(b"\\r"),
                b'\t' => self.buf.extend_from_slice(b"\\t"),
                0xe2 => {
                    self.buf.extend_from_slice(b"\\u202");
                    self.buf.push(HEX[usize::from(bytes[at + 2] & 0xf)]);
                    at += 2;
                }
                _ => {
                    self.buf.extend_from_slice(b"\\u00");
                    self.buf.push(HEX[usize::from(byte >> 4)]);
                    self.buf.push(HEX[usize::from(byte & 0xf)]);
                }
            }
            at += 1;
            done = at;
        }
        self.buf.extend_from_slice(&bytes[done..]);
        self.buf.push(b'"');
    }

    /// Something that prints as ASCII without anything to escape: identifiers.
    pub(crate) fn display(&mut self, value: impl core::fmt::Display) {
        use std::io::Write as _;
        write!(self.buf, "\"{value}\"").expect("writing to a vector cannot fail");
    }

    /// The same, or an empty string if there is none.
    pub(crate) fn display_or_empty(&mut self, value: Option<impl core::fmt::Display>) {
        match value {
            Some(value) => self.display(value),
            None => self.string(""),
        }
    }

    /// Bytes as Go writes them: base64, null when there are none.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.raw(b"null");
            return;
        }
        self.buf.push(b'"');
        let from = self.buf.len();
        self.buf.resize(from + bytes.len().div_ceil(3) * 4, 0);
        STANDARD.encode_slice(bytes, &mut self.buf[from..]).expect("the room was computed for exactly this");
        self.buf.push(b'"');
    }

    /// A list of strings.
    pub(crate) fn strings<T: AsRef<str>>(&mut self, list: impl IntoIterator<Item = T>) {
        self.open(b'[');
        for text in list {
            self.next();
            self.string(text.as_ref());
        }
        self.close(b']');
    }

    /// A map from string to string.
    pub(crate) fn map<'a, T: AsRef<str> + 'a>(&mut self, map: impl IntoIterator<Item = (&'a T, &'a T)>) {
        self.open(b'{');
        for (key, value) in map {
            self.data_key(key.as_ref());
            self.string(value.as_ref());
        }
        self.close(b'}');
    }
}

/// Indents compact JSON by four spaces a level and ends it with a newline. Empty lists and objects stay closed.
pub(crate) fn indent(compact: &[u8]) -> Vec<u8> {
    const SPACES: &[u8] = &[b' '; 64];
    let mut out = Vec::with_capacity(compact.len() * 2 + 16);
    let mut depth = 0usize;
    let mut at = 0;
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        let mut left = depth * 4;
        while left > 0 {
            let part = left.min(SPACES.len());
            out.extend_from_slice(&SPACES[..part]);
            left -= part;
        }
    };
    while at < compact.len() {
        let byte = compact[at];
        match byte {
            b'"' => {
                let from = at;
                at += 1;
                while at < compact.len() && compact[at] != b'"' {
                    at += if compact[at] == b'\\' { 2 } else { 1 };
                }
                let end = (at + 1).min(compact.len());
                out.extend_from_slice(&compact[from..end]);
            }
            b'{' | b'[' => {
                out.push(byte);
                if matches!(compact.get(at + 1), Some(b'}' | b']')) {
                    at += 1;
                    out.push(compact[at]);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => out.push(byte),
        }
        at += 1;
    }
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(text: &str) -> String {
        let mut json = Json::with_capacity(16);
        json.string(text);
        String::from_utf8(json.into_bytes()).unwrap()
    }

    #[test]
    fn numbers_with_fractions_read_as_from_go() {
        let written = |number| {
            let mut json = Json::with_capacity(16);
            json.float(number);
            String::from_utf8(json.into_bytes()).unwrap()
        };
        for (number, expected) in [
            (0.0, "0"),
            (1.5, "1.5"),
            (-0.25, "-0.25"),
            (0.00001, "0.00001"),
            (0.000_000_12, "1.2e-7"),
            (1e20, "100000000000000000000"),
            (-1e21, "-1e+21"),
        ] {
            assert_eq!(written(number), expected);
        }
    }

    #[test]
    fn strings_are_escaped_as_in_go() {
        let cases = [
            ("", r#""""#),
            ("plain", r#""plain""#),
            ("<a href=\"x\">&", r#""\u003ca href=\"x\"\u003e\u0026""#),
            ("a\\b\n\r\t\u{8}\u{1f}\u{7f}", "\"a\\\\b\\n\\r\\t\\u0008\\u001f\u{7f}\""),
            ("\u{2028}|\u{2029}|\u{2030}|…", "\"\\u2028|\\u2029|\u{2030}|…\""),
            ("žluťoučký 🐎", "\"žluťoučký 🐎\""),
        ];
        for (text, expected) in cases {
            assert_eq!(written(text), expected);
        }
    }

    #[test]
    fn bytes_are_base64_and_nothing_is_null() {
        for (bytes, expected) in
            [(&b""[..], "null"), (b"M", "\"TQ==\""), (b"Ma", "\"TWE=\""), (b"Man", "\"TWFu\"")]
        {
            let mut json = Json::with_capacity(0);
            json.bytes(bytes);
            assert_eq!(json.into_bytes(), expected.as_bytes());
        }
    }

    #[test]
    fn indented_json_reads_as_from_the_development_agent() {
        let compact = br#"[{"Key":"a,b{\"}","Value":null,"Tags":[],"Meta":{},"Deep":{"X":[1,2]}}]"#;
        let expected = "[\n    {\n        \"Key\": \"a,b{\\\"}\",\n        \"Value\": null,\n        \"Tags\": [],\n        \
                        \"Meta\": {},\n        \"Deep\": {\n            \"X\": [\n                1,\n                \
                        2\n            ]\n        }\n    }\n]\n";
        assert_eq!(String::from_utf8(indent(compact)).unwrap(), expected);
        assert_eq!(indent(b"true"), b"true\n");
        assert_eq!(indent(b"[]"), b"[]\n");
    }

    proptest! {
        #[test]
        fn every_string_reads_back(text in "\\PC*|(?s).{0,40}") {
            let read: String = serde_json::from_str(&written(&text)).unwrap();
            prop_assert_eq!(read, text);
        }

        #[test]
        fn indentation_changes_no_value(text in "(?s).{0,20}", number in any::<u64>()) {
            let value = serde_json::json!([{ "a": text, "b": [number, {}, []], "c": { "d": null } }, true]);
            let indented = indent(value.to_string().as_bytes());
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&indented).unwrap(), value);
        }

        #[test]
        fn indentation_of_anything_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            indent(&bytes);
        }
    }
}
