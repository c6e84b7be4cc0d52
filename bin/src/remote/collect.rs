//! What who asked makes of the signs of the agents: lines to print, and the end.

use std::collections::{BTreeMap, BTreeSet};

use super::Sign;

/// What to do about a new sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Print a line.
    Say(String),
    /// Read a part of the output, and print it by `lines`.
    Output {
        /// Which node.
        node: String,
        /// Which part.
        number: u32,
    },
    /// Read the exit status, and tell it to [`Collector::exited`].
    Exit {
        /// Which node.
        node: String,
    },
}

/// Everything that was heard of a job.
#[derive(Debug, Default)]
pub struct Collector {
    known: BTreeSet<(String, Sign)>,
    acknowledged: usize,
    exits: usize,
    failed: bool,
    verbose: bool,
}

impl Collector {
    /// Nothing was heard yet.
    #[must_use]
    pub fn new(verbose: bool) -> Collector {
        Collector { verbose, ..Collector::default() }
    }

    /// What is new among signs.
    pub fn take(&mut self, signs: BTreeMap<String, Vec<Sign>>) -> Vec<Step> {
        let mut steps = Vec::new();
        for (node, signs) in signs {
            for sign in signs {
                if !self.known.insert((node.clone(), sign.clone())) {
                    continue;
                }
                match sign {
                    Sign::Acknowledged => {
                        self.acknowledged += 1;
                        if self.verbose {
                            steps.push(Step::Say(format!("==> {node}: acknowledged")));
                        }
                    }
                    Sign::Output(number) => steps.push(Step::Output { node: node.clone(), number }),
                    Sign::Exited => steps.push(Step::Exit { node: node.clone() }),
                }
            }
        }
        steps
    }

    /// A part of a node's output, as lines. An empty part is a sign of life.
    #[must_use]
    pub fn lines(&self, node: &str, part: &[u8]) -> Vec<Vec<u8>> {
        if part.is_empty() {
            let beat = format!("==> {node}: heartbeat received").into_bytes();
            return if self.verbose { vec![beat] } else { Vec::new() };
        }
        part.split(|byte| *byte == b'\n')
            .map(|line| [format!("    {node}: ").as_bytes(), line].concat())
            .collect()
    }

    /// The line about a node that has ended.
    pub fn exited(&mut self, node: &str, status: &str) -> String {
        self.exits += 1;
        self.failed |= status.trim() != "0";
        format!("==> {node}: finished with exit code {}", status.trim())
    }

    /// The last line.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{} / {} node(s) completed / acknowledged", self.exits, self.acknowledged)
    }

    /// Whether the command failed on any node.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(list: &[(&str, &[Sign])]) -> BTreeMap<String, Vec<Sign>> {
        list.iter().map(|(node, signs)| ((*node).to_owned(), signs.to_vec())).collect()
    }

    #[test]
    fn each_sign_is_taken_once() {
        let mut collector = Collector::new(true);
        let first = signs(&[("a", &[Sign::Acknowledged, Sign::Output(0)])]);
        let part = Step::Output { node: "a".into(), number: 0 };
        assert_eq!(collector.take(first.clone()), [Step::Say("==> a: acknowledged".into()), part]);
        assert_eq!(collector.take(first), []);
        assert_eq!(collector.take(signs(&[("a", &[Sign::Exited])])), [Step::Exit { node: "a".into() }]);
        assert_eq!(collector.exited("a", "0"), "==> a: finished with exit code 0");
        assert_eq!(collector.summary(), "1 / 1 node(s) completed / acknowledged");
        assert!(!collector.failed());
        collector.exited("b", "3");
        assert!(collector.failed());
    }

    #[test]
    fn output_is_told_by_lines_and_signs_of_life_to_those_who_want_it() {
        let quiet = Collector::new(false);
        let text = |lines: Vec<Vec<u8>>| -> Vec<String> {
            lines.into_iter().map(|line| String::from_utf8(line).expect("text")).collect()
        };
        assert_eq!(text(quiet.lines("a", b"x\ny")), ["    a: x", "    a: y"]);
        assert_eq!(text(quiet.lines("a", b"x\n")), ["    a: x", "    a: "]);
        assert!(quiet.lines("a", b"").is_empty());
        assert_eq!(text(Collector::new(true).lines("a", b"")), ["==> a: heartbeat received"]);
    }
}
