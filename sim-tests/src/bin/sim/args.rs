//! Words of the command line.

use std::collections::BTreeMap;
use std::str::FromStr;

use proconsul_core::planted::Bug;
use proconsul_sim_tests::plan::Plan;
use proconsul_sim_tests::runner;

/// Options without a value.
const FLAGS: [&str; 2] = ["each", "progress"];

/// Options and what is none.
#[derive(Debug, Default)]
pub struct Args {
    /// In their order.
    pub words: Vec<String>,
    options: BTreeMap<String, String>,
}

impl Args {
    /// Takes words apart. An option is `--name value` or `--name=value`.
    pub fn parse(mut words: impl Iterator<Item = String>, known: &[&str]) -> Result<Args, String> {
        let mut args = Args::default();
        while let Some(word) = words.next() {
            let Some(option) = word.strip_prefix("--") else {
                args.words.push(word);
                continue;
            };
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (option, None),
            };
            if !known.contains(&name) {
                return Err(format!("there is no option --{name} here"));
            }
            let value = match value {
                Some(value) => value,
                None if FLAGS.contains(&name) => String::new(),
                None => words.next().ok_or_else(|| format!("--{name} needs a value"))?,
            };
            args.options.insert(name.to_owned(), value);
        }
        Ok(args)
    }

    /// Whether an option was given.
    pub fn has(&self, name: &str) -> bool {
        self.options.contains_key(name)
    }

    /// The value of an option.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// The value of an option, in its form.
    pub fn value<T: FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        self.text(name)
            .map(|text| text.parse().map_err(|_| format!("--{name} {text} makes no sense")))
            .transpose()
    }

    /// The word at a place as a number, or this.
    pub fn number(&self, at: usize, otherwise: u64) -> Result<u64, String> {
        self.words
            .get(at)
            .map_or(Ok(otherwise), |word| word.parse().map_err(|_| format!("{word} is no number")))
    }

    /// How many runs at a time.
    pub fn jobs(&self) -> Result<usize, String> {
        Ok(self.value("jobs")?.unwrap_or_else(runner::processors))
    }

    /// The defect to plant.
    pub fn bug(&self) -> Result<Option<Bug>, String> {
        let named = |name| runner::bug_by_name(name).ok_or_else(|| format!("there is no defect {name}"));
        self.text("bug").map(named).transpose()
    }

    /// The plan of a seed, as the options change it.
    pub fn plan(&self, seed: u64) -> Result<Plan, String> {
        let plan = match self.value::<u8>("servers")? {
            Some(servers @ (1 | 3 | 5)) => Plan::with_servers(seed, servers),
            Some(_) => return Err("--servers needs 1, 3 or 5".to_owned()),
            None => Plan::from_seed(seed),
        };
        Ok(Plan { bug: self.bug()?.map(|bug| format!("{bug:?}")), ..plan })
    }

    /// The plan that the only word means: a seed, or a file with a plan or with a failure's report.
    pub fn plan_named(&self) -> Result<Plan, String> {
        let [name] = self.words.as_slice() else { return Err("one SEED or FILE is needed".to_owned()) };
        if let Ok(seed) = name.parse() {
            return self.plan(seed);
        }
        let text = std::fs::read_to_string(name).map_err(|error| format!("{name}: {error}"))?;
        Plan::from_json(&text).map_err(|error| format!("{name}: {error}"))
    }
}
