//! Templates: fields of a query in which parts of the name that was asked for stand in for `${…}`.
//!
//! ```text
//! text  = { character | "$$" | "${" value "}" }        "$$" is a dollar sign
//! value = number | '"' text '"' | variable | function "(" [ value { "," value } ] ")"
//! ```
//!
//! Variables are `name.full`, `name.prefix`, `name.suffix` and `agent.segment`; `match(N)` is what the N-th group of the
//! template's pattern matched, all of the match when N is zero, and nothing when there is no such group.
//!
//! Source: Consul's documentation of the HTTP API, «Prepared Query Templates».

use regex_lite::{Captures, Regex, RegexBuilder};

use super::PreparedQuery;
use crate::Text;

/// Texts in values in texts, at most so deep.
const DEPTH_MAX: usize = 16;
/// What stands in for parts of one query has so many bytes at most.
const FILLED_MAX: usize = 1 << 20;
/// Bytes that a compiled pattern may take.
const PATTERN_MAX: usize = 1 << 18;

/// Finds what is wrong with a template by asking for its own name.
pub(super) fn check(query: &PreparedQuery) -> Result<(), String> {
    if !query.is_template() {
        return Ok(());
    }
    render(query, &query.name).map(drop).map_err(|why| format!("failed compiling template: {why}"))
}

/// A template as it is for a name.
pub(super) fn render(query: &PreparedQuery, name: &str) -> Result<PreparedQuery, String> {
    let pattern = match query.template.regexp.as_str() {
        "" => None,
        text => Some(pattern(text)?),
    };
    let mut filler = Filler {
        name,
        prefix: &query.name,
        captures: pattern.as_ref().and_then(|pattern| pattern.captures(name)),
        room: FILLED_MAX,
    };
    let mut query = query.clone();
    let service = &mut query.service;
    filler.fill(&mut service.service, || "Service.Service".into())?;
    filler.fill_all(&mut service.failover.datacenters, "Service.Failover.Datacenters")?;
    filler.fill_all(&mut service.failover.targets, "Service.Failover.Targets")?;
    filler.fill_all(&mut service.ignore_check_ids, "Service.IgnoreCheckIDs")?;
    filler.fill(&mut service.near, || "Service.Near".into())?;
    filler.fill_all(&mut service.tags, "Service.Tags")?;
    for (map, path) in
        [(&mut service.node_meta, "Service.NodeMeta"), (&mut service.service_meta, "Service.ServiceMeta")]
    {
        for (key, value) in map.iter_mut().flatten() {
            filler.fill(value, || format!("{path}[{key}]"))?;
        }
    }
    if query.template.remove_empty_tags
        && let Some(tags) = &mut service.tags
    {
        tags.retain(|tag| !tag.is_empty());
    }
    Ok(query)
}

fn pattern(text: &str) -> Result<Regex, String> {
    let pattern = RegexBuilder::new(text).size_limit(PATTERN_MAX).build();
    pattern.map_err(|error| format!("Bad Regexp: error parsing regexp: {error}: `{text}`"))
}

/// Puts the parts of one name into texts.
struct Filler<'a> {
    name: &'a str,
    prefix: &'a str,
    captures: Option<Captures<'a>>,
    /// Bytes that may be filled in yet.
    room: usize,
}

impl Filler<'_> {
    fn fill(&mut self, field: &mut Text, path: impl Fn() -> String) -> Result<(), String> {
        if !field.contains('$') {
            return Ok(());
        }
        let parts = Parser::new(field)
            .text(None, 0)
            .ok_or_else(|| format!("Bad format '{field}' in {}: parse error: syntax error", path()))?;
        let filled =
            self.text(&parts).map_err(|why| format!("Bad evaluation for '{field}' in {}: {why}", path()))?;
        *field = filled.into();
        Ok(())
    }

    fn fill_all(&mut self, fields: &mut Option<Vec<Text>>, path: &str) -> Result<(), String> {
        for (at, field) in fields.iter_mut().flatten().enumerate() {
            self.fill(field, || format!("{path}[{at}]"))?;
        }
        Ok(())
    }

    fn text(&mut self, parts: &[Part]) -> Result<String, String> {
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Value(value) => {
                    let value = self.value(value)?.into_text();
                    self.room = self
                        .room
                        .checked_sub(value.len())
                        .ok_or("the query becomes too long for this name")?;
                    text.push_str(&value);
                }
            }
        }
        Ok(text)
    }

    fn value(&mut self, value: &Value) -> Result<Filled, String> {
        let (line, column) = value.at;
        match &value.kind {
            Kind::Number(number) => Ok(Filled::Number(*number)),
            Kind::Text(parts) => self.text(parts).map(Filled::Text),
            Kind::Variable(name) => match name.as_str() {
                "name.full" => Ok(Filled::Text(self.name.into())),
                "name.prefix" => Ok(Filled::Text(self.prefix.into())),
                "name.suffix" => {
                    Ok(Filled::Text(self.name.strip_prefix(self.prefix).unwrap_or(self.name).into()))
                }
                // A datacenter is one segment, which has no name.
                "agent.segment" => Ok(Filled::Text(String::new())),
                _ => Err(format!("{line}:{column}: unknown variable accessed: {name}")),
            },
            Kind::Call(function, arguments) => {
                if function != "match" {
                    return Err(format!("{line}:{column}: unknown function called: {function}"));
                }
                let [argument] = arguments.as_slice() else {
                    let got = arguments.len();
                    return Err(format!("{line}:{column}: match: expected 1 arguments, got {got}"));
                };
                let group = self.value(argument)?.into_index()?;
                let matched = self.captures.as_ref().and_then(|captures| captures.get(group?));
                Ok(Filled::Text(matched.map_or("", |matched| matched.as_str()).into()))
            }
        }
    }
}

/// A value that was worked out.
enum Filled {
    Text(String),
    Number(f64),
}

impl Filled {
    fn into_text(self) -> String {
        match self {
            Filled::Text(text) => text,
            Filled::Number(number) => number.to_string(),
        }
    }

    /// The number of a group; `None` for what cannot be one.
    fn into_index(self) -> Result<Option<usize>, String> {
        let number = match self {
            Filled::Number(number) => number as i64,
            Filled::Text(text) => text.parse().map_err(|_| {
                format!("__builtin_StringToInt: strconv.ParseInt: parsing {text:?}: invalid syntax")
            })?,
        };
        Ok(usize::try_from(number).ok())
    }
}

/// A piece of a text.
enum Part {
    Text(String),
    Value(Value),
}

/// What stands between the braces.
struct Value {
    /// Line and column of its first character.
    at: (usize, usize),
    kind: Kind,
}

enum Kind {
    Number(f64),
    Text(Vec<Part>),
    Variable(String),
    Call(String, Vec<Value>),
}

/// Reads a text; `None` stands for a syntax error.
struct Parser<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    at: (usize, usize),
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Parser<'a> {
        Parser { rest: text.chars().peekable(), at: (1, 1) }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        self.at = if c == '\n' { (self.at.0 + 1, 1) } else { (self.at.0, self.at.1 + 1) };
        Some(c)
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.next();
        }
    }

    /// Takes the next character if it is this one, behind any space.
    fn take(&mut self, wanted: char) -> bool {
        self.skip_spaces();
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    /// A text up to its end: a character that closes it, or the end of everything.
    fn text(&mut self, end: Option<char>, depth: usize) -> Option<Vec<Part>> {
        if depth > DEPTH_MAX {
            return None;
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        loop {
            match (self.next(), end) {
                (None, None) => break,
                (None, Some(_)) => return None,
                (Some(c), Some(end)) if c == end => break,
                (Some('\\'), Some(_)) => literal.push(match self.next()? {
                    'n' => '\n',
                    c @ ('"' | '\\') => c,
                    _ => return None,
                }),
                (Some('$'), _) if self.peek() == Some('$') => {
                    self.next();
                    literal.push('$');
                }
                (Some('$'), _) if self.peek() == Some('{') => {
                    self.next();
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Value(self.value(depth + 1)?));
                    if !self.take('}') {
                        return None;
                    }
                }
                (Some(c), _) => literal.push(c),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Some(parts)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.skip_spaces();
        let at = self.at;
        let kind = match self.peek()? {
            '"' => {
                self.next();
                Kind::Text(self.text(Some('"'), depth + 1)?)
            }
            c if c == '-' || c.is_ascii_digit() => Kind::Number(self.number()?),
            c if is_in_name(c) => {
                let name = self.word(is_in_name);
                if self.take('(') {
                    Kind::Call(name, self.arguments(depth + 1)?)
                } else {
                    Kind::Variable(name)
                }
            }
            _ => return None,
        };
        Some(Value { at, kind })
    }

    fn number(&mut self) -> Option<f64> {
        let minus = self.take('-');
        let word = self.word(|c| c.is_ascii_digit() || c == '.');
        let number: f64 = word.parse().ok()?;
        Some(if minus { -number } else { number })
    }

    fn word(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut word = String::new();
        while let Some(c) = self.peek().filter(|c| wanted(*c)) {
            word.push(c);
            self.next();
        }
        word
    }

    /// The arguments of a call up to the bracket that closes it.
    fn arguments(&mut self, depth: usize) -> Option<Vec<Value>> {
        let mut arguments = Vec::new();
        if self.take(')') {
            return Some(arguments);
        }
        loop {
            arguments.push(self.value(depth)?);
            if self.take(')') {
                return Some(arguments);
            }
            if !self.take(',') {
                return None;
            }
        }
    }
}

fn is_in_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::prepared::{ServiceQuery, Template};

    fn template(prefix: &str, regexp: &str, service: &str) -> PreparedQuery {
        PreparedQuery {
            name: prefix.into(),
            service: ServiceQuery { service: service.into(), ..ServiceQuery::default() },
            template: Template { by_prefix: true, regexp: regexp.into(), remove_empty_tags: false },
            ..PreparedQuery::default()
        }
    }

    fn filled(text: &str) -> Result<String, String> {
        let query = template("geo-", "^geo-(.*)-(.*)$", text);
        render(&query, "geo-web-dc2").map(|query| query.service.service.to_string())
    }

    #[test]
    fn parts_of_the_name_are_filled_in() {
        let cases = [
            ("plain", "plain"),
            ("${name.full}|${name.prefix}|${name.suffix}", "geo-web-dc2|geo-|web-dc2"),
            ("${match(0)}|${match(1)}|${ match( 2 ) }|${match(3)}|${match(-1)}", "geo-web-dc2|web|dc2||"),
            ("${match(\"1\")}${match(1.9)}${match(\"${\"2\"}\")}", "webwebdc2"),
            ("[${agent.segment}]", "[]"),
            ("${\"a\\n\\\"${name.suffix}\\\\\"}${7}${-3}${1.5}", "a\n\"web-dc2\\7-31.5"),
            ("A$${name.full}B$$${match(1)}C$${D$E", "A${name.full}B$webC${D$E"),
            ("a$$b|$|$x|\\n|$$$|$$$$|}", "a$b|$|$x|\\n|$$|$$|}"),
        ];
        for (text, expected) in cases {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused_with_its_place() {
        let bad = "parse error: syntax error";
        let cases = [
            ("${foo}", "Bad evaluation", "1:3: unknown variable accessed: foo"),
            ("é${name.full}${name}", "Bad evaluation", "1:16: unknown variable accessed: name"),
            ("\n${ a-b.c }", "Bad evaluation", "2:4: unknown variable accessed: a-b.c"),
            ("${match(x)}", "Bad evaluation", "1:9: unknown variable accessed: x"),
            ("${match()}", "Bad evaluation", "1:3: match: expected 1 arguments, got 0"),
            ("${match(1, 2)}", "Bad evaluation", "1:3: match: expected 1 arguments, got 2"),
            ("${upper(name.full)}", "Bad evaluation", "1:3: unknown function called: upper"),
            (
                "${match(name.full)}",
                "Bad evaluation",
                "__builtin_StringToInt: strconv.ParseInt: parsing \"geo-web-dc2\": invalid syntax",
            ),
            ("${", "Bad format", bad),
            ("${}", "Bad format", bad),
            ("${name.full", "Bad format", bad),
            ("${match(1}", "Bad format", bad),
            ("${match 1}", "Bad format", bad),
            ("${a b}", "Bad format", bad),
            ("${1a}", "Bad format", bad),
            ("${1+1}", "Bad format", bad),
            ("${\"a}", "Bad format", bad),
        ];
        for (text, what, why) in cases {
            let joint = if what == "Bad format" { "" } else { " for" };
            let expected = format!("{what}{joint} '{text}' in Service.Service: {why}");
            assert_eq!(filled(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn every_field_of_the_service_is_filled_in_and_empty_tags_can_be_left_out() {
        let one = |text: &str| Some(vec![Text::from(text)]);
        let pair = |value: &str| Some([(Text::from("a"), Text::from(value))].into());
        let mut query = template("x", "", "${name.suffix}");
        query.service.failover.datacenters = one("${name.full}");
        query.service.ignore_check_ids = one("${name.prefix}");
        query.service.near = "${name.suffix}".into();
        query.service.tags = Some(vec!["${match(1)}".into(), "!${name.full}".into(), "".into()]);
        query.service.node_meta = pair("${name.full}");
        query.service.service_meta = pair("${name.suffix}");
        query.template.remove_empty_tags = true;
        let rendered = render(&query, "xy").unwrap().service;
        assert_eq!(rendered.failover.datacenters, one("xy"));
        assert_eq!(rendered.ignore_check_ids, one("x"));
        assert_eq!(rendered.near, "y");
        assert_eq!(rendered.tags, one("!xy"));
        assert_eq!((rendered.node_meta, rendered.service_meta), (pair("xy"), pair("y")));
        query.service.service_meta = pair("${x}");
        let why = "failed compiling template: Bad evaluation for '${x}' in Service.ServiceMeta[a]: 1:3: unknown \
                   variable accessed: x";
        assert_eq!(check(&query), Err(why.to_owned()));
        query.template.by_prefix = false;
        assert_eq!(check(&query), Ok(()));
    }

    #[test]
    fn patterns_that_make_no_sense_or_too_much_work_are_refused() {
        for pattern in ["(", "(?=a)", "((a{1000}){1000}){1000}"] {
            let why = check(&template("x", pattern, "y")).unwrap_err();
            assert!(
                why.starts_with("failed compiling template: Bad Regexp: error parsing regexp: "),
                "{why}"
            );
        }
        let nested = "${\"".repeat(10_000) + "\"}";
        assert!(filled(&nested).unwrap_err().contains("parse error"));
        let long = template("x", "", &"${name.full}".repeat(2_000));
        assert!(render(&long, &"x".repeat(1_000)).unwrap_err().contains("too long"));
    }
}
