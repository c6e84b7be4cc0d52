//! What stands in a path and behind its question mark: decoding, and the parameters that all reads share.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::elsewhere::{NO_PATH, may_reach};
use super::{Blocking, Consistency, HttpReply, Read, Shape, Waits};
use crate::node::{About, Published};
use crate::store::query::Query;
use crate::{Text, duration};

/// How long a blocking query waits when it does not say (Consul: `default_query_time`).
pub const WAIT_DEFAULT: Duration = Duration::from_secs(300);
/// How long a blocking query waits at most (Consul: `max_query_time`).
pub const WAIT_MAX: Duration = Duration::from_secs(600);
/// No configuration lets queries wait longer.
pub const WAIT_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Stands for the node of the agent that was asked (`?near=`).
const OWN_NODE: &str = "_agent";

/// Characters that stay as they are in a query string (Go: `url.QueryEscape`).
const QUERY_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The parameters of a query string, in order.
#[derive(Debug, Default)]
pub(super) struct Params<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The datacenter that is meant, unless it is the agent's own.
    elsewhere: Option<Text>,
    /// There is no way to it, and nobody who might know one.
    lost: bool,
}

impl<'a> Params<'a> {
    /// Decodes a query string.
    ///
    /// # Errors
    /// 400 for a percent sign that does not begin an escape, and for what is not UTF-8.
    pub(super) fn parse(query: &'a str) -> Result<Params<'a>, HttpReply> {
        let mut pairs = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((decode_component(key)?, decode_component(value)?));
        }
        Ok(Params { pairs, elsewhere: None, lost: false })
    }

    /// The same, by an agent that sees the cluster like this.
    pub(super) fn seen_by(mut self, published: &Published) -> Params<'a> {
        if self.pairs.is_empty() {
            return self;
        }
        let meant = self.filled("datacenter").or_else(|| self.filled("dc"));
        let elsewhere = meant.filter(|name| *name != published.about.datacenter).map(Text::new);
        self.lost = elsewhere.as_ref().is_some_and(|name| !may_reach(published, name));
        self.elsewhere = elsewhere;
        self
    }

    /// The datacenter that is meant, unless it is the agent's own.
    pub(super) fn elsewhere(&self) -> Option<&Text> {
        self.elsewhere.as_ref()
    }

    /// The first value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// The first value of a parameter, unless it is empty.
    pub(super) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Whether a parameter is there, with or without a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All values of a parameter.
    pub(super) fn all(&self, name: &'a str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// The values of `node-meta`, each `key:value`. A later one replaces an earlier one with its key.
    pub(super) fn node_meta(&self) -> Vec<(Text, Text)> {
        let mut meta = std::collections::BTreeMap::new();
        for pair in self.all("node-meta") {
            let (key, value) = pair.split_once(':').unwrap_or((pair, ""));
            meta.insert(Text::from(key), Text::from(value));
        }
        meta.into_iter().collect()
    }

    /// All parameters but these.
    pub(super) fn without(&self, names: &[&str]) -> Params<'a> {
        let pairs = self.pairs.iter().filter(|(key, _)| !names.contains(&key.as_ref()));
        Params { pairs: pairs.cloned().collect(), elsewhere: self.elsewhere.clone(), lost: self.lost }
    }

    /// All parameters as one canonical query string, sorted by name.
    pub(super) fn canonical(&self) -> String {
        let mut pairs: Vec<_> = self.pairs.iter().collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        let escaped = |text| utf8_percent_encode(text, QUERY_ESCAPED);
        pairs
            .iter()
            .map(|(key, value)| format!("{}={}", escaped(key), escaped(value)))
            .collect::<Vec<_>>()
            .join("&")
    }

    /// Refuses a datacenter that this one has no way to.
    ///
    /// # Errors
    /// 500, as Consul answers.
    pub(super) fn check_datacenter(&self) -> Result<(), HttpReply> {
        if self.lost { Err(HttpReply::text(500, NO_PATH)) } else { Ok(()) }
    }

    /// A read of `query` with everything that the parameters say about it.
    ///
    /// # Errors
    /// 400 with Consul's texts for what cannot be read or does not go together.
    pub(super) fn read(&self, query: Query, about: &About) -> Result<Read, HttpReply> {
        let mut read = Read::new(query);
        read.shape = Shape { pretty: self.pretty(about), ..Shape::default() };
        if self.pairs.is_empty() {
            return Ok(read);
        }
        self.consistency(&mut read)?;
        self.check_datacenter()?;
        read.blocking = self.blocking(about.front.waits)?;
        read.filter = self.get("filter").unwrap_or("").trim().into();
        read.near = match self.get("near") {
            None => Text::default(),
            Some(OWN_NODE) => about.node.clone(),
            Some(node) => node.into(),
        };
        Ok(read)
    }

    /// Whether the answer is to be indented.
    pub(super) fn pretty(&self, about: &About) -> bool {
        about.dev || self.has("pretty")
    }

    fn consistency(&self, read: &mut Read) -> Result<(), HttpReply> {
        let consistent = self.has("consistent");
        let mut stale = self.has("stale");
        if let Some(text) = self.filled("max_stale") {
            let Some(nanos) = duration::parse(text) else {
                return Err(HttpReply::text(400, format!("Invalid max_stale value {text:?}")));
            };
            stale = true;
            read.max_stale = u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos);
        }
        if consistent && stale {
            return Err(HttpReply::text(
                400,
                "Cannot specify ?stale with ?consistent, conflicting semantics.",
            ));
        }
        if consistent && self.has("cached") {
            return Err(HttpReply::text(
                400,
                "Cannot specify ?cached with ?consistent, conflicting semantics.",
            ));
        }
        read.consistency = match (consistent, stale) {
            (true, _) => Consistency::Consistent,
            (false, true) => Consistency::Stale,
            (false, false) => Consistency::Default,
        };
        Ok(())
    }

    /// Whether it waits for a change.
    ///
    /// # Errors
    /// 400 for an index or a time that cannot be read.
    pub(super) fn blocking(&self, waits: Waits) -> Result<Option<Blocking>, HttpReply> {
        let wait = self.wait(waits)?;
        let index = match self.filled("index") {
            None => 0,
            Some(text) => text.parse::<u64>().map_err(|_| HttpReply::text(400, "Invalid index"))?,
        };
        Ok((index > 0).then_some(Blocking { index, wait }))
    }

    /// How long to wait: the default when nothing is said, never more than the limit.
    ///
    /// # Errors
    /// 400 for what is no duration.
    pub(super) fn wait(&self, waits: Waits) -> Result<Duration, HttpReply> {
        let Some(text) = self.filled("wait") else { return Ok(waits.default.min(waits.max)) };
        let nanos = duration::parse(text).ok_or_else(|| HttpReply::text(400, "Invalid wait time"))?;
        Ok(match u64::try_from(nanos) {
            Ok(0) | Err(_) => waits.default.min(waits.max),
            Ok(nanos) => Duration::from_nanos(nanos).min(waits.max),
        })
    }

    /// An unsigned number.
    ///
    /// # Errors
    /// 500, which is Consul's status for it; the text names the parameter.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, HttpReply> {
        self.get(name)
            .map(|text| {
                text.parse::<u64>().map_err(|_| {
                    HttpReply::text(
                        500,
                        format!("Invalid {name}: {text:?} is not an unsigned 64-bit integer"),
                    )
                })
            })
            .transpose()
    }
}

/// Reads what Go's `strconv.ParseBool` takes.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Decodes a path, once.
///
/// # Errors
/// 400 for a percent sign that does not begin an escape, and for what is not UTF-8: names and keys are text here.
pub(super) fn decode_path(path: &str) -> Result<Cow<'_, str>, HttpReply> {
    decode(path)
}

fn decode_component(text: &str) -> Result<Cow<'_, str>, HttpReply> {
    if text.contains('+') {
        // A plus sign is a space in a query string, and only there.
        return decode(&text.replace('+', " ")).map(|text| Cow::Owned(text.into_owned()));
    }
    decode(text)
}

fn decode(text: &str) -> Result<Cow<'_, str>, HttpReply> {
    let bytes = text.as_bytes();
    let mut escaped = false;
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
        escaped = true;
        let digits = bytes.get(at + 1..at + 3).unwrap_or(&bytes[at + 1..]);
        if digits.len() < 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            let digits = String::from_utf8_lossy(digits);
            return Err(HttpReply::text(400, format!("Invalid URL escape \"%{digits}\"")));
        }
    }
    if !escaped {
        return Ok(Cow::Borrowed(text));
    }
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| HttpReply::text(400, format!("Invalid URL: {text:?} is not UTF-8 when it is decoded")))
}

/// Whether a character may stand in a path (Go: `unicode.IsPrint`, in so far as no tables are needed).
pub(super) fn is_printable(c: char) -> bool {
    if c.is_control() || (c.is_whitespace() && c != ' ') {
        return false;
    }
    !matches!(u32::from(c),
        0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x8e2 | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e
        | 0x2060..=0x206f | 0xe000..=0xf8ff | 0xfeff | 0xfff9..=0xfffb | 0xe_0001..=0xe_007f | 0xf_0000..=0x10_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About { datacenter: "dc1".into(), ..About::default() }
    }

    fn read(query: &str) -> Result<Read, HttpReply> {
        Params::parse(query)?.read(Query::Sessions, &about())
    }

    #[test]
    fn bad_parameters_are_refused_with_the_texts_of_consul() {
        let cases = [
            ("index=x", 400, "Invalid index"),
            ("index=-1", 400, "Invalid index"),
            ("index=1&wait=x", 400, "Invalid wait time"),
            ("index=1&wait=5", 400, "Invalid wait time"),
            ("wait=x", 400, "Invalid wait time"),
            ("max_stale=x", 400, "Invalid max_stale value \"x\""),
            ("stale&consistent", 400, "Cannot specify ?stale with ?consistent, conflicting semantics."),
            (
                "stale&consistent&index=x",
                400,
                "Cannot specify ?stale with ?consistent, conflicting semantics.",
            ),
            (
                "consistent&max_stale=1s",
                400,
                "Cannot specify ?stale with ?consistent, conflicting semantics.",
            ),
            ("cached&consistent", 400, "Cannot specify ?cached with ?consistent, conflicting semantics."),
            ("a=%zz", 400, "Invalid URL escape \"%zz\""),
            ("a=%1", 400, "Invalid URL escape \"%1\""),
        ];
        for (query, status, text) in cases {
            assert_eq!(read(query), Err(HttpReply::text(status, text)), "{query}");
        }
    }

    #[test]
    fn good_parameters_are_read() {
        let blocking = |query: &str| read(query).unwrap().blocking;
        assert_eq!(blocking(""), None);
        assert_eq!(blocking("index="), None);
        assert_eq!(blocking("index=0&wait=10s"), None);
        assert_eq!(blocking("wait=10s"), None);
        assert_eq!(blocking("index=7"), Some(Blocking { index: 7, wait: WAIT_DEFAULT }));
        assert_eq!(blocking("index=7&wait="), Some(Blocking { index: 7, wait: WAIT_DEFAULT }));
        assert_eq!(blocking("index=7&wait=-5s"), Some(Blocking { index: 7, wait: WAIT_DEFAULT }));
        assert_eq!(blocking("index=7&wait=1us"), Some(Blocking { index: 7, wait: Duration::from_micros(1) }));
        assert_eq!(blocking("index=7&wait=11m"), Some(Blocking { index: 7, wait: WAIT_MAX }));
        assert_eq!(read("stale=false").unwrap().consistency, Consistency::Stale);
        assert_eq!(read("leader").unwrap().consistency, Consistency::Default);
        assert_eq!(read("consistent&dc=dc1&dc=").unwrap().consistency, Consistency::Consistent);
        assert_eq!(read("max_stale=1m").unwrap().max_stale, Some(Duration::from_secs(60)));
        assert_eq!(read("pretty").unwrap().shape, Shape { pretty: true, ..Shape::default() });
        assert_eq!(read("filter=%20a+%3D%3D%20b%20").unwrap().filter, "a == b");
    }

    #[test]
    fn waits_are_those_of_the_configuration() {
        let waits = Waits { default: Duration::from_secs(5), max: Duration::from_secs(9) };
        let wait = |query: &str| Params::parse(query).unwrap().wait(waits).unwrap().as_secs();
        assert_eq!([wait(""), wait("wait=0s"), wait("wait=7s"), wait("wait=1m")], [5, 5, 7, 9]);
    }

    #[test]
    fn node_meta_is_cut_at_the_first_colon() {
        let params = Params::parse("node-meta=a:b:c&node-meta=d&node-meta=a:e").unwrap();
        assert_eq!(params.node_meta(), [("a".into(), "e".into()), ("d".into(), "".into())]);
    }

    #[test]
    fn printable_is_what_can_be_seen() {
        for c in ['a', ' ', 'ž', '🐎', '\u{fffd}', '日'] {
            assert!(is_printable(c), "{c:?}");
        }
        for c in ['\0', '\n', '\u{7f}', '\u{a0}', '\u{200b}', '\u{2028}', '\u{feff}', '\u{e000}'] {
            assert!(!is_printable(c), "{c:?}");
        }
    }
}
