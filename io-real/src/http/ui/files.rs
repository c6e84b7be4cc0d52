//! Pages of one's own, from a directory (Consul: `ui_config.dir`).

use std::path::{Path, PathBuf};

use proconsul_core::Text;
use proconsul_core::api::HttpReply;

/// The largest file that is served, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What a browser takes a file for, by the end of its name.
const TYPES: &[(&str, &str)] = &[
    ("css", "text/css; charset=utf-8"),
    ("gif", "image/gif"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("txt", "text/plain; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
];

/// The file that a path below `at` means. What does not exist is `index.html`, which finds out by itself what its address
/// asks it to show. Blocks.
pub(super) fn file(dir: &Path, at: &str, path: &str) -> HttpReply {
    let wanted = below(dir, path.strip_prefix(at).unwrap_or_default());
    let wanted = wanted.filter(|path| path.is_file()).unwrap_or_else(|| dir.join("index.html"));
    let name = wanted.display();
    let size = match std::fs::metadata(&wanted) {
        Ok(about) => about.len(),
        Err(_) => return HttpReply::text(404, "There is no index.html in ui_config.dir"),
    };
    if size > FILE_BYTES_MAX {
        return HttpReply::text(500, "The file is too large");
    }
    match std::fs::read(&wanted) {
        Ok(content) => {
            let extension = wanted.extension().and_then(|end| end.to_str()).unwrap_or_default();
            let known = TYPES.iter().find(|(end, _)| end.eq_ignore_ascii_case(extension));
            let content_type = known.map_or("application/octet-stream", |(_, content_type)| content_type);
            let header = |name, value| (Text::new_static(name), Text::new_static(value));
            let mut reply = HttpReply::empty(200);
            reply.headers.push(header("Content-Type", content_type));
            reply.headers.push(header("X-Content-Type-Options", "nosniff"));
            reply.headers.push(header("Cache-Control", "no-cache"));
            reply.body = content.into();
            reply
        }
        Err(error) => {
            tracing::warn!("ui_config.dir: {name}: {error}");
            HttpReply::text(500, "The file cannot be read")
        }
    }
}

/// The path below a directory; `None` for one that would leave it, or means a hidden file.
fn below(dir: &Path, path: &str) -> Option<PathBuf> {
    let mut below = dir.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if part.starts_with('.') || part.contains(['\\', '%', '\0']) {
            return None;
        }
        below.push(part);
    }
    Some(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_below_the_directory_are_served_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let pages = dir.path().join("pages");
        std::fs::create_dir_all(pages.join("assets")).expect("made");
        for (name, text) in [("index.html", "index"), ("assets/a.js", "script"), (".hidden", "secret")] {
            std::fs::write(pages.join(name), text).expect("written");
        }
        std::fs::write(dir.path().join("secret"), "secret").expect("written");
        let get = |path: &str| {
            let reply = file(&pages, "/ui/", path);
            (reply.status, String::from_utf8_lossy(&reply.body).into_owned())
        };
        for (path, text) in [
            ("/ui/", "index"),
            ("/ui/assets/a.js", "script"),
            ("/ui/dc1/services", "index"),
            ("/ui/../secret", "index"),
            ("/ui/assets/../../secret", "index"),
            ("/ui/%2e%2e/secret", "index"),
            ("/ui/.hidden", "index"),
        ] {
            assert_eq!(get(path), (200, text.to_owned()), "{path}");
        }
        let script = file(&pages, "/ui/", "/ui/assets/a.js");
        assert!(
            script
                .headers
                .iter()
                .any(|(name, value)| name == "Content-Type" && value.starts_with("text/javascript"))
        );
        assert_eq!(file(&dir.path().join("none"), "/ui/", "/ui/").status, 404);
    }
}
