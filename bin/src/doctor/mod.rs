//! What is wrong with an agent, its configuration or its surroundings, and what to do about it.
//!
//! Each look is one file; it gets what is configured or what a running agent tells, and adds findings. Looks change
//! nothing: no file is written, no packet is sent but to open a connection.

pub mod certificates;
pub mod clock;
pub mod cluster;
pub mod holders;
pub mod network;
pub mod ports;
pub mod storage;

use serde_json::{Value, json};

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// All is well.
    Ok,
    /// It works, and perhaps not for long.
    Warning,
    /// It does not work.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `ports`, `quorum`.
    pub look: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where nothing needs to be done.
    pub remedy: String,
}

/// All findings, in the order of the looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Something is as it should be.
    pub fn ok(&mut self, look: &'static str, found: impl Into<String>) {
        self.add(look, Level::Ok, found.into(), String::new());
    }

    /// Something should be looked after.
    pub fn warn(&mut self, look: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(look, Level::Warning, found.into(), remedy.into());
    }

    /// Something does not work.
    pub fn error(&mut self, look: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(look, Level::Error, found.into(), remedy.into());
    }

    fn add(&mut self, look: &'static str, level: Level, found: String, remedy: String) {
        self.findings.push(Finding { look, level, found, remedy });
    }

    /// The worst of all findings.
    #[must_use]
    pub fn worst(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }

    /// For people: a line each, and below it what to do.
    #[must_use]
    pub fn text(&self) -> String {
        let width = self.findings.iter().map(|finding| finding.look.len()).max().unwrap_or(0);
        let mut text = String::new();
        for finding in &self.findings {
            let Finding { look, level, found, remedy } = finding;
            text.push_str(&format!("{:<8} {look:<width$}  {found}\n", level.name()));
            if !remedy.is_empty() {
                text.push_str(&format!("{:<8} {:<width$}  -> {remedy}\n", "", ""));
            }
        }
        let count = |level| self.findings.iter().filter(|finding| finding.level == level).count();
        text.push_str(&match (count(Level::Error), count(Level::Warning)) {
            (0, 0) => "Nothing is wrong.\n".to_owned(),
            (errors, warnings) => format!("{errors} errors, {warnings} warnings.\n"),
        });
        text
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let finding = |finding: &Finding| {
            json!({
                "Look": finding.look,
                "Level": finding.level.name(),
                "Found": finding.found,
                "Remedy": finding.remedy,
            })
        };
        let findings: Vec<Value> = self.findings.iter().map(finding).collect();
        json!({"OK": self.worst() != Level::Error, "Findings": findings})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_as_bad_as_its_worst_finding() {
        let mut report = Report::default();
        assert_eq!(report.worst(), Level::Ok);
        report.ok("ports", "all free");
        report.warn("clock", "3 s late", "run an NTP client");
        assert_eq!(report.worst(), Level::Warning);
        assert_eq!(report.json()["OK"], true);
        report.error("quorum", "no leader", "start a server");
        assert_eq!(report.worst(), Level::Error);
        assert_eq!(report.json()["OK"], false);
        assert_eq!(report.json()["Findings"][2]["Remedy"], "start a server");
        assert_eq!(
            report.text(),
            "ok       ports   all free\n\
             warning  clock   3 s late\n                 -> run an NTP client\n\
             error    quorum  no leader\n                 -> start a server\n\
             1 errors, 1 warnings.\n"
        );
    }
}
