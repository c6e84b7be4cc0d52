//! The grammar of filter expressions.
//!
//! ```text
//! or    = and { "or" and }        and   = not { "and" not }
//! not   = "not" not | "(" or ")" | match
//! match = selector ( "==" | "!=" ) value | selector [ "not" ] ( "contains" | "matches" ) value
//!       | selector "is" [ "not" ] "empty" | value [ "not" ] "in" selector
//! ```
//! Words stand apart from what is around them; only `==`, `!=` and parentheses need no space.

use super::FilterError;

/// Negations and parentheses may be nested so deep.
pub(super) const DEPTH_MAX: usize = 64;

/// An expression as it was written.
#[derive(Debug)]
pub(super) enum Expression {
    Or(Vec<Expression>),
    And(Vec<Expression>),
    Not(Box<Expression>),
    Match { selector: Vec<String>, operator: Operator, negated: bool, value: String },
}

/// What is asked of a field; each has a negation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    /// `in`, and `contains` the other way round.
    In,
    Matches,
    Empty,
}

impl Operator {
    /// As Consul names it in its errors.
    pub(super) fn name(self, negated: bool) -> &'static str {
        match (self, negated) {
            (Operator::Equal, false) => "Equal",
            (Operator::Equal, true) => "Not Equal",
            (Operator::In, false) => "In",
            (Operator::In, true) => "Not In",
            (Operator::Matches, false) => "Matches",
            (Operator::Matches, true) => "Not Matches",
            (Operator::Empty, false) => "Is Empty",
            (Operator::Empty, true) => "Is Not Empty",
        }
    }
}

/// Reads a whole expression.
///
/// # Errors
/// [`FilterError::Syntax`] or [`FilterError::Depth`].
pub(super) fn parse(text: &str) -> Result<Expression, FilterError> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    parser.space();
    let expression = parser.or()?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.expected("\"and\", \"or\" or the end, words set apart by spaces"));
    }
    Ok(expression)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// One side of a match before its operator is known.
enum Operand {
    Selector(Vec<String>, String),
    Value(String),
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn expected(&self, expected: &'static str) -> FilterError {
        FilterError::Syntax { at: self.at, expected }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips white space; whether there was any.
    fn space(&mut self) -> bool {
        let begun = self.at;
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.at > begun
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Takes a word that is followed by white space, and that.
    fn word(&mut self, word: &str) -> bool {
        let begun = self.at;
        if self.eat(word) && self.space() {
            return true;
        }
        self.at = begun;
        false
    }

    fn chain(
        &mut self,
        word: &str,
        part: fn(&mut Parser<'a>) -> Result<Expression, FilterError>,
        join: fn(Vec<Expression>) -> Expression,
    ) -> Result<Expression, FilterError> {
        let first = part(self)?;
        let mut parts = vec![first];
        loop {
            let begun = self.at;
            if self.space() && self.word(word) {
                parts.push(part(self)?);
            } else {
                self.at = begun;
                break;
            }
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { join(parts) })
    }

    fn or(&mut self) -> Result<Expression, FilterError> {
        self.chain("or", Parser::and, Expression::Or)
    }

    fn and(&mut self) -> Result<Expression, FilterError> {
        self.chain("and", Parser::not, Expression::And)
    }

    fn not(&mut self) -> Result<Expression, FilterError> {
        if self.depth == DEPTH_MAX {
            return Err(FilterError::Depth);
        }
        self.depth += 1;
        let expression = if self.word("not") {
            Expression::Not(Box::new(self.not()?))
        } else if self.eat("(") {
            self.space();
            let inner = self.or()?;
            self.space();
            if !self.eat(")") {
                return Err(self.expected("\")\", \"and\" or \"or\""));
            }
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn comparison(&mut self) -> Result<Expression, FilterError> {
        const OPERATORS: &str = "\"==\", \"!=\", \"contains\", \"in\", \"is\", \"matches\" or \"not\"";
        let operand = self.operand("a selector, a value, \"not\" or \"(\"")?;
        let spaced = self.space();
        let is_selector = matches!(operand, Operand::Selector(..));
        let mut negated = false;
        if is_selector && (self.eat("==") || self.eat("!=")) {
            negated = self.text.as_bytes()[self.at - 2] == b'!';
            self.space();
            return self.with_value(operand, Operator::Equal, negated);
        }
        if spaced && is_selector && self.word("is") {
            negated = self.word("not");
            if !self.eat("empty") {
                return Err(self.expected("\"empty\""));
            }
            return self.finish(operand, Operator::Empty, negated, String::new());
        }
        if spaced && self.word("not") {
            negated = true;
        }
        if spaced && self.word("in") {
            let value = match operand {
                Operand::Selector(_, text) | Operand::Value(text) => text,
            };
            let Operand::Selector(selector, _) = self.operand("a selector")? else {
                return Err(self.expected("a selector"));
            };
            return Ok(Expression::Match { selector, operator: Operator::In, negated, value });
        }
        if spaced && is_selector && self.word("contains") {
            return self.with_value(operand, Operator::In, negated);
        }
        if spaced && is_selector && self.word("matches") {
            return self.with_value(operand, Operator::Matches, negated);
        }
        Err(self.expected(if is_selector { OPERATORS } else { "\"in\" or \"not in\"" }))
    }

    fn with_value(
        &mut self,
        operand: Operand,
        operator: Operator,
        negated: bool,
    ) -> Result<Expression, FilterError> {
        let value = match self.operand("a value: a word, a number, or text in quotes")? {
            Operand::Selector(_, text) | Operand::Value(text) => text,
        };
        self.finish(operand, operator, negated, value)
    }

    fn finish(
        &self,
        operand: Operand,
        operator: Operator,
        negated: bool,
        value: String,
    ) -> Result<Expression, FilterError> {
        let Operand::Selector(selector, _) = operand else { return Err(self.expected("a selector")) };
        Ok(Expression::Match { selector, operator, negated, value })
    }

    /// A selector, a number or quoted text. A selector may turn out to be a value without quotes.
    fn operand(&mut self, expected: &'static str) -> Result<Operand, FilterError> {
        match self.peek() {
            Some(b'"' | b'`') => self.quoted().map(Operand::Value),
            Some(b'-' | b'0'..=b'9') => self.number().map(Operand::Value),
            Some(byte) if byte.is_ascii_alphabetic() => self.selector(),
            _ => Err(self.expected(expected)),
        }
    }

    fn selector(&mut self) -> Result<Operand, FilterError> {
        let begun = self.at;
        let mut names = vec![self.name()];
        loop {
            if self.eat(".") {
                if !self.peek().is_some_and(|byte| byte.is_ascii_alphabetic()) {
                    return Err(self.expected("a name that begins with a letter; others go into [\"…\"]"));
                }
                names.push(self.name());
            } else if self.eat("[") {
                self.space();
                if !matches!(self.peek(), Some(b'"' | b'`')) {
                    return Err(self.expected("a name in quotes"));
                }
                names.push(self.quoted()?);
                self.space();
                if !self.eat("]") {
                    return Err(self.expected("\"]\""));
                }
            } else {
                break;
            }
        }
        let text = self.text[begun..self.at].to_owned();
        Ok(Operand::Selector(names, text))
    }

    fn name(&mut self) -> String {
        let begun = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            self.at += 1;
        }
        self.text[begun..self.at].to_owned()
    }

    fn digits(&mut self) -> bool {
        let begun = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at > begun
    }

    fn number(&mut self) -> Result<String, FilterError> {
        let begun = self.at;
        self.eat("-");
        let whole = if self.eat("0") { true } else { self.digits() };
        let fraction = !self.eat(".") || self.digits();
        let ends = matches!(self.peek(), None | Some(b' ' | b'\t' | b'\r' | b'\n' | b')'));
        if !(whole && fraction && ends) {
            return Err(
                self.expected("the digits of a number; other text that begins with one goes into quotes")
            );
        }
        Ok(self.text[begun..self.at].to_owned())
    }

    fn quoted(&mut self) -> Result<String, FilterError> {
        let raw = self.peek() == Some(b'`');
        let quote = if raw { '`' } else { '"' };
        let begun = self.at + 1;
        let Some(length) = self.text[begun..].find(quote) else {
            return Err(self.expected("a closing quote"));
        };
        let inner = &self.text[begun..begun + length];
        let text = if raw { inner.to_owned() } else { self.unescaped(inner)? };
        self.at = begun + length + 1;
        Ok(text)
    }

    /// The escapes that text in double quotes may have. A quote is not among them.
    fn unescaped(&self, inner: &str) -> Result<String, FilterError> {
        let mut text = String::with_capacity(inner.len());
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            text.push(match c {
                '\\' => match chars.next() {
                    Some('\\') => '\\',
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('r') => '\r',
                    _ => {
                        return Err(self.expected(
                            "one of the escapes \\\\, \\n, \\r and \\t; raw text goes into backquotes",
                        ));
                    }
                },
                '\n' => return Err(self.expected("text on one line; other text goes into backquotes")),
                other => other,
            });
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_the_grammar_is_refused_with_its_place() {
        let cases = [
            ("", 0),
            ("Node ==", 7),
            ("Node = a", 5),
            ("Node a", 5),
            ("Node == c-3", 9),
            ("Node == a b", 10),
            ("(Node == a", 10),
            ("Node == a)", 9),
            ("Node == \"a", 8),
            ("Node == a OR Node == b", 10),
            ("Node == a and", 10),
            ("Node == a andNode == b", 10),
            ("(Node==a)and(Node==b)", 9),
            ("not(Node==a)", 3),
            ("\"a\" == Node", 4),
            ("Meta is nil", 8),
            ("Port == 0x50", 9),
            ("Port == -", 9),
            ("a in \"b\"", 8),
            ("Meta.3 == a", 5),
            ("Node == \"a\\q\"", 8),
            ("é", 0),
            ("Node == é", 8),
        ];
        for (text, place) in cases {
            match parse(text) {
                Err(FilterError::Syntax { at, .. }) => assert_eq!(at, place, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}a == b{}", "(".repeat(depth), ")".repeat(depth));
        assert!(parse(&nested(DEPTH_MAX - 1)).is_ok());
        assert_eq!(parse(&nested(DEPTH_MAX)).unwrap_err(), FilterError::Depth);
        assert_eq!(parse(&"not ".repeat(10_000)).unwrap_err(), FilterError::Depth);
        assert!(parse(&format!("a == b{}", " and a == b".repeat(1_000))).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_the_parser_panic(
            text in "((Node|Meta|not|and|or|in|is|empty|matches|==|!=|\\(|\\)|\\.|\\[|\\]|\"|`|\\\\|é| |-|0|1)){0,12}",
        ) {
            let _ = parse(&text);
        }
    }
}
