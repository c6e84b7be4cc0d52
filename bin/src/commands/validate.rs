//! `validate`

use clap::{ArgMatches, Args, Command};

use crate::cli::{Terminal, command_of, typed};
use crate::config::{self, Format, Inputs};

#[derive(Args)]
struct Options {
    /// Read every file as this language, whatever its name: hcl or json.
    #[arg(long, value_name = "language", default_value = "")]
    config_format: String,
    /// Print nothing if all is well.
    #[arg(long)]
    quiet: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    paths: Vec<std::path::PathBuf>,
}

/// Flags.
#[must_use]
pub fn command() -> Command {
    command_of::<Options>()
}

/// Reads the files as an agent would.
pub fn run(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: Options = typed(matches);
    if options.paths.is_empty() {
        return terminal.fail("Must specify at least one config file or directory");
    }
    let format = match Format::parse(&options.config_format) {
        Ok(format) => format,
        Err(error) => return terminal.fail(format!("==> {error}")),
    };
    let inputs = Inputs { paths: options.paths, format, ..Inputs::default() };
    match config::load(&inputs) {
        Err(error) => terminal.fail(format!("Config validation failed: {error}")),
        Ok(config) => {
            for warning in &config.warnings {
                terminal.complain(warning);
            }
            if !options.quiet {
                terminal.say("Configuration is valid!");
            }
            0
        }
    }
}
