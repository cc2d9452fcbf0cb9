//! What a definition may consist of, counted before the parser sees the text.
//!
//! Some of the parser's work grows with the square of what is here bounded, and it allocates for every `<` before it reads one. The count reads tags
//! as the parser does up to the first fault: what follows a fault the parser never reaches, so it need not be counted.
//! `cargo xtask bench` prints what the worst text within these limits costs.

use super::DomainError;

/// ZooKeeper takes packets of at most 1 MiB, and a definition is written together with the other keys of its VM.
const MAX_BYTES: usize = 1_000_000;
/// libxml2's limit, and so libvirt's.
const MAX_DEPTH: usize = 256;
/// Tags, comments, CDATA sections and processing instructions. A definition with a hundred disks has some two thousand.
const MAX_MARKUP: usize = 20_000;
/// Attributes of one element are compared pairwise. libvirt knows no element with more than twenty.
const MAX_ATTRIBUTES: usize = 64;
/// … and of all elements together.
const MAX_ALL_ATTRIBUTES: usize = 10_000;
/// A namespace costs memory in every element below it, and time at every prefix. libvirt knows six.
const MAX_NAMESPACE_WORDS: usize = 32;

/// Refuses what exceeds a limit. Whether the rest is well-formed is the parser's business.
pub(super) fn check(xml: &str) -> Result<(), DomainError> {
    if xml.len() > MAX_BYTES {
        let what = format!("the definition has {} bytes, more than {MAX_BYTES}", xml.len());
        return refuse(xml, 0, what, "shorten it; real definitions have a few thousand");
    }
    if xml.matches("xmlns").count() > MAX_NAMESPACE_WORDS {
        let what = "the definition has too many XML namespaces".to_owned();
        return refuse(xml, 0, what, "leave those that libvirt knows");
    }
    let (mut depth, mut markup, mut attributes) = (0_usize, 0, 0);
    let mut at = 0;
    while let Some(begin) = find(xml, at, "<") {
        markup += 1;
        if markup > MAX_MARKUP {
            let what = format!("the definition has more than {MAX_MARKUP} tags and comments");
            return refuse(xml, begin, what, "remove what libvirt does not know");
        }
        let rest = &xml[begin..];
        let end = if rest.starts_with("<!--") {
            find(xml, begin + "<!--".len(), "-->")
        } else if rest.starts_with("<![CDATA[") {
            find(xml, begin, "]]>")
        } else if rest.starts_with("<?") {
            find(xml, begin, "?>")
        } else if rest.starts_with("<!") {
            // A document type: refused by the parser as soon as it is read.
            None
        } else if rest.starts_with("</") {
            depth = depth.saturating_sub(1);
            find(xml, begin, ">")
        } else {
            let tag = Tag::read(xml, begin);
            if tag.attributes > MAX_ATTRIBUTES {
                let what = format!("an element has too many attributes, more than {MAX_ATTRIBUTES}");
                return refuse(xml, begin, what, "leave those that libvirt knows");
            }
            attributes += tag.attributes;
            if attributes > MAX_ALL_ATTRIBUTES {
                let what = format!("the definition has more than {MAX_ALL_ATTRIBUTES} attributes");
                return refuse(xml, begin, what, "leave those that libvirt knows");
            }
            if depth == MAX_DEPTH {
                let what = format!("elements are nested more than {MAX_DEPTH} deep");
                return refuse(xml, begin, what, "libvirt does not read this; flatten it");
            }
            depth += usize::from(!tag.is_empty);
            tag.end
        };
        let Some(end) = end else { return Ok(()) };
        at = end;
    }
    Ok(())
}

/// An opening tag.
struct Tag {
    attributes: usize,
    /// `<a/>`.
    is_empty: bool,
    /// Where its `>` is; `None` if it has none.
    end: Option<usize>,
}

impl Tag {
    fn read(xml: &str, begin: usize) -> Self {
        let (mut attributes, mut at) = (0, begin);
        let end = loop {
            let Some(found) = xml[at..].find(['>', '"', '\'']).map(|found| at + found) else { break None };
            let quote = &xml[found..=found];
            if quote == ">" {
                break Some(found);
            }
            attributes += 1;
            let Some(close) = find(xml, found + 1, quote).filter(|_| attributes <= MAX_ATTRIBUTES) else {
                break None;
            };
            at = close + 1;
        };
        Self { attributes, is_empty: end.is_some_and(|end| xml[..end].ends_with('/')), end }
    }
}

/// Where `what` next stands, from `at` on.
fn find(xml: &str, at: usize, what: &str) -> Option<usize> {
    xml.get(at..)?.find(what).map(|found| at + found)
}

fn refuse(xml: &str, at: usize, what: String, todo: &str) -> Result<(), DomainError> {
    let before = xml[..at].matches('\n').count();
    let line = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
    Err(DomainError { what, line, todo: todo.to_owned() })
}
