//! Flags in the style of Go's `flag` package, on top of clap.
//!
//! `-name`, `--name`, `-name=value` and `-name value` are the same; a boolean takes its value only behind `=`; parsing
//! stops at the first argument that is no flag, or at `--`; of a repeated scalar the last value counts. Source:
//! <https://pkg.go.dev/flag#hdr-Command_line_flag_syntax>. Arguments are rewritten into the one form that clap reads,
//! by looking each name up in the clap command; all else (types, lists, help) stays clap's.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, ArgMatches, Command};

/// Parses the arguments that follow a command's name. An error is the line to print before the usage.
pub fn parse(command: Command, args: &[OsString]) -> Result<ArgMatches, String> {
    let command = command
        .args_override_self(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .no_binary_name(true);
    let rewritten = rewrite(&command, args)?;
    command.try_get_matches_from(rewritten).map_err(|error| explain(&error))
}

/// What a flag expects.
#[derive(PartialEq, Eq)]
enum Shape {
    /// Present or absent in clap; `=false` removes it.
    Switch,
    /// A boolean that knows whether it was given.
    Tristate,
    /// A value.
    Value,
}

fn shape(arg: &Arg) -> Shape {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        Shape::Switch
    } else if arg.get_num_args().is_some_and(|n| n.min_values() == 0) {
        Shape::Tristate
    } else {
        Shape::Value
    }
}

/// Rewrites Go's spellings into `--name=value`, with `--` before the positional arguments.
fn rewrite(command: &Command, args: &[OsString]) -> Result<Vec<OsString>, String> {
    let mut out: Vec<OsString> = Vec::with_capacity(args.len() + 1);
    let mut rest = args.iter();
    while let Some(token) = rest.next() {
        let bytes = token.as_encoded_bytes();
        if bytes.len() < 2 || bytes[0] != b'-' {
            out.push("--".into());
            out.push(token.clone());
            out.extend(rest.cloned());
            return Ok(out);
        }
        if bytes == b"--" {
            out.push("--".into());
            out.extend(rest.cloned());
            return Ok(out);
        }
        let shown = token.to_string_lossy();
        let body = shown.strip_prefix("--").unwrap_or(&shown[1..]);
        if body.is_empty() || body.starts_with('-') || body.starts_with('=') {
            return Err(format!("bad flag syntax: {shown}"));
        }
        let name = body.split('=').next().unwrap_or(body);
        let Some(arg) = command.get_arguments().find(|arg| arg.get_long() == Some(name)) else {
            return Err(format!("flag provided but not defined: -{name}"));
        };
        let value = value_of(token, name);
        match (shape(arg), value) {
            (Shape::Switch | Shape::Tristate, Some(value)) => {
                let Some(on) = value.to_str().and_then(go_bool) else {
                    let value = value.to_string_lossy();
                    return Err(format!("invalid boolean value {value:?} for -{name}: parse error"));
                };
                if shape(arg) == Shape::Tristate {
                    out.push(format!("--{name}={on}").into());
                } else {
                    let long: OsString = format!("--{name}").into();
                    out.retain(|earlier| *earlier != long);
                    out.extend(on.then_some(long));
                }
            }
            (Shape::Switch, None) => {
                let long: OsString = format!("--{name}").into();
                out.retain(|earlier| *earlier != long);
                out.push(long);
            }
            (Shape::Tristate, None) => out.push(format!("--{name}=true").into()),
            (Shape::Value, value) => {
                let Some(value) = value.or_else(|| rest.next().cloned()) else {
                    return Err(format!("flag needs an argument: -{name}"));
                };
                let mut joined: OsString = format!("--{name}=").into();
                joined.push(value);
                out.push(joined);
            }
        }
    }
    Ok(out)
}

/// What follows the first `=` of a token, byte for byte.
fn value_of(token: &OsStr, name: &str) -> Option<OsString> {
    let bytes = token.as_encoded_bytes();
    let dashes = if bytes.starts_with(b"--") { 2 } else { 1 };
    let value = bytes.get(dashes + name.len()..)?.strip_prefix(b"=")?;
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Some(OsStr::from_bytes(value).to_owned())
    }
    #[cfg(not(unix))]
    {
        Some(String::from_utf8_lossy(value).into_owned().into())
    }
}

/// Clap's refusal in the words of Go's `flag` package.
fn explain(error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let argument = text(ContextKind::InvalidArg);
    let name = argument.trim_start_matches('-').split([' ', '=', '[', '<']).next().unwrap_or_default();
    let reason =
        std::error::Error::source(error).map_or_else(|| "parse error".to_owned(), ToString::to_string);
    match error.kind() {
        clap::error::ErrorKind::ValueValidation | clap::error::ErrorKind::InvalidValue => {
            format!("invalid value {:?} for flag -{name}: {reason}", text(ContextKind::InvalidValue))
        }
        clap::error::ErrorKind::InvalidUtf8 => "arguments must be UTF-8".to_owned(),
        _ => error.render().to_string().lines().next().unwrap_or_default().replace(" --", " -"),
    }
}

/// A boolean in any of Go's spellings.
#[must_use]
pub fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A clap parser of booleans.
pub fn bool_value(text: &str) -> Result<bool, String> {
    go_bool(text).ok_or_else(|| "parse error".to_owned())
}

/// A clap parser of signed numbers: decimal, `0x`, `0o`, `0b` or with a leading zero.
pub fn int_value(text: &str) -> Result<i64, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let number = i128::from(unsigned(digits)?) * sign;
    i64::try_from(number).map_err(|_| "value out of range".to_owned())
}

/// A clap parser of unsigned numbers.
pub fn uint_value(text: &str) -> Result<u64, String> {
    unsigned(text)
}

/// A clap parser of durations in Go's notation. The text stays as it is.
pub fn duration_value(text: &str) -> Result<String, String> {
    match proconsul_core::duration::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("parse error: write a number and a unit, such as 10s".to_owned()),
    }
}

fn unsigned(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = if let Some(hex) = lower.strip_prefix("0x") {
        (16, hex)
    } else if let Some(binary) = lower.strip_prefix("0b") {
        (2, binary)
    } else if let Some(octal) = lower.strip_prefix("0o") {
        (8, octal)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return Err("parse error".to_owned());
    }
    u64::from_str_radix(digits, radix).map_err(|e| match e.kind() {
        std::num::IntErrorKind::PosOverflow => "value out of range".to_owned(),
        _ => "parse error".to_owned(),
    })
}

/// A clap parser of `key=value`.
pub fn pair_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(format!("Missing \"=\" value in argument: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command::new("t")
            .arg(Arg::new("cas").long("cas").action(ArgAction::SetTrue))
            .arg(
                Arg::new("server")
                    .long("server")
                    .num_args(0..=1)
                    .require_equals(true)
                    .value_parser(bool_value),
            )
            .arg(Arg::new("flags").long("flags").value_parser(uint_value))
            .arg(Arg::new("meta").long("meta").action(ArgAction::Append).value_parser(pair_value))
            .arg(Arg::new("dir").long("dir").action(ArgAction::Append))
            .arg(Arg::new("args").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true))
    }

    fn run(line: &[&str]) -> Result<ArgMatches, String> {
        parse(command(), &line.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn positional(matches: &ArgMatches) -> Vec<&str> {
        matches.get_many::<String>("args").into_iter().flatten().map(String::as_str).collect()
    }

    #[test]
    fn every_spelling_of_go_is_understood() {
        for (line, cas, server, flags, args) in [
            (&["-cas", "a"][..], true, None, None, &["a"][..]),
            (&["--cas=1", "a"], true, None, None, &["a"]),
            (&["-cas=F", "a"], false, None, None, &["a"]),
            (&["-cas", "-cas=false"], false, None, None, &[]),
            (&["-cas=false", "-cas"], true, None, None, &[]),
            (&["-cas", "true"], true, None, None, &["true"]),
            (&["-server"], false, Some(true), None, &[]),
            (&["-server=false"], false, Some(false), None, &[]),
            (&["-server", "-server=0"], false, Some(false), None, &[]),
            (&["-flags=0x10"], false, None, Some(16), &[]),
            (&["--flags", "010"], false, None, Some(8), &[]),
            (&["-flags=5", "-flags=6"], false, None, Some(6), &[]),
            (&["a", "-cas"], false, None, None, &["a", "-cas"]),
            (&["--", "-cas"], false, None, None, &["-cas"]),
            (&["-cas", "--", "-k", "--", "v"], true, None, None, &["-k", "--", "v"]),
            (&["-", "a"], false, None, None, &["-", "a"]),
            (&["-cas", "\\-x", "--flags"], true, None, None, &["\\-x", "--flags"]),
            (&["", "-cas"], false, None, None, &["", "-cas"]),
        ] {
            let matches = run(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
            assert_eq!(matches.get_flag("cas"), cas, "{line:?}");
            assert_eq!(matches.get_one::<bool>("server").copied(), server, "{line:?}");
            assert_eq!(matches.get_one::<u64>("flags").copied(), flags, "{line:?}");
            assert_eq!(positional(&matches), args, "{line:?}");
        }
    }

    #[test]
    fn values_may_begin_with_a_dash_and_lists_keep_their_order() {
        let matches = run(&["-dir", "-a", "-dir=--b", "-meta", "k=v=w", "x"]).expect("good flags");
        let dirs: Vec<_> = matches.get_many::<String>("dir").into_iter().flatten().collect();
        assert_eq!(dirs, ["-a", "--b"]);
        let meta = matches.get_one::<(String, String)>("meta");
        assert_eq!(meta, Some(&("k".to_owned(), "v=w".to_owned())));
        assert_eq!(positional(&matches), ["x"]);
    }

    #[test]
    fn refusals_use_the_words_of_go() {
        for (line, error) in [
            (&["-nosuch"][..], "flag provided but not defined: -nosuch"),
            (&["--nosuch=1"], "flag provided but not defined: -nosuch"),
            (&["-Cas"], "flag provided but not defined: -Cas"),
            (&["---cas"], "bad flag syntax: ---cas"),
            (&["-=x"], "bad flag syntax: -=x"),
            (&["-cas=maybe"], "invalid boolean value \"maybe\" for -cas: parse error"),
            (&["-server=maybe"], "invalid boolean value \"maybe\" for -server: parse error"),
            (&["-flags"], "flag needs an argument: -flags"),
            (&["-flags=abc"], "invalid value \"abc\" for flag -flags: parse error"),
            (&["-flags="], "invalid value \"\" for flag -flags: parse error"),
            (&["-flags=-1"], "invalid value \"-1\" for flag -flags: parse error"),
            (
                &["-flags=18446744073709551616"],
                "invalid value \"18446744073709551616\" for flag -flags: value out of range",
            ),
            (&["-meta=bad"], "invalid value \"bad\" for flag -meta: Missing \"=\" value in argument: bad"),
        ] {
            assert_eq!(run(line).map(|_| ()), Err(error.to_owned()), "{line:?}");
        }
    }

    #[test]
    fn numbers_of_every_base_are_read() {
        for (text, number) in
            [("8600", Ok(8600)), ("-1", Ok(-1)), ("0x1F", Ok(31)), ("010", Ok(8)), ("0", Ok(0))]
        {
            assert_eq!(int_value(text), number, "{text}");
        }
        for text in ["", "abc", "8600x", "1.5", "--1", "0x"] {
            assert!(int_value(text).is_err(), "{text}");
        }
    }
}
