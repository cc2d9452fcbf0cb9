//! Definitions that are accepted and cost as much as a text can, each in its own way. Also used by the unit tests of `domain`, which see
//! to it that they are accepted: what is refused costs less.

use std::fmt::Write as _;

/// The most a definition may have, with some room for what is around.
const BYTES: usize = 995_000;
const MARKUP: usize = 19_900;
const ATTRIBUTES: usize = 64;
const ALL_ATTRIBUTES: usize = 9_800;
const NAMESPACES: usize = 30;

/// What each is made of, and its text.
pub(crate) fn texts() -> Vec<(&'static str, String)> {
    vec![
        ("attributes", domain("", &filled(|_| element(ATTRIBUTES, "")))),
        ("attributes with long names", domain("", &filled(|_| element(ATTRIBUTES, &"x".repeat(1500))))),
        ("elements with one attribute", domain("", &filled(|_| "<a b='c'/>".into()))),
        ("empty elements", domain("", &filled(|_| "<a/>".into()))),
        ("elements with long texts", domain("", &filled(|_| format!("<a>{}</a>", "x".repeat(90))))),
        ("RBD disks", domain("", &filled(disk))),
        ("attributes with namespaces", domain(&namespaces(), &filled(|_| prefixed(ATTRIBUTES)))),
        ("elements with namespaces", domain(&namespaces(), &filled(|_| format!("<n{}:a/>", NAMESPACES - 1)))),
        ("character references in text", domain("", &format!("<a>{}</a>", "&#65;".repeat(BYTES / 5)))),
        (
            "character references in an attribute",
            domain("", &format!("<a b='{}'/>", "&#9;".repeat(BYTES / 4))),
        ),
        ("ends of lines", domain("", &format!("<a>{}</a>", "\r".repeat(BYTES)))),
        ("text in pieces", domain("", &format!("<a>{}</a>", filled(|_| "<![CDATA[\r]]>\r".into())))),
        ("deep elements", domain("", &filled(|_| format!("{}{}", "<a>".repeat(250), "</a>".repeat(250))))),
        ("comments", domain("", &filled(|_| "<!---->".into()))),
        ("quotes", domain("", &format!("<a>{}</a>", "'".repeat(BYTES)))),
    ]
}

fn domain(namespaces: &str, devices: &str) -> String {
    format!(
        "<domain type='kvm'{namespaces}><uuid>6f1f6c55-7b8e-4f2f-9f5e-0f2c3c1c9f00</uuid><name>web1</name>\
         <memory unit='MiB'>64</memory><devices>{devices}</devices></domain>"
    )
}

/// As many pieces as bytes and tags permit.
fn filled(piece: impl Fn(usize) -> String) -> String {
    let (mut text, mut markup, mut attributes) = (String::new(), 0, 0);
    for n in 0.. {
        let piece = piece(n);
        markup += piece.matches('<').count();
        attributes += piece.matches('=').count();
        if text.len() + piece.len() > BYTES - 4000 || markup > MARKUP || attributes > ALL_ATTRIBUTES {
            break;
        }
        text.push_str(&piece);
    }
    text
}

fn element(attributes: usize, begin: &str) -> String {
    let mut text = "<a".to_owned();
    for n in 0..attributes {
        let _ = write!(text, " a{begin}{n:02}=''");
    }
    text + "/>"
}

fn disk(n: usize) -> String {
    format!("<disk><source protocol='rbd' name='p/{n}'/></disk>")
}

/// Each declared once, and all visible in every element.
fn namespaces() -> String {
    (0..NAMESPACES).fold(String::new(), |mut text, n| {
        let _ = write!(text, " xmlns:n{n:02}='u:{n:02}'");
        text
    })
}

fn prefixed(attributes: usize) -> String {
    let mut text = "<a".to_owned();
    for n in 0..attributes {
        let _ = write!(text, " n{}:a{n:02}=''", NAMESPACES - 1);
    }
    text + "/>"
}
