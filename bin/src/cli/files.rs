//! The options that name configuration files, for the commands that read what an agent would read.

use std::path::PathBuf;

use clap::{ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::config::{ConfigError, Format};

/// `-config-dir`, `-config-file` and `-config-format`.
#[derive(Debug, Default)]
pub(crate) struct ConfigFiles {
    /// Files and directories in the order of the command line: later ones are stronger.
    pub(crate) paths: Vec<PathBuf>,
    format: String,
}

#[derive(Args)]
struct Described {
    /// Directory of configuration files (.json, .hcl), read in the order of their names.
    #[arg(long, value_name = "path", action = ArgAction::Append)]
    config_dir: Vec<PathBuf>,
    /// Configuration file.
    #[arg(long, value_name = "path", action = ArgAction::Append)]
    config_file: Vec<PathBuf>,
    /// Read every file as this language, whatever its name: hcl or json.
    #[arg(long, value_name = "language", default_value = "")]
    config_format: String,
}

impl ConfigFiles {
    /// The language that is meant for all files; `None`: that of each one's name.
    ///
    /// # Errors
    /// It is none of the languages.
    pub(crate) fn format(&self) -> Result<Option<Format>, ConfigError> {
        Format::parse(&self.format)
    }
}

impl FromArgMatches for ConfigFiles {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let described = Described::from_arg_matches(matches)?;
        let at = |name: &str| matches.indices_of(name).into_iter().flatten().collect::<Vec<_>>();
        let dirs = at("config_dir").into_iter().zip(described.config_dir);
        let files = at("config_file").into_iter().zip(described.config_file);
        let mut paths: Vec<_> = dirs.chain(files).collect();
        paths.sort_by_key(|(at, _)| *at);
        let paths = paths.into_iter().map(|(_, path)| path).collect();
        Ok(ConfigFiles { paths, format: described.config_format })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for ConfigFiles {
    fn augment_args(command: Command) -> Command {
        Described::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Described::augment_args_for_update(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{command_of, typed};

    #[test]
    fn files_and_directories_are_read_in_the_order_of_the_command_line() {
        let line = ["command", "--config-file", "a", "--config-dir", "b", "--config-file", "c"];
        let files: ConfigFiles = typed(&command_of::<ConfigFiles>().get_matches_from(line));
        assert_eq!(files.paths, ["a", "b", "c"].map(PathBuf::from));
    }
}
