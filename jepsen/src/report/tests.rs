use std::time::Duration;

use super::*;
use crate::history::testing::at;
use crate::history::{History, Outcome};
use crate::process::trial::Event;
use crate::process::trial::plan::Lane;
use crate::verdict::{Verdict, Violation};

fn run() -> Run {
    let ms = 1_000_000;
    let history: History = vec![
        at(1, "k", 0, 40 * ms).write("a<b>&\"c\""),
        at(2, "k", 50 * ms, 52 * ms).read("a<b>&\"c\"", 7),
        at(3, "k", 60 * ms, 5_000 * ms).write_unknown("lost"),
        at(4, "k", 70 * ms, 71 * ms).is(Op::Delete, Outcome::Failed),
    ]
    .into();
    let event = |what: &str, bad| Event {
        lane: if bad { Lane::Processes } else { Lane::Links },
        what: what.to_owned(),
        from: 10 * ms,
        until: (!bad).then_some(900 * ms),
        bad,
    };
    Run {
        history,
        events: vec![event("cut between {a} & {b}", false), event("\u{1b}ended <by> itself", true)],
        mended: 4_000 * ms,
        recovery: Ok(Duration::from_secs(1)),
        last_reads: Ok(()),
        converged_from: 4_500 * ms,
        elections: Vec::new(),
        agents: vec!["server-1".to_owned()],
        logs: "<log> & \u{7}more".to_owned(),
    }
}

fn findings(run: &Run) -> Vec<Finding> {
    let verdict =
        Violation::verdict("linearizability", "k", "a <lost> write".into(), run.history.operations());
    let Verdict::Violated(violation) = verdict else { panic!("{verdict}") };
    let finding =
        |name, judgement, violation| Finding { name, judgement, says: "<says>".to_owned(), violation };
    vec![
        finding("index order", Judgement::Passed, None),
        finding("linearizability", Judgement::Violated, Some(*violation)),
    ]
}

/// Fails unless every element is closed in order and every text is escaped.
fn assert_well_formed(page: &str) {
    let mut open = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>\n").expect("a document type");
    while let Some((text, after)) = rest.split_once('<') {
        assert!(!text.contains('>'), "a stray > after {open:?}: {text:?}");
        for (at, _) in text.match_indices('&') {
            let name = text[at + 1..].split_once(';').map(|(name, _)| name);
            assert!(matches!(name, Some("amp" | "lt" | "gt" | "quot")), "a stray & in {text:?}");
        }
        let (tag, after) = after.split_once('>').expect("a tag ends");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().expect("a tag has a name").to_owned());
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes of {tag:?}");
        rest = after;
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    assert_eq!(rest.trim(), "");
    assert!(!page.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
}

#[test]
fn a_page_is_well_formed_and_says_what_is_broken() {
    let run = run();
    let about = About { title: "a & b".to_owned(), facts: vec![("seed".to_owned(), "<7>".to_owned())] };
    let page = page(&about, &run, &findings(&run));
    assert_well_formed(&page);
    for part in
        ["BROKEN", "First anomaly", "a &lt;lost&gt; write", "&lt;log&gt; &amp;", "Calm begins at 4.0 s"]
    {
        assert!(page.contains(part), "{part} is missing");
    }
}

#[test]
fn a_page_needs_nothing_besides_itself() {
    let run = run();
    let page = page(&About { title: "t".to_owned(), facts: vec![] }, &run, &findings(&run));
    for foreign in ["http:", "https:", "<script", "url(", "@import", "src="] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn a_run_without_operations_has_a_page() {
    let empty = Run { history: History::new(), events: Vec::new(), ..run() };
    let page = page(&About { title: "t".to_owned(), facts: vec![] }, &empty, &[]);
    assert_well_formed(&page);
    assert!(page.contains("Every promise was kept."));
}
