//! `?filter=`: which rows of an answer a client wants to see.
//!
//! An expression is parsed, then bound to the fields that rows of one kind have, so that what makes no sense is refused
//! before anything is read. It is evaluated over the JSON of a row: over what the client would see. That costs one
//! parse of each row, which only those who filter pay.
//!
//! Source: Consul's documentation, «Filtering».

mod fields;
mod parse;

use regex_lite::Regex;
use serde_json::Value;

pub(crate) use fields::{CHECK, Fields, MEMBER, SERVICE, of_query};

use super::HttpReply;
use fields::Type;
use parse::{Expression, Operator};

/// An expression bound to the fields of rows of one kind.
#[derive(Debug)]
pub(crate) struct Filter {
    root: Node,
}

/// Why an expression was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    /// It does not follow the grammar.
    #[error("1:{column} ({at}): no match found, expected: {expected}", column = at + 1)]
    Syntax {
        /// Where, in bytes.
        at: usize,
        /// What may stand there.
        expected: &'static str,
    },
    /// Rows have no such field.
    #[error("Selector \"{0}\" is not valid")]
    Selector(String),
    /// The field is of another type than the operator needs.
    #[error("Invalid match operator \"{operator}\" for selector \"{selector}\"")]
    Operator {
        /// As Consul names it.
        operator: &'static str,
        /// The field.
        selector: String,
    },
    /// A value is of another type than the field.
    #[error("Failed to coerce value {value:?} for selector \"{selector}\": {why}")]
    Value {
        /// The value as it was written.
        value: String,
        /// The field.
        selector: String,
        /// What is wrong with it.
        why: String,
    },
    /// A pattern that is none.
    #[error("Failed to compile regular expression {pattern:?}: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is nested too deeply.
    #[error("the expression is nested more than {} levels deep, simplify it", parse::DEPTH_MAX)]
    Depth,
}

impl From<FilterError> for HttpReply {
    fn from(error: FilterError) -> HttpReply {
        HttpReply::text(500, format!("Failed to create boolean expression evaluator: {error}"))
    }
}

#[derive(Debug)]
enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Match { path: Vec<Step>, test: Test },
}

/// One step from a row towards a value.
#[derive(Debug)]
enum Step {
    /// Into a field; one that is not shown has the zero value of its type.
    Field(String),
    /// Into the value that a map has for a key.
    Key(String),
    /// Into every element of a list; one that passes the test is enough.
    Each,
}

#[derive(Debug)]
struct Test {
    negated: bool,
    what: What,
}

#[derive(Debug)]
enum What {
    Text(String),
    Number(i64),
    Flag(bool),
    Part(String),
    Element(String),
    Key(String),
    Pattern(Regex),
    Empty,
}

impl Filter {
    /// Reads an expression about rows with these fields.
    ///
    /// # Errors
    /// With Consul's texts; nothing was read yet.
    pub(crate) fn parse(text: &str, fields: Fields) -> Result<Filter, FilterError> {
        Ok(Filter { root: bind(parse::parse(text)?, fields)? })
    }

    /// Whether a row is wanted. It is given as the JSON that the client would see.
    pub(crate) fn keeps(&self, json: &[u8]) -> bool {
        let row = serde_json::from_slice(json).expect("rows are rendered as JSON");
        holds(&self.root, &row)
    }
}

fn holds(node: &Node, row: &Value) -> bool {
    match node {
        Node::Any(nodes) => nodes.iter().any(|node| holds(node, row)),
        Node::All(nodes) => nodes.iter().all(|node| holds(node, row)),
        Node::Not(node) => !holds(node, row),
        Node::Match { path, test } => follow(Some(row), path, test),
    }
}

fn follow(value: Option<&Value>, path: &[Step], test: &Test) -> bool {
    let Some((step, path)) = path.split_first() else { return test.passes(value) };
    match step {
        Step::Field(name) => follow(value.and_then(|value| value.get(name)), path, test),
        Step::Key(name) => match value.and_then(|value| value.get(name)) {
            // What is not there is neither equal to anything, nor does it contain it. That it passes every pattern,
            // and the negation of every pattern, is how Consul answers.
            None => test.negated || matches!(test.what, What::Pattern(_)),
            value => follow(value, path, test),
        },
        Step::Each => {
            let elements = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            elements.iter().any(|element| follow(Some(element), path, test))
        }
    }
}

impl Test {
    fn passes(&self, value: Option<&Value>) -> bool {
        let text = || value.and_then(Value::as_str).unwrap_or("");
        let met = match &self.what {
            What::Text(wanted) => text() == wanted,
            What::Number(wanted) => value.and_then(Value::as_i64).unwrap_or(0) == *wanted,
            What::Flag(wanted) => value.and_then(Value::as_bool).unwrap_or(false) == *wanted,
            What::Part(part) => text().contains(part.as_str()),
            What::Element(wanted) => value
                .and_then(Value::as_array)
                .is_some_and(|list| list.iter().any(|element| element.as_str() == Some(wanted))),
            What::Key(key) => value.and_then(Value::as_object).is_some_and(|map| map.contains_key(key)),
            What::Pattern(pattern) => pattern.is_match(text()),
            What::Empty => match value {
                Some(Value::Array(list)) => list.is_empty(),
                Some(Value::Object(map)) => map.is_empty(),
                _ => true,
            },
        };
        met != self.negated
    }
}

fn bind(expression: Expression, fields: Fields) -> Result<Node, FilterError> {
    let each = |list: Vec<Expression>| -> Result<Vec<Node>, FilterError> {
        list.into_iter().map(|part| bind(part, fields)).collect()
    };
    Ok(match expression {
        Expression::Or(list) => Node::Any(each(list)?),
        Expression::And(list) => Node::All(each(list)?),
        Expression::Not(inner) => Node::Not(Box::new(bind(*inner, fields)?)),
        Expression::Match { selector, operator, negated, value } => {
            let (path, of) = resolve(&selector, fields)?;
            let what = what(&selector, of, operator, negated, value)?;
            Node::Match { path, test: Test { negated, what } }
        }
    })
}

/// Finds the field that a selector means.
fn resolve(selector: &[String], fields: Fields) -> Result<(Vec<Step>, &'static Type), FilterError> {
    let mut path = Vec::new();
    let mut of: Option<&'static Type> = None;
    let mut fields = Some(fields);
    for (at, name) in selector.iter().enumerate() {
        let invalid = || FilterError::Selector(selector[..=at].join("."));
        if let Some(Type::Texts | Type::Text | Type::Number | Type::Flag) = of {
            return Err(invalid());
        }
        if let Some(Type::List(inner)) = of {
            path.push(Step::Each);
            fields = Some(inner);
        }
        if let Some(Type::TextMap) = of {
            path.push(Step::Key(name.clone()));
            of = Some(&Type::Text);
        } else if let Some(Type::Map(inner)) = of {
            path.push(Step::Key(name.clone()));
            of = Some(inner);
        } else {
            let known = fields.and_then(|fields| fields.iter().find(|(field, _)| field == name));
            let (_, found) = known.ok_or_else(invalid)?;
            path.push(Step::Field(name.clone()));
            of = Some(found);
        }
        if let Some(Type::Struct(inner)) = of {
            fields = Some(inner);
        }
    }
    Ok((path, of.expect("a selector has at least one name")))
}

fn what(
    selector: &[String],
    of: &Type,
    operator: Operator,
    negated: bool,
    value: String,
) -> Result<What, FilterError> {
    let selector = || selector.join(".");
    let coerced =
        |why: String, value: &str| FilterError::Value { value: value.to_owned(), selector: selector(), why };
    Ok(match (of, operator) {
        (Type::Text, Operator::Equal) => What::Text(value),
        (Type::Number, Operator::Equal) => {
            What::Number(value.parse().map_err(|_| {
                coerced(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"), &value)
            })?)
        }
        (Type::Flag, Operator::Equal) => What::Flag(super::params::parse_bool(&value).ok_or_else(|| {
            coerced(format!("strconv.ParseBool: parsing {value:?}: invalid syntax"), &value)
        })?),
        (Type::Text, Operator::In) => What::Part(value),
        (Type::Texts, Operator::In) => What::Element(value),
        (Type::TextMap | Type::Map(_), Operator::In) => What::Key(value),
        (Type::Text, Operator::Matches) => match Regex::new(&value) {
            Ok(pattern) => What::Pattern(pattern),
            Err(why) => return Err(FilterError::Pattern { pattern: value, why: why.to_string() }),
        },
        (Type::Texts | Type::TextMap | Type::Map(_) | Type::List(_), Operator::Empty) => What::Empty,
        (_, operator) => {
            return Err(FilterError::Operator { operator: operator.name(negated), selector: selector() });
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::frugal;
    use crate::testing::fuzz::{cases, hostile_text};

    const ROW: &str = r#"{"Node":{"ID":"","Node":"a","Meta":{"os":"linux","rack":"1"}},
        "Service":{"ID":"w","Service":"web","Tags":["v1","blue"],"Port":80,"Meta":null,"Proxy":{},
                   "TaggedAddresses":{"lan":{"Address":"10.0.0.1","Port":8000}},"EnableTagOverride":false},
        "Checks":[{"CheckID":"x","Status":"passing","ServiceTags":[]},{"CheckID":"y","Status":"critical"}]}"#;

    fn keeps(text: &str) -> Result<bool, String> {
        let filter = Filter::parse(text, fields::HEALTH).map_err(|error| error.to_string())?;
        Ok(filter.keeps(ROW.as_bytes()))
    }

    #[test]
    fn expressions_hold_or_not() {
        let cases = [
            ("Node.Node == a", true),
            ("Node.Node==\"a\"", true),
            ("  Node.Node  ==  `a`  ", true),
            ("Node.Node == A", false),
            ("Node.Node != b and Service.Service == web", true),
            ("Node.Node == a or Node.Node == b and Service.Port == 9", true),
            ("(Node.Node == a or Node.Node == b) and Service.Port == 9", false),
            ("( Node.Node == a ) and Service.Port == 80", true),
            ("not Node.Node == a", false),
            ("not not Node.Node == a", true),
            ("not Node.Node == a or Service.Port == 80", true),
            ("not (Node.Node == a and Service.Port == 80)", false),
            ("Node.Meta.os == linux", true),
            ("Node.Meta[\"os\"] == linux", true),
            ("Node.Meta.rack == 1", true),
            ("Node.Meta.none == x", false),
            ("Node.Meta.none != x", true),
            ("Node.Meta.none matches x", true),
            ("Node.Meta.none not matches x", true),
            ("Node.Meta.none contains x", false),
            ("os in Node.Meta", true),
            ("\"os\" not in Node.Meta", false),
            ("Node.Meta contains os", true),
            ("Node.Meta not contains none", true),
            ("Service.Meta is empty", true),
            ("Node.Meta is not empty", true),
            ("Node.Node matches `^[ab]$`", true),
            ("Node.Node not matches `b`", true),
            ("Service.Service contains e", true),
            ("v1 in Service.Tags", true),
            ("V1 in Service.Tags", false),
            ("v in Service.Tags", false),
            ("Service.Port == 80", true),
            ("Service.Port != 80", false),
            ("Service.EnableTagOverride == false", true),
            ("Service.Kind == \"\"", true),
            ("Service.Connect.Native == true", false),
            ("Service.Proxy.Upstreams is empty", true),
            ("Service.Proxy.Upstreams.DestinationName == a", false),
            ("Service.TaggedAddresses.lan.Port == 8000", true),
            ("Service.TaggedAddresses.wan.Port == 8000", false),
            ("Service.TaggedAddresses.wan.Port != 8000", true),
            ("lan in Service.TaggedAddresses", true),
            ("Checks.Status == critical", true),
            ("Checks.Status != passing", true),
            ("Checks.Status == warning", false),
            ("Checks is empty", false),
            ("Checks.CheckID == x and Checks.CheckID == y", true),
        ];
        for (text, expected) in cases {
            assert_eq!(keeps(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_texts_of_consul() {
        let cases = [
            ("node == a", "Selector \"node\" is not valid"),
            ("Node.Frob == a", "Selector \"Node.Frob\" is not valid"),
            ("Node.Node.x.y == a", "Selector \"Node.Node.x\" is not valid"),
            ("Node.Meta.a.b == a", "Selector \"Node.Meta.a.b\" is not valid"),
            ("Checks.Definition.HTTP == a", "Selector \"Checks.Definition\" is not valid"),
            ("Service.CreateIndex == 3", "Selector \"Service.CreateIndex\" is not valid"),
            ("Node.Meta == a", "Invalid match operator \"Equal\" for selector \"Node.Meta\""),
            ("Service != a", "Invalid match operator \"Not Equal\" for selector \"Service\""),
            ("Node.ID is empty", "Invalid match operator \"Is Empty\" for selector \"Node.ID\""),
            (
                "Node.Meta.none is not empty",
                "Invalid match operator \"Is Not Empty\" for selector \"Node.Meta.none\"",
            ),
            ("Service.Port contains 8", "Invalid match operator \"In\" for selector \"Service.Port\""),
            ("a not in Checks", "Invalid match operator \"Not In\" for selector \"Checks\""),
            ("Service.Tags matches a", "Invalid match operator \"Matches\" for selector \"Service.Tags\""),
            (
                "Service.Port == x",
                "Failed to coerce value \"x\" for selector \"Service.Port\": \
                 strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "Service.EnableTagOverride == xx",
                "Failed to coerce value \"xx\" for selector \"Service.EnableTagOverride\": \
                 strconv.ParseBool: parsing \"xx\": invalid syntax",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(keeps(text), Err(expected.to_owned()), "{text}");
        }
        assert!(
            keeps("Node.Node matches \"(\"")
                .unwrap_err()
                .starts_with("Failed to compile regular expression \"(\": ")
        );
    }

    /// An expression about [`ROW`], and whether it holds.
    fn known() -> impl Strategy<Value = (String, bool)> {
        let leaf = prop_oneof![
            (any::<bool>(), any::<bool>()).prop_map(|(same, equal)| {
                let (value, operator) = (if same { "a" } else { "b" }, if equal { "==" } else { "!=" });
                (format!("Node.Node {operator} {value}"), same == equal)
            }),
            (any::<bool>(), any::<bool>()).prop_map(|(there, positive)| {
                let (value, not) = (if there { "blue" } else { "red" }, if positive { "" } else { "not " });
                (format!("\"{value}\" {not}in Service.Tags"), there == positive)
            }),
            (any::<bool>(), "[1-9][0-9]").prop_map(|(equal, port)| {
                (format!("Service.Port {} {port}", if equal { "==" } else { "!=" }), (port == "80") == equal)
            }),
        ];
        leaf.prop_recursive(4, 24, 2, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone())
                    .prop_map(|((a, x), (b, y))| (format!("({a}) and ({b})"), x && y)),
                (inner.clone(), inner.clone())
                    .prop_map(|((a, x), (b, y))| (format!("( {a} ) or ({b})"), x || y)),
                inner.prop_map(|(a, x)| (format!("not ({a})"), !x)),
            ]
        })
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn what_is_written_is_what_is_meant((text, holds) in known()) {
            prop_assert_eq!(keeps(&text), Ok(holds), "{}", text);
        }

        #[test]
        fn a_hostile_expression_is_refused_or_understood(text in hostile_text(known().prop_map(|(text, _)| text), 100)) {
            let _understood: Result<bool, String> = keeps(&text);
        }

        #[test]
        fn a_hostile_expression_costs_little(text in hostile_text(known().prop_map(|(text, _)| text), 100)) {
            frugal(text.len(), || Filter::parse(&text, fields::HEALTH).is_ok());
        }
    }
}
