//! The web page: one file in the binary, which asks the public HTTP API and nothing else.
//!
//! Its policy lets a browser run the page's own script and style, which it knows by their hashes, and nothing that
//! somebody has smuggled into a name. It cannot be framed, loads nothing from elsewhere and talks to its own agent only.

mod files;

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::api::{ContentType, HttpReply};
use sha2::{Digest, Sha256};

use super::Site;

static PAGE: &str = include_str!("index.html");

static POLICY: LazyLock<Text> = LazyLock::new(|| {
    let hash = |tag| {
        let part = element(tag).expect("the page has one of each");
        format!("'sha256-{}'", STANDARD.encode(Sha256::digest(part)))
    };
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
        hash("script"),
        hash("style")
    )
    .into()
});

/// What stands in the first element of a name.
fn element(tag: &str) -> Option<&'static str> {
    let (_, rest) = PAGE.split_once(&format!("<{tag}>"))?;
    rest.split_once(&format!("</{tag}>")).map(|(inner, _)| inner)
}

/// The page. It finds out by itself what its address asks it to show.
pub(super) fn page() -> HttpReply {
    let header = |name, value: &'static str| (Text::new_static(name), Text::new_static(value));
    HttpReply {
        status: 200,
        content_type: ContentType::Html,
        meta: None,
        headers: vec![
            (Text::new_static("Content-Security-Policy"), POLICY.clone()),
            header("X-Content-Type-Options", "nosniff"),
            header("X-Frame-Options", "DENY"),
            header("Referrer-Policy", "no-referrer"),
            // Another version of the agent has another page.
            header("Cache-Control", "no-cache"),
        ],
        body: Bytes::from_static(PAGE.as_bytes()),
    }
}

/// A page of one's own.
pub(super) async fn own(site: &Site, path: &str) -> HttpReply {
    let Some(dir) = site.pages().map(Arc::clone) else { return page() };
    let about = Arc::clone(&site.gate().published().about);
    let path = path.to_owned();
    let read = move || files::file(&dir, about.front.page.as_deref().unwrap_or("/"), &path);
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|_| HttpReply::text(500, "The agent is ending"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_runs_what_the_page_brings_and_nothing_else() {
        let policy = page().headers.into_iter().find(|(name, _)| name == "Content-Security-Policy");
        let policy = policy.expect("a policy").1;
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe-"), "{policy}");
        for tag in ["<script", "<style"] {
            let whole = format!("{tag}>");
            assert_eq!(
                PAGE.matches(tag).count(),
                PAGE.matches(whole.as_str()).count(),
                "{tag} with attributes"
            );
            assert_eq!(PAGE.matches(tag).count(), 1, "the policy knows one {tag}>");
        }
        assert!(
            !PAGE.contains(" style=") && !PAGE.contains(" onclick="),
            "attributes would need a weaker policy"
        );
    }

    /// What comes from the cluster reaches the page as text nodes and as properties that hold text. There is no way from a
    /// string to markup or to a program in it, so that there is none for the name of a service.
    #[test]
    fn a_hostile_name_cannot_become_markup() {
        let script = element("script").expect("one");
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "setHTML",
            "document.write",
            "createContextualFragment",
            "DOMParser",
            "parseFromString",
            "srcdoc",
            "setAttribute",
            "eval(",
            "Function(",
            "import(",
            "javascript:",
            "setTimeout('",
            "setTimeout(\"",
            "createPolicy",
            "window.open",
            ".src",
        ] {
            assert!(!script.contains(way), "the page must not use {way}");
        }
        // Tags are the script's own words, and the only address it sets begins with a hash sign.
        assert_eq!(script.matches("createElement(").count(), 1);
        assert_eq!(script.matches(".href = ").count(), 1);
        assert!(script.contains("element.href = '#/' + value.map(encodeURIComponent).join('/')"));
        for tag in script.split("make(").skip(1).filter(|call| !call.starts_with("tag, ")) {
            assert!(tag.starts_with('\''), "a tag that is no constant: make({}", &tag[..tag.len().min(40)]);
        }
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for word in ["http://", "https://", "//cdn", "@import", "url(", "<iframe", "<img", "<form", "<base"] {
            assert!(!PAGE.contains(word), "{word}");
        }
        let mut asked = PAGE.split("fetch(").skip(1);
        assert!(asked.all(|call| call.starts_with("'/v1/")), "it asks the HTTP API of its own agent");
    }
}
