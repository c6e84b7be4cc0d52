//! `validate`

use clap::Args;

use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::config::{self, Format, Inputs};

#[derive(Args)]
pub(crate) struct Options {
    /// Read every file as this language, whatever its name: hcl or json.
    #[arg(long, value_name = "language", default_value = "")]
    config_format: String,
    /// Print nothing if all is well.
    #[arg(long)]
    quiet: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    paths: Vec<std::path::PathBuf>,
}

impl Run for Options {
    /// Reads the files as an agent would.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        if self.paths.is_empty() {
            return fail("Must specify at least one config file or directory");
        }
        let format = Format::parse(&self.config_format).or_else(|error| fail(format!("==> {error}")))?;
        let inputs = Inputs { paths: self.paths, format, ..Inputs::default() };
        let config = config::load(&inputs).or_fail("Config validation failed")?;
        for warning in &config.warnings {
            terminal.complain(warning);
        }
        if let Some(trouble) = &config.trouble {
            terminal.complain(format!("An agent would not start with this: {trouble}"));
        }
        if !self.quiet {
            terminal.say("Configuration is valid!");
        }
        Ok(())
    }
}
