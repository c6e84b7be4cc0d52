//! Plays a case, step by step.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use proconsul_jepsen::process::agent::Agent;
use proconsul_jepsen::process::network::Place;
use proconsul_jepsen::process::ports::free_port;
use regex_lite::Regex;
use serde_json::{Map, Value, json};
use tokio::runtime::{Builder, Runtime};

use super::Case;
use super::message::{Answer, Question};
use super::recursor::Recursor;
use crate::wire::Request;

const NODE: &str = "agent-one";
/// The longest wait for an agent.
const WITHIN: Duration = Duration::from_secs(30);
/// The longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// So long it takes to see that there is no answer.
const SILENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(50);

/// What is wrong with each step; `None` where it went as recorded.
pub type Outcome = Vec<Option<String>>;

/// Plays a case; an error if it did not even begin.
pub fn play(case: &Case) -> Result<Outcome, String> {
    let player = Player::begin(case)?;
    thread::sleep(Duration::from_secs_f64(case.settle));
    let steps = case.steps.iter().enumerate();
    Ok(steps.filter_map(|(number, step)| player.step(number, step)).collect())
}

struct Player<'a> {
    case: &'a Case,
    runtime: Runtime,
    agent: Agent,
}

impl Player<'_> {
    fn begin(case: &Case) -> Result<Player<'_>, String> {
        // Another program may take a port between the moment it is chosen and the moment the agent listens.
        for _ in 0..3 {
            match Player::try_begin(case) {
                Err(why) if why.contains("cannot listen") => {}
                outcome => return outcome,
            }
        }
        Player::try_begin(case)
    }

    fn try_begin(case: &Case) -> Result<Player<'_>, String> {
        let said = |error: std::io::Error| error.to_string();
        let runtime = Builder::new_current_thread().enable_all().build().map_err(said)?;
        let recursors =
            case.recursors.iter().map(Recursor::start).collect::<Result<Vec<_>, _>>().map_err(said)?;
        let addresses: Vec<String> = recursors.iter().map(|recursor| recursor.address.to_string()).collect();
        let arguments = ["-dev", "-config-dir", "conf"].map(str::to_owned).to_vec();
        let place = Place::tied().map_err(said)?;
        let mut agent =
            Agent::new(Path::new(env!("CARGO_BIN_EXE_proconsul")), NODE, place, arguments).map_err(said)?;
        let mut config = Map::new();
        config.insert("ports".to_owned(), json!({"grpc": free_port().map_err(said)?, "https": -1}));
        config.insert("log_level".to_owned(), "err".into());
        config.insert("recursors".to_owned(), addresses.into());
        config.extend(case.config.as_object().cloned().unwrap_or_default());
        let file = agent.directory().join("conf").join("case.json");
        std::fs::write(file, Value::Object(config).to_string()).map_err(said)?;
        agent.start().map_err(said)?;
        let mut player = Player { case, runtime, agent };
        player.wait_for_agent()?;
        for request in &case.setup {
            player.http(request)?;
        }
        Ok(player)
    }

    fn wait_for_agent(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let entry = json!(["GET", format!("/v1/catalog/node/{NODE}")]);
            match self.http(&entry) {
                Ok(body) if body.contains("\"lan\"") => return Ok(()),
                _ => {}
            }
            if self.agent.ended().map_err(|error| error.to_string())?.is_some() || begun.elapsed() > WITHIN {
                return Err(format!("the agent does not start: {}", self.agent.log_tail()));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Has a request answered with 200.
    fn http(&self, request: &Value) -> Result<String, String> {
        let text = |at: usize| request[at].as_str().expect("method and path");
        let mut sent = Request::plain(text(0), text(1));
        if !request[2].is_null() {
            sent.body = request[2].to_string().into_bytes();
        }
        if let Some(token) = &self.case.token {
            sent.headers.insert("X-Consul-Token".to_owned(), token.clone());
        }
        let reply = self.runtime.block_on(sent.send(self.agent.http()))?;
        let body = String::from_utf8_lossy(&reply.body).into_owned();
        if reply.status == 200 { Ok(body) } else { Err(format!("{request}: {} {body}", reply.status)) }
    }

    /// Plays a step. Those that only change something count only if they fail.
    fn step(&self, number: usize, step: &Value) -> Option<Option<String>> {
        let told = |got: &str| {
            Some(format!(
                "{}. {}\n    expected {}\n    got      {got}",
                number + 1,
                asked(step),
                step["expect"]
            ))
        };
        let got = match self.attempt(step) {
            Ok(Some(got)) => got,
            Ok(None) => return None,
            Err(why) => return Some(told(&why)),
        };
        Some(if got == step["expect"] { None } else { told(&got.to_string()) })
    }

    fn attempt(&self, step: &Value) -> Result<Option<Value>, String> {
        if !step["http"].is_null() {
            self.http(&step["http"])?;
            thread::sleep(Duration::from_secs_f64(step["settle"].as_f64().unwrap_or(0.0)));
            return Ok(None);
        }
        let is_tcp = step["proto"] == "tcp";
        if let Some(raw) = step["raw"].as_str() {
            let packet = bytes(raw);
            let answered = self.exchange(&packet, is_tcp, SILENCE)?.is_some();
            let counts = step["silence"].as_bool().unwrap_or(false);
            return Ok(counts.then(|| json!({"answered": answered})));
        }
        if let Some(questions) = step["pipeline"].as_array() {
            return self.pipeline(questions).map(Some);
        }
        let question = question(step);
        let within = step["timeout"].as_f64().map_or(ANSWER_WITHIN, Duration::from_secs_f64);
        let ask = || -> Result<Option<Answer>, String> {
            let Some(answer) = self.exchange(&question.packet(), is_tcp, within)? else { return Ok(None) };
            Answer::read(&answer).map(Some).ok_or_else(|| format!("not a message: {answer:?}"))
        };
        if let Some(times) = step["times"].as_u64() {
            let mut first = BTreeSet::new();
            for _ in 0..times {
                let answer = ask()?.ok_or("no answer")?;
                first.insert(answer.answers.first().cloned().unwrap_or_default());
            }
            let varies = first.len() > 1;
            return Ok(Some(json!({"different_first": varies, "seen": first})));
        }
        let begun = Instant::now();
        let patience = Duration::from_secs_f64(step["until"].as_f64().unwrap_or(0.0));
        loop {
            let shown = show(ask()?.as_ref(), step);
            if shown == step["expect"] || begun.elapsed() >= patience {
                return Ok(Some(shown));
            }
            thread::sleep(PAUSE);
        }
    }

    fn exchange(&self, packet: &[u8], is_tcp: bool, within: Duration) -> Result<Option<Vec<u8>>, String> {
        let said = |error: std::io::Error| error.to_string();
        if is_tcp {
            let mut stream = connect(self.agent.dns(), within).map_err(said)?;
            stream.write_all(&framed(packet)).map_err(said)?;
            return Ok(read(&mut stream).ok());
        }
        let socket = UdpSocket::bind((self.agent.address(), 0)).map_err(said)?;
        socket.set_read_timeout(Some(within)).map_err(said)?;
        socket.connect(self.agent.dns()).map_err(said)?;
        socket.send(packet).map_err(said)?;
        let mut answer = vec![0; 65_535];
        Ok(socket.recv(&mut answer).ok().map(|length| answer[..length].to_vec()))
    }

    /// Several questions on one connection, sent before the first is answered.
    fn pipeline(&self, questions: &[Value]) -> Result<Value, String> {
        let said = |error: std::io::Error| error.to_string();
        let mut stream = connect(self.agent.dns(), ANSWER_WITHIN).map_err(said)?;
        for (number, asked) in (1u16..).zip(questions) {
            let step = json!({"q": asked[0], "type": asked[1], "id": number});
            stream.write_all(&framed(&question(&step).packet())).map_err(said)?;
        }
        let mut answers = Vec::new();
        for _ in questions {
            let answer = read(&mut stream).map_err(said)?;
            let answer = Answer::read(&answer).ok_or("not a message")?;
            answers.push(format!("{} {} {}", answer.id, answer.code, answer.answers.len()));
        }
        answers.sort();
        Ok(json!({"answers": answers}))
    }
}

fn connect(to: SocketAddr, within: Duration) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, within)?;
    stream.set_read_timeout(Some(within))?;
    Ok(stream)
}

fn framed(packet: &[u8]) -> Vec<u8> {
    let length = u16::try_from(packet.len()).expect("a message's length");
    [&length.to_be_bytes()[..], packet].concat()
}

fn read(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn asked(step: &Value) -> String {
    ["q", "type", "raw", "http", "pipeline"]
        .iter()
        .filter(|key| !step[**key].is_null())
        .map(|key| step[*key].to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

fn question(step: &Value) -> Question {
    let text = |key: &str, default: &str| step[key].as_str().unwrap_or(default).to_owned();
    let number = |key: &str| step[key].as_u64().map(|number| u16::try_from(number).expect("sixteen bits"));
    Question {
        name: text("q", ""),
        kind: text("type", "A"),
        class: text("class", "IN"),
        id: number("id").unwrap_or(0x1234),
        recursion_desired: step["rd"].as_bool().unwrap_or(true),
        edns: number("edns"),
        subnet: step["ecs"].as_str().map(str::to_owned),
        flags: number("flags").unwrap_or(0),
        copies: number("questions").unwrap_or(1),
    }
}

/// An answer as it is recorded.
fn show(answer: Option<&Answer>, step: &Value) -> Value {
    let Some(answer) = answer else { return json!({"answered": false}) };
    let mut shown = Map::new();
    shown.insert("rcode".to_owned(), answer.code.clone().into());
    let how = step["as"].as_str().unwrap_or("full");
    if how == "rcode" {
        return shown.into();
    }
    shown.insert("flags".to_owned(), answer.flags.join(" ").into());
    let limit = usize::try_from(step["max_size"].as_u64().unwrap_or(512)).expect("a size");
    match how {
        "full" => full(answer, step, &mut shown),
        "counts" => {
            for (name, section) in sections(answer) {
                shown.insert(name.to_owned(), section.len().into());
            }
            let kinds: BTreeSet<_> =
                answer.answers.iter().filter_map(|record| record.split(' ').nth(2)).collect();
            shown.insert("types".to_owned(), json!(kinds));
            shown.insert("fits".to_owned(), (answer.size <= limit).into());
            if let Some(pattern) = step["among"].as_str() {
                let pattern = Regex::new(&format!("^(?:{pattern})$")).expect("a pattern");
                let all = answer.answers.iter().all(|record| pattern.is_match(record));
                shown.insert("among".to_owned(), all.into());
            }
        }
        "limits" => {
            shown.insert("some".to_owned(), (!answer.answers.is_empty()).into());
            shown.insert(
                "all".to_owned(),
                (Some(answer.answers.len() as u64) == step["total"].as_u64()).into(),
            );
            shown.insert("fits".to_owned(), (answer.size <= limit).into());
        }
        "compression" => {
            shown.insert("compressed".to_owned(), answer.compressed.into());
            shown.insert("answer".to_owned(), answer.answers.len().into());
        }
        other => panic!("there is no way to show {other}"),
    }
    if step["check_id"].as_bool().unwrap_or(false) {
        shown.insert("id".to_owned(), answer.id.into());
    }
    shown.into()
}

fn sections(answer: &Answer) -> [(&'static str, &Vec<String>); 3] {
    [("answer", &answer.answers), ("authority", &answer.authorities), ("additional", &answer.additionals)]
}

fn full(answer: &Answer, step: &Value, shown: &mut Map<String, Value>) {
    let name = step["q"].as_str().unwrap_or_default().trim_end_matches('.');
    let echo = format!("{name}. {}", step["type"].as_str().unwrap_or("A"));
    if answer.questions != [echo] {
        shown.insert("question".to_owned(), json!(answer.questions));
    }
    let is_ignored =
        |name: &str| step["ignore"].as_array().is_some_and(|list| list.iter().any(|one| one == name));
    let any_ttl = step["ttl"] == "any";
    for (name, section) in sections(answer).into_iter().filter(|(name, _)| !is_ignored(name)) {
        // Metadata of a product's own is of no interest.
        let records = section.iter().filter(|record| !record.contains("\"consul-"));
        let mut records: Vec<String> = records.map(|record| comparable(record, any_ttl)).collect();
        records.sort();
        if !records.is_empty() {
            shown.insert(name.to_owned(), json!(records));
        }
    }
    if let Some(edns) = &answer.edns {
        shown.insert("edns".to_owned(), edns.clone());
    }
}

/// Owners are compared in lower case.
fn comparable(record: &str, any_ttl: bool) -> String {
    let mut words = record.splitn(3, ' ');
    let mut word = || words.next().expect("owner, ttl, rest");
    let (owner, ttl, rest) = (word(), word(), word());
    format!("{} {} {rest}", owner.to_lowercase(), if any_ttl { "*" } else { ttl })
}
