//! Texts with placeholders in them.

use regex_lite::Regex;

use super::Known;
use crate::paths::{name_at_start, plain};

const UUID: &str = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
const TIME: &str = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)";

/// A part of a recorded text.
enum Part<'a> {
    Literal(&'a str),
    /// `${name}`.
    Variable(&'a str),
    /// `<uuid1>`, `<hash1>`: a value that is the same everywhere.
    Same(&'a str),
    /// `<time>`, `<version>`, `<any>`.
    Pattern(&'static str),
}

/// The placeholder at the beginning of a text, and how long it is there.
fn placeholder(text: &str) -> Option<(Part<'_>, usize)> {
    if let Some(name) = name_at_start(text) {
        return Some((Part::Variable(name), name.len() + 3));
    }
    let end = text.strip_prefix('<')?.find('>')? + 2;
    let (token, inner) = (&text[..end], &text[1..end - 1]);
    let numbered = |kind: &str| inner.strip_prefix(kind).is_some_and(super::digits);
    let part = match inner {
        "time" => Part::Pattern(TIME),
        "any" => Part::Pattern(".*"),
        "version" => Part::Pattern(r"\S+"),
        _ if numbered("uuid") || numbered("hash") => Part::Same(token),
        _ => return None,
    };
    Some((part, end))
}

fn parts(text: &str) -> Vec<Part<'_>> {
    let (mut parts, mut literal, mut at) = (Vec::new(), 0, 0);
    while let Some(next) = text[at..].find(['$', '<']) {
        at += next;
        match placeholder(&text[at..]) {
            Some((part, length)) => {
                parts.push(Part::Literal(&text[literal..at]));
                parts.push(part);
                at += length;
                literal = at;
            }
            None => at += 1,
        }
    }
    parts.push(Part::Literal(&text[literal..]));
    parts
}

/// Whether there is a placeholder in a recorded text.
pub fn has_placeholder(text: &str) -> bool {
    parts(text).len() > 1
}

impl Known {
    /// What is wrong with a text, if anything. Placeholders that were met for the first time are bound if it fits.
    pub fn text_differs(&mut self, want: &str, got: &str) -> Option<String> {
        let (mut pattern, mut unbound) = (String::from(r"(?s)\A"), Vec::new());
        for part in parts(want) {
            match part {
                Part::Literal(text) => pattern += &regex_lite::escape(text),
                Part::Variable(name) => {
                    let value = self.variables.get(name).map_or_else(|| format!("${{{name}}}"), plain);
                    pattern += &regex_lite::escape(&value);
                }
                Part::Pattern(text) => pattern += text,
                Part::Same(token) => match self.bound.get(token) {
                    Some(value) => pattern += &regex_lite::escape(value),
                    None => {
                        unbound.push(token);
                        let value = if token.starts_with("<uuid") { UUID } else { ".+" };
                        pattern += &format!("({value})");
                    }
                },
            }
        }
        let pattern = Regex::new(&(pattern + r"\z")).expect("escaped texts and fixed patterns");
        let Some(found) = pattern.captures(got) else {
            return Some(format!("expected {want:?}, got {got:?}"));
        };
        for (token, value) in unbound.iter().zip(found.iter().skip(1)) {
            let value = value.expect("every group takes part").as_str();
            let other = self.bound.iter().find(|(other, bound)| *bound == value && other[..5] == token[..5]);
            let other = other.map_or((*token).to_owned(), |(other, _)| other.clone());
            let bound = self.bound.entry((*token).to_owned()).or_insert_with(|| value.to_owned());
            if bound != value || other != *token {
                return Some(format!("expected {want:?} with {token} not the same as {other}, got {got:?}"));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "11111111-1111-1111-1111-111111111111";
    const B: &str = "22222222-2222-2222-2222-222222222222";

    #[test]
    fn a_placeholder_stands_for_one_value_and_another_one_for_another() {
        let mut known = Known::default();
        assert_eq!(known.text_differs("id <uuid1>.", &format!("id {A}.")), None);
        assert_eq!(known.text_differs("<uuid1>", A), None);
        assert!(known.text_differs("<uuid1>", B).is_some());
        assert!(known.text_differs("<uuid2>", A).is_some(), "the same value under another name");
        let mut known = Known::default();
        assert!(known.text_differs("<uuid1> <uuid1>", &format!("{A} {B}")).is_some());
    }

    #[test]
    fn texts_are_literal_but_for_placeholders() {
        let mut known = Known::default();
        assert_eq!(known.text_differs("a.<any>$", "a.\nb$"), None);
        assert!(known.text_differs("a.<any>$", "ab$").is_some());
        assert_eq!(known.text_differs("<b> ${", "<b> ${"), None);
        assert_eq!(known.text_differs("at <time>", "at 2020-01-02T03:04:05.6Z"), None);
        assert!(known.text_differs("at <time>", "at noon").is_some());
    }
}
