//! What all commands have in common: how they run, and how they fail.

use std::fmt::Display;

use super::Terminal;

/// A command, by its options.
pub trait Run: clap::Args + clap::FromArgMatches {
    /// Does what the options ask for.
    ///
    /// # Errors
    ///
    /// If it cannot be done.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure>;
}

/// How a command ends that could not do what it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// What to say on standard error, if there is anything to say.
    reason: Option<String>,
    /// The exit status.
    status: u8,
}

impl Failure {
    /// An end with this exit status, without a word.
    #[must_use]
    pub fn silent(status: u8) -> Failure {
        Failure { reason: None, status }
    }

    /// Says why, and gives the exit status.
    pub(super) fn end(self, terminal: &mut Terminal<'_>) -> u8 {
        if let Some(reason) = self.reason {
            terminal.accuse(reason);
        }
        self.status
    }
}

/// A failure with this reason, and exit status 1.
///
/// # Errors
///
/// Always.
pub fn fail<T>(reason: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { reason: Some(reason.into()), status: 1 })
}

/// Refuses arguments where there must be none.
///
/// # Errors
///
/// If there are any.
pub fn no_arguments(arguments: &[String]) -> Result<(), Failure> {
    match arguments.len() {
        0 => Ok(()),
        more => fail(format!("Too many arguments (expected 0, got {more})")),
    }
}

/// Turns errors into failures.
pub trait OrFail<T> {
    /// The value, or a failure with the reason `what: error`.
    ///
    /// # Errors
    ///
    /// If there is no value.
    fn or_fail(self, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> OrFail<T> for Result<T, E> {
    fn or_fail(self, what: impl Display) -> Result<T, Failure> {
        self.or_else(|error| fail(format!("{what}: {error}")))
    }
}
