//! The web page: files that are part of this program. It does what `/api/v2` can, as whoever has logged in, and nothing of it is secret.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use sha2::{Digest as _, Sha256};

use crate::{reply::text, session::hex, v2};

/// Nothing of another place is loaded or asked, nothing in the document itself is executed, and of texts only the templates' own become HTML.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types lit-html";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of the page.
struct File {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($name:literal $kind:expr),* $(,)?) => {
        &[$(File { name: $name, kind: $kind, text: include_str!(concat!("../page/", $name)) }),*]
    };
}

static FILES: &[File] = files![
    "style.css" "text/css; charset=utf-8",
    "icon.svg" "image/svg+xml",
    "app.js" SCRIPT,
    "api.js" SCRIPT,
    "history.js" SCRIPT,
    "live.js" SCRIPT,
    "parts.js" SCRIPT,
    "act.js" SCRIPT,
    "views/login.js" SCRIPT,
    "views/overview.js" SCRIPT,
    "views/nodes.js" SCRIPT,
    "views/vms.js" SCRIPT,
    "views/networks.js" SCRIPT,
    "views/storage.js" SCRIPT,
    "views/tasks.js" SCRIPT,
    "vendor/lit-html.js" SCRIPT,
];

const DOCUMENT: &str = include_str!("../page/index.html");

/// Of all that the page consists of: another program's files have other addresses, so that a browser may keep these for ever.
static BUILD: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new_with_prefix(DOCUMENT);
    for file in FILES {
        hash.update(file.name);
        hash.update(file.text);
    }
    hex(&hash.finalize()[..8])
});

/// The document.
pub(crate) async fn document(headers: HeaderMap) -> Response {
    let tag = format!("\"{}\"", *BUILD);
    let has = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if has {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        text(StatusCode::OK, "text/html; charset=utf-8", DOCUMENT.replace("BUILD", &BUILD))
    };
    guard(&mut response, "no-cache");
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// A file that the document or another file names.
pub(crate) async fn file(Path((build, name)): Path<(String, String)>) -> Response {
    let found = FILES.iter().find(|file| build == *BUILD && file.name == name);
    let Some(file) = found else { return v2::refuse(StatusCode::NOT_FOUND, "there is no such file") };
    let mut response = text(StatusCode::OK, file.kind, file.text);
    guard(&mut response, "public, max-age=31536000, immutable");
    response
}

fn guard(response: &mut Response, keep: &'static str) {
    let also: [(HeaderName, &'static str); 3] = [
        (header::CACHE_CONTROL, keep),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in also {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a text names as a file: the words in its quotes that end like one.
    fn named(text: &'static str) -> impl Iterator<Item = &'static str> {
        const ENDS: [&str; 3] = [".js", ".css", ".svg"];
        let words = text.split(['"', '\'']).filter(|word| ENDS.iter().any(|end| word.ends_with(end)));
        words.map(|word| word.trim_start_matches("/page/BUILD").trim_start_matches(['.', '/']))
    }

    #[test]
    fn every_file_that_is_named_is_there_and_nothing_becomes_html_or_comes_from_elsewhere() {
        let own = FILES.iter().filter(|file| !file.name.starts_with("vendor/"));
        for text in own.map(|file| file.text).chain([DOCUMENT]) {
            for name in named(text) {
                let is_it = |file: &File| file.name == name || file.name.ends_with(&format!("/{name}"));
                assert!(FILES.iter().any(is_it), "{name}");
            }
            for never in ["https://", "unsafeHTML", "innerHTML", "style=\"", "eval("] {
                assert!(!text.contains(never), "{never} in {text}");
            }
        }
    }

    #[test]
    fn the_page_is_small() {
        let bytes: usize = FILES.iter().map(|file| file.text.len()).sum();
        assert!(bytes < 200 * 1024, "{bytes} bytes");
    }
}
