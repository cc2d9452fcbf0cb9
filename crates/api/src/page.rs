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
                      form-action 'none'; frame-src 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types lit-html";

/// Of a document that shows what guests print or show: it has no origin, so neither a session nor anything of the page around it, and asks nobody. xterm.js
/// and noVNC set styles of their own.
macro_rules! of_guests {
    ($also:literal) => {
        concat!(
            "sandbox allow-scripts; default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; ",
            $also,
            "base-uri 'none'; form-action 'none'; frame-ancestors 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
        )
    };
}
const TERMINAL_POLICY: &str = of_guests!("");
/// Parts of pictures, and the pointer, are pictures that noVNC has in its hands already.
const SCREEN_POLICY: &str = of_guests!("img-src data:; ");

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
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
    "style.css" STYLE,
    "icon.svg" "image/svg+xml",
    "app.js" SCRIPT,
    "api.js" SCRIPT,
    "history.js" SCRIPT,
    "live.js" SCRIPT,
    "parts.js" SCRIPT,
    "may.js" SCRIPT,
    "act.js" SCRIPT,
    "line.js" SCRIPT,
    "console.js" SCRIPT,
    "screen.js" SCRIPT,
    "monitor.html" HTML,
    "monitor.css" STYLE,
    "monitor.js" SCRIPT,
    "terminal.html" HTML,
    "terminal.css" STYLE,
    "terminal.js" SCRIPT,
    "views/login.js" SCRIPT,
    "views/overview.js" SCRIPT,
    "views/nodes.js" SCRIPT,
    "views/vms.js" SCRIPT,
    "views/networks.js" SCRIPT,
    "views/storage.js" SCRIPT,
    "views/tasks.js" SCRIPT,
    "views/audit.js" SCRIPT,
    "views/past.js" SCRIPT,
    "vendor/lit-html.js" SCRIPT,
    "vendor/xterm.css" STYLE,
    "vendor/xterm.js" SCRIPT,
    "vendor/novnc/core/base64.js" SCRIPT,
    "vendor/novnc/core/crypto/aes.js" SCRIPT,
    "vendor/novnc/core/crypto/bigint.js" SCRIPT,
    "vendor/novnc/core/crypto/crypto.js" SCRIPT,
    "vendor/novnc/core/crypto/des.js" SCRIPT,
    "vendor/novnc/core/crypto/dh.js" SCRIPT,
    "vendor/novnc/core/crypto/md5.js" SCRIPT,
    "vendor/novnc/core/crypto/rsa.js" SCRIPT,
    "vendor/novnc/core/decoders/copyrect.js" SCRIPT,
    "vendor/novnc/core/decoders/h264.js" SCRIPT,
    "vendor/novnc/core/decoders/hextile.js" SCRIPT,
    "vendor/novnc/core/decoders/jpeg.js" SCRIPT,
    "vendor/novnc/core/decoders/raw.js" SCRIPT,
    "vendor/novnc/core/decoders/rre.js" SCRIPT,
    "vendor/novnc/core/decoders/tight.js" SCRIPT,
    "vendor/novnc/core/decoders/tightpng.js" SCRIPT,
    "vendor/novnc/core/decoders/zlib.js" SCRIPT,
    "vendor/novnc/core/decoders/zrle.js" SCRIPT,
    "vendor/novnc/core/deflator.js" SCRIPT,
    "vendor/novnc/core/display.js" SCRIPT,
    "vendor/novnc/core/encodings.js" SCRIPT,
    "vendor/novnc/core/inflator.js" SCRIPT,
    "vendor/novnc/core/input/domkeytable.js" SCRIPT,
    "vendor/novnc/core/input/fixedkeys.js" SCRIPT,
    "vendor/novnc/core/input/gesturehandler.js" SCRIPT,
    "vendor/novnc/core/input/keyboard.js" SCRIPT,
    "vendor/novnc/core/input/keysym.js" SCRIPT,
    "vendor/novnc/core/input/keysymdef.js" SCRIPT,
    "vendor/novnc/core/input/util.js" SCRIPT,
    "vendor/novnc/core/input/vkeys.js" SCRIPT,
    "vendor/novnc/core/input/xtscancodes.js" SCRIPT,
    "vendor/novnc/core/ra2.js" SCRIPT,
    "vendor/novnc/core/rfb.js" SCRIPT,
    "vendor/novnc/core/util/browser.js" SCRIPT,
    "vendor/novnc/core/util/cursor.js" SCRIPT,
    "vendor/novnc/core/util/element.js" SCRIPT,
    "vendor/novnc/core/util/events.js" SCRIPT,
    "vendor/novnc/core/util/eventtarget.js" SCRIPT,
    "vendor/novnc/core/util/int.js" SCRIPT,
    "vendor/novnc/core/util/logging.js" SCRIPT,
    "vendor/novnc/core/util/strings.js" SCRIPT,
    "vendor/novnc/core/websock.js" SCRIPT,
    "vendor/novnc/vendor/pako/lib/utils/common.js" SCRIPT,
    "vendor/novnc/vendor/pako/lib/zlib/adler32.js" SCRIPT,
    "vendor/novnc/vendor/pako/lib/zlib/crc32.js" SCRIPT,
    "vendor/novnc/vendor/pako/lib/zlib/deflate.js" SCRIPT,
    "vendor/novnc/vendor/pako/lib/zlib/inffast.js" SCRIPT,
    "vendor/novnc/vendor/pako/lib/zlib/inflate.js" SCRIPT,
    "vendor/novnc/vendor/pako/lib/zlib/inftrees.js" SCRIPT,
    "vendor/novnc/vendor/pako/lib/zlib/messages.js" SCRIPT,
    "vendor/novnc/vendor/pako/lib/zlib/trees.js" SCRIPT,
    "vendor/novnc/vendor/pako/lib/zlib/zstream.js" SCRIPT,
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
        text(StatusCode::OK, HTML, DOCUMENT.replace("BUILD", &BUILD))
    };
    guard(&mut response, "no-cache", POLICY);
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
    guard(&mut response, IMMUTABLE, policy(file));
    // To a document without an origin all scripts are another's.
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn policy(file: &File) -> &'static str {
    match (file.kind, file.name) {
        (HTML, "monitor.html") => SCREEN_POLICY,
        (HTML, _) => TERMINAL_POLICY,
        _ => POLICY,
    }
}

const IMMUTABLE: &str = "public, max-age=31536000, immutable";

fn guard(response: &mut Response, keep: &'static str, policy: &'static str) {
    let also: [(HeaderName, &'static str); 3] = [
        (header::CACHE_CONTROL, keep),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in also {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
        thread,
    };

    use super::*;

    /// What a text names as a file: the words in its quotes that end like one.
    fn named(text: &'static str) -> impl Iterator<Item = &'static str> {
        const ENDS: [&str; 4] = [".js", ".css", ".svg", ".html"];
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

    #[allow(clippy::disallowed_methods, reason = "how small it becomes, for a test")]
    fn gzipped(text: &str) -> usize {
        let mut gzip = Command::new("/usr/bin/gzip")
            .arg("-9c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("gzip is part of Debian");
        let mut input = gzip.stdin.take().unwrap();
        let bytes = thread::scope(|scope| {
            // Whoever writes all of it first may wait for a reader.
            scope.spawn(move || input.write_all(text.as_bytes()).unwrap());
            gzip.wait_with_output().unwrap().stdout
        });
        bytes.len()
    }

    /// What shows a guest's console, or its screen; what is neither is asked for by everybody.
    fn shows(name: &str) -> &'static str {
        let is = |words: [&str; 2]| words.iter().any(|word| name.contains(word));
        if is(["xterm", "terminal"]) {
            "console"
        } else if is(["novnc", "monitor"]) {
            "screen"
        } else {
            ""
        }
    }

    #[test]
    fn the_page_is_small_and_what_shows_a_guest_is_asked_for_only_then() {
        let [own, terminal, monitor] = ["", "console", "screen"].map(|what| {
            let of_it = FILES.iter().filter(|file| shows(file.name) == what);
            of_it.map(|file| gzipped(file.text)).sum::<usize>()
        });
        assert!(own < 50 * 1024 && own + terminal < 200 * 1024, "{own} and {terminal} bytes");
        assert!(monitor < 160 * 1024, "{monitor} bytes");
        let apart = FILES.iter().filter(|file| shows(file.name).is_empty());
        for text in apart.map(|file| file.text).chain([DOCUMENT]) {
            for never in ["terminal.js", "xterm", "monitor.js", "novnc"] {
                assert!(!text.contains(never), "{never} would be loaded with {text}");
            }
        }
    }

    /// Each file of noVNC asks for others by where they are beside it.
    #[test]
    fn all_that_shows_a_screen_is_there_and_nothing_else_of_it() {
        let mut wanted =
            ["rfb.js", "util/logging.js"].map(|name| format!("vendor/novnc/core/{name}")).to_vec();
        let mut seen = std::collections::BTreeSet::new();
        while let Some(name) = wanted.pop() {
            let file = FILES.iter().find(|file| file.name == name);
            let text = file.unwrap_or_else(|| panic!("{name} is not there")).text;
            if !seen.insert(name.clone()) {
                continue;
            }
            let folder = name.rsplit_once('/').unwrap().0;
            for line in text.lines().filter(|line| line.contains("from ") || line.starts_with("import")) {
                let quoted = line.split(['\'', '"']).find(|word| word.strip_suffix(".js").is_some());
                let Some(other) = quoted.filter(|word| word.starts_with('.')) else { continue };
                let mut path: Vec<&str> = folder.split('/').collect();
                for part in other.split('/') {
                    match part {
                        "." => {}
                        ".." => drop(path.pop()),
                        part => path.push(part),
                    }
                }
                wanted.push(path.join("/"));
            }
        }
        let all = FILES.iter().filter(|file| file.name.contains("novnc")).count();
        assert_eq!(seen.len(), all);
    }
}
