//! Templates in addresses: `{{ GetPrivateIP }}`.
//!
//! Source: the documentation of go-sockaddr's templates, <https://pkg.go.dev/github.com/hashicorp/go-sockaddr/template>.
//! A template is a pipeline of functions over the addresses of this machine's interfaces. Statements (`with`, `range`,
//! `if`) are not known.

mod function;
mod interface;

use serde_json::{Map, Value};

pub(crate) use self::interface::{Interface, interfaces};

/// Settings that hold addresses.
const PATHS: &[&str] = &[
    "addresses.dns",
    "addresses.grpc",
    "addresses.grpc_tls",
    "addresses.http",
    "addresses.https",
    "advertise_addr",
    "advertise_addr_ipv4",
    "advertise_addr_ipv6",
    "advertise_addr_wan",
    "advertise_addr_wan_ipv4",
    "advertise_addr_wan_ipv6",
    "bind_addr",
    "client_addr",
    "recursors",
    "retry_join",
    "retry_join_wan",
    "serf_lan",
    "serf_wan",
];

/// Puts addresses in the place of templates. Errors begin with the setting.
pub(super) fn expand_all(settings: &mut Map<String, Value>, errors: &mut Vec<String>) {
    let mut all = None;
    for path in PATHS {
        let mut value = Some(&mut *settings);
        let mut names = path.split('.');
        let last = names.next_back().expect("a path has a last part");
        for name in names {
            value = value.and_then(|map| map.get_mut(name)?.as_object_mut());
        }
        let Some(value) = value.and_then(|map| map.get_mut(last)) else { continue };
        let texts: Vec<&mut Value> = match value {
            Value::Array(list) => list.iter_mut().collect(),
            one => vec![one],
        };
        for value in texts {
            let Some(text) = value.as_str().filter(|text| text.contains("{{")) else { continue };
            match expand(text, all.get_or_insert_with(interfaces)) {
                Ok(expanded) => *value = Value::from(expanded),
                Err(why) => errors.push(format!("{path}: error parsing {text:?}: {why}")),
            }
        }
    }
}

/// The text with each template replaced by its result.
pub(crate) fn expand(text: &str, all: &[Interface]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let (inside, after) = close(after).ok_or("unclosed action")?;
        // A dash inside the braces takes the blanks outside.
        let inside = inside.trim();
        let tokens = tokens(inside.trim_start_matches("- ").trim_end_matches(" -"))?;
        let mut tokens = tokens.as_slice();
        let value = pipeline(&mut tokens, all)?;
        if !tokens.is_empty() {
            return Err("unexpected \")\"".to_owned());
        }
        out.push_str(&value.shown());
        rest = after;
    }
    out.push_str(rest);
    Ok(out.trim().to_owned())
}

/// Splits at the closing braces, which do not count within quotes.
fn close(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text[at..].starts_with("}}") => return Some((&text[..at], &text[at + 2..])),
            None => {}
        }
    }
    None
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Pipe,
    Open,
    Close,
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '|' => (Token::Pipe, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '`' => {
                let end = rest[1..].find('`').ok_or("unterminated raw quoted string")?;
                (Token::Text(rest[1..=end].to_owned()), end + 2)
            }
            '"' => {
                let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<String>();
                let text = stream.next().and_then(Result::ok).ok_or("unterminated quoted string")?;
                (Token::Text(text), stream.byte_offset())
            }
            _ => {
                let end =
                    rest.find(|c: char| c.is_whitespace() || "|()\"`".contains(c)).unwrap_or(rest.len());
                (Token::Word(rest[..end].to_owned()), end)
            }
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

/// What a pipeline hands on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Interfaces(Vec<Interface>),
    Text(String),
}

impl Piece {
    fn shown(&self) -> String {
        match self {
            Piece::Text(text) => text.clone(),
            Piece::Interfaces(list) => {
                let list: Vec<String> = list.iter().map(|one| one.address.to_string()).collect();
                list.join(" ")
            }
        }
    }
}

/// Functions one after the other, each with the result of the one before as its last argument.
fn pipeline(tokens: &mut &[Token], all: &[Interface]) -> Result<Piece, String> {
    let mut piece: Option<Piece> = None;
    loop {
        let Some((first, rest)) = tokens.split_first() else {
            return Err("missing value for command".to_owned());
        };
        *tokens = rest;
        let name = match first {
            Token::Word(name) => Some(name.clone()),
            _ => None,
        };
        let mut arguments = Vec::new();
        match first {
            Token::Word(_) => {}
            Token::Text(text) => arguments.push(Piece::Text(text.clone())),
            Token::Open => arguments.push(inner(tokens, all)?),
            Token::Pipe | Token::Close => return Err("missing value for command".to_owned()),
        }
        while let Some((token, rest)) = tokens.split_first() {
            let argument = match token {
                Token::Pipe | Token::Close => break,
                Token::Text(text) => Piece::Text(text.clone()),
                Token::Word(word) if word.parse::<i64>().is_ok() => Piece::Text(word.clone()),
                // A function without arguments of its own.
                Token::Word(word) => function::call(word, Vec::new(), all)?,
                Token::Open => {
                    *tokens = rest;
                    arguments.push(inner(tokens, all)?);
                    continue;
                }
            };
            arguments.push(argument);
            *tokens = rest;
        }
        arguments.extend(piece.take());
        let result = match name {
            Some(name) => function::call(&name, arguments, all)?,
            None if arguments.len() == 1 => arguments.remove(0),
            None => return Err("only functions take arguments".to_owned()),
        };
        match tokens.split_first() {
            Some((Token::Pipe, rest)) => {
                *tokens = rest;
                piece = Some(result);
            }
            _ => return Ok(result),
        }
    }
}

/// A pipeline in brackets, of which the first is read already.
fn inner(tokens: &mut &[Token], all: &[Interface]) -> Result<Piece, String> {
    let piece = pipeline(tokens, all)?;
    match tokens.split_first() {
        Some((Token::Close, rest)) => {
            *tokens = rest;
            Ok(piece)
        }
        _ => Err("unclosed left paren".to_owned()),
    }
}

#[cfg(test)]
mod tests;
