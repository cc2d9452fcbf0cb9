//! Reads a definition's XML within limits, so that no text, however odd, costs more than milliseconds.
//! Never resolves an entity and never changes the text.

use std::ops::Range;

use roxmltree::{Document, Error, Node, ParsingOptions};

use super::{DomainError, limits};

/// The longest part of a parser's message that is shown: it quotes names, which may be of any length.
const SHOWN: usize = 200;

/// A parsed definition.
pub(super) struct Definition<'x>(Document<'x>);

impl<'x> Definition<'x> {
    /// Parses XML text; refuses what is not well-formed, too large or too odd.
    pub(super) fn parse(xml: &'x str) -> Result<Self, DomainError> {
        limits::check(xml)?;
        check_encoding(xml)?;
        let options = ParsingOptions { allow_dtd: false, ..ParsingOptions::default() };
        let document = Document::parse_with_options(xml, options).map_err(|e| syntax_error(xml, &e))?;
        Ok(Self(document))
    }

    /// The `<domain>` element.
    pub(super) fn root(&self) -> Result<Element<'_>, DomainError> {
        let root = Element(self.0.root_element());
        // An element in a namespace is invisible to libvirt, whatever its name.
        if let Some(namespace) = root.0.tag_name().namespace() {
            let what = format!("the root element is in the namespace {}", excerpt(namespace));
            return Err(root.error(what, "remove xmlns='…' from <domain>"));
        }
        if root.name() == "domain" {
            return Ok(root);
        }
        let what = format!("the root element is {}", excerpt(root.name()));
        Err(root.error(what, "a VM definition is one <domain>…</domain>"))
    }

    /// All elements that have no namespace.
    pub(super) fn elements(&self) -> impl Iterator<Item = Element<'_>> {
        let nodes = self.0.root().descendants().filter(Node::is_element);
        nodes.filter(|node| node.tag_name().namespace().is_none()).map(Element)
    }

    /// Where the values of that attribute stand, of whatever element, and the insides of comments that mention it.
    pub(super) fn places_of(&self, attribute: &str) -> impl Iterator<Item = Range<usize>> {
        let inside = |comment: Range<usize>| comment.start + "<!--".len()..comment.end - "-->".len();
        self.0.root().descendants().flat_map(move |node| {
            let comment = node.text().filter(|text| node.is_comment() && text.contains(attribute));
            let values = node.attributes().filter(move |found| found.name() == attribute);
            values.map(|found| found.range_value()).chain(comment.map(|_| inside(node.range())))
        })
    }

    /// All attributes' values and all texts, of whatever element.
    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        self.0.root().descendants().flat_map(|node| {
            let text = node.text().filter(|_| node.is_text());
            node.attributes().map(|attribute| attribute.value()).chain(text)
        })
    }
}

/// An element of a definition.
#[derive(Clone, Copy)]
pub(super) struct Element<'d>(Node<'d, 'd>);

impl<'d> Element<'d> {
    /// The first child of that name.
    pub(super) fn child(self, name: &str) -> Option<Self> {
        self.children(name).next()
    }

    /// The children of that name.
    pub(super) fn children(self, name: &str) -> impl Iterator<Item = Self> {
        self.elements().filter(move |child| child.0.has_tag_name(name))
    }

    /// All children that are elements without a namespace.
    pub(super) fn elements(self) -> impl Iterator<Item = Self> {
        self.0
            .children()
            .filter(|child| child.is_element() && child.tag_name().namespace().is_none())
            .map(Self)
    }

    /// The only child of that name; none or several are refused.
    pub(super) fn only(self, name: &str, todo_if_missing: &str) -> Result<Self, DomainError> {
        let mut children = self.children(name);
        let first =
            children.next().ok_or_else(|| self.error(format!("<{name}> is missing"), todo_if_missing))?;
        match children.next() {
            None => Ok(first),
            Some(second) => Err(second.error(format!("there is a second <{name}>"), "leave one")),
        }
    }

    /// The child of that name, or this element itself: for the line of an error.
    pub(super) fn at(self, name: &str) -> Self {
        self.child(name).unwrap_or(self)
    }

    /// The element's name.
    pub(super) fn name(self) -> &'d str {
        self.0.tag_name().name()
    }

    /// An attribute.
    pub(super) fn attribute(self, name: &str) -> Option<&'d str> {
        self.0.attribute(name)
    }

    /// The text of this element and all below it, as XPath's `string()` (which libvirt uses) sees it: a comment in the
    /// middle does not end it.
    pub(super) fn text(self) -> String {
        self.0.descendants().filter(Node::is_text).filter_map(|n| n.text()).collect()
    }

    /// Where it stands in the text.
    pub(super) fn range(self) -> Range<usize> {
        self.0.range()
    }

    /// Where its content begins, if it has any.
    pub(super) fn first_inside(self) -> Option<usize> {
        self.0.first_child().map(|child| child.range().start)
    }

    /// An error at this element's line.
    pub(super) fn error(self, what: impl Into<String>, todo: impl Into<String>) -> DomainError {
        let line = self.0.document().text_pos_at(self.0.range().start).row;
        DomainError { what: what.into(), line, todo: todo.into() }
    }
}

/// A quoted, shortened copy of outside text for a message.
pub(super) fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// libvirt would decode the text by its declared encoding and might so read something else than was checked here.
fn check_encoding(xml: &str) -> Result<(), DomainError> {
    let text = xml.trim_start_matches('\u{feff}');
    let Some(declaration) = text.strip_prefix("<?xml").and_then(|rest| rest.split("?>").next()) else {
        return Ok(());
    };
    let Some((_, value)) = declaration.split_once("encoding") else {
        return Ok(());
    };
    let name: String =
        value.chars().filter(|c| !matches!(c, '=' | '"' | '\'') && !c.is_whitespace()).collect();
    if ["utf-8", "us-ascii", "ascii"].iter().any(|known| name.to_ascii_lowercase().starts_with(known)) {
        return Ok(());
    }
    Err(DomainError {
        what: format!("the declared encoding is {}", excerpt(&name)),
        line: 1,
        todo: "use UTF-8 and say so, or leave the encoding out".to_owned(),
    })
}

fn syntax_error(xml: &str, error: &Error) -> DomainError {
    let has_position = !matches!(
        error,
        Error::NoRootNode
            | Error::UnclosedRootNode
            | Error::DtdDetected
            | Error::NodesLimitReached
            | Error::AttributesLimitReached
            | Error::NamespacesLimitReached
            | Error::UnexpectedEndOfStream
    );
    let last_line = || u32::try_from(xml.lines().count()).unwrap_or(u32::MAX).max(1);
    let (what, line, todo) = match error {
        Error::DtdDetected => {
            let before = xml.find("<!DOCTYPE").map_or(0, |at| xml[..at].matches('\n').count());
            let line = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
            ("a document type declaration".to_owned(), line, "remove <!DOCTYPE …>; entities are not allowed")
        }
        Error::NoRootNode => ("there is no XML element".to_owned(), 1, "give a libvirt <domain>…</domain>"),
        Error::UnclosedRootNode | Error::UnexpectedEndOfStream => {
            ("the XML ends too early".to_owned(), last_line(), "close every element")
        }
        _ => {
            let text = error.to_string();
            // The library appends the position, which is given by itself here.
            let text = text.rsplit_once(" at ").map_or(text.as_str(), |(what, _)| what);
            let line = if has_position { error.pos().row } else { 1 };
            let text: String = text.chars().take(SHOWN).collect();
            (format!("no well-formed XML: {text}"), line, "correct it; xmllint shows the place")
        }
    };
    DomainError { what, line, todo: todo.to_owned() }
}
