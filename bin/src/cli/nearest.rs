//! What may have been meant by a name that nobody knows.

use strsim::osa_distance;

/// The known name that is the least different, if there is one that is not too different.
#[must_use]
pub fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_ascii_lowercase();
    let limit = (written.len() / 3).clamp(1, 3);
    known
        .map(|name| (osa_distance(&written, &name.to_ascii_lowercase()), name))
        .min()
        .filter(|(distance, _)| *distance <= limit)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_nearly_right_are_found() {
        let known = ["protocol", "http-addr", "server", "dev"];
        for (written, meant) in [
            ("protocal", Some("protocol")),
            ("Server", Some("server")),
            ("htpp-addr", Some("http-addr")),
            ("nosuchthing", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, known.into_iter()), meant, "{written}");
        }
    }
}
