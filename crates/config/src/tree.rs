//! YAML text as a tree in which every key and value knows its line and column.
//!
//! Parsing gives what it could read together with what is wrong, so that one slip does not hide the rest. Aliases share
//! a node instead of copying it, merges are counted and nesting is limited: no input can make the tree much larger than
//! its text. Nothing here knows what a setting means.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

/// Deeper than this is no configuration (the manual's deepest setting is at 6).
const MAX_DEPTH: usize = 32;
/// Entries that merge keys (`<<`) may bring, in all: whether the section has them already or not, each takes a look.
const MAX_MERGED: usize = 1000;
/// Whoever reads so many mistakes stops reading.
pub(crate) const MAX_FAULTS: usize = 200;
/// Longest key, in bytes. Every diagnostic below a key names it.
const LONGEST_KEY: usize = 256;
/// Longest line, in bytes: the cost of a diagnostic grows with its line.
pub(crate) const LONGEST_LINE: usize = 4096;

/// A point in the text, both counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A stretch of text; `end` is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) start: Place,
    pub(crate) end: Place,
}

impl Span {
    fn of(span: saphyr_parser::Span) -> Self {
        let place = |m: saphyr_parser::Marker| Place { line: m.line().max(1), column: m.col() + 1 };
        Self { start: place(span.start), end: place(span.end) }
    }
}

/// A value where it stands: an alias has the place of its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    node: usize,
    pub(crate) span: Span,
    /// Its key's place; list elements have none.
    pub(crate) key: Option<Span>,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Scalar(Scalar),
    List(Vec<Item>),
    /// In the text's order, merges last. Of two with one name the first counts; the second is a fault.
    Map(Vec<(String, Item)>),
}

/// A single value's text, quotes and folding resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Written without quotes.
    pub(crate) plain: bool,
}

/// Something wrong with the YAML itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) span: Span,
    /// The keys above and the one concerned.
    pub(crate) path: Vec<String>,
    pub(crate) what: FaultKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The text is not YAML from here on.
    Syntax(String),
    /// The key occurred before.
    DuplicateKey { first: Span },
    /// A key that is a list, a section or an alias of one.
    OddKey,
    /// `!something`.
    UnknownTag,
    /// A merge (`<<`) of what cannot be merged.
    BadMerge,
    /// Nested beyond reason.
    TooDeep,
    /// A second document.
    SecondDocument,
    /// A line longer than [`LONGEST_LINE`].
    LongLine,
    /// More than [`MAX_FAULTS`].
    TooMany,
}

/// The parsed text.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Vec<Content>,
    pub(crate) root: Option<Item>,
    pub(crate) faults: Vec<Fault>,
}

impl Tree {
    /// Reads all that can be read.
    pub(crate) fn parse(text: &str) -> Self {
        let mut builder = Builder::default();
        if let Some(line) = text.lines().position(|line| line.len() > LONGEST_LINE) {
            let start = Place { line: line + 1, column: 1 };
            builder.fault(Span { start, end: start }, FaultKind::LongLine);
            return builder.tree;
        }
        for event in Parser::new_from_str(text) {
            let fault = match event {
                Ok((event, span)) => builder.take(event, Span::of(span)),
                Err(error) => {
                    let at = Place { line: error.marker().line().max(1), column: error.marker().col() + 1 };
                    builder.fault(Span { start: at, end: at }, FaultKind::Syntax(reason(error.info())));
                    Err(Stop)
                }
            };
            if fault.is_err() {
                break;
            }
            if builder.tree.faults.len() >= MAX_FAULTS {
                builder.fault(builder.last, FaultKind::TooMany);
                break;
            }
        }
        builder.tree
    }

    /// Whether a fault ended the reading, so that what is missing may only be unread.
    pub(crate) fn is_cut_off(&self) -> bool {
        let cut = |f: &Fault| {
            use FaultKind::{LongLine, SecondDocument, Syntax, TooDeep, TooMany};
            matches!(f.what, Syntax(_) | TooDeep | SecondDocument | LongLine | TooMany)
        };
        self.faults.iter().any(cut)
    }

    /// What `item` is.
    pub(crate) fn content(&self, item: Item) -> &Content {
        &self.nodes[item.node]
    }

    /// The value of `name`, if `item` is a section that has it.
    pub(crate) fn get(&self, item: Item, name: &str) -> Option<Item> {
        let Content::Map(entries) = self.content(item) else { return None };
        entries.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// All single values at and below the items, each once, whatever aliases say.
    pub(crate) fn scalars_below(&self, items: impl Iterator<Item = Item>) -> Vec<&Scalar> {
        let mut open: Vec<usize> = items.map(|item| item.node).collect();
        let (mut seen, mut scalars) = (HashSet::new(), Vec::new());
        while let Some(node) = open.pop() {
            if !seen.insert(node) {
                continue;
            }
            match &self.nodes[node] {
                Content::Scalar(scalar) => scalars.push(scalar),
                Content::List(items) => open.extend(items.iter().map(|i| i.node)),
                Content::Map(entries) => open.extend(entries.iter().map(|(_, i)| i.node)),
            }
        }
        scalars
    }

    /// All entries of all sections.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &(String, Item)> {
        self.nodes.iter().flat_map(|node| match node {
            Content::Map(entries) => entries.as_slice(),
            _ => &[],
        })
    }
}

/// The parser's words without any character of the input.
fn reason(info: &str) -> String {
    if info.starts_with("unexpected character") { "unexpected character".to_owned() } else { info.to_owned() }
}

struct Stop;

/// What became of a key: still to get its value, in a way that says what to do with it.
enum Key {
    Named(String, Span),
    Repeated(String, Span),
    Merge(Span),
    Odd,
}

struct Open {
    node: usize,
    /// `Some` between a key and its value.
    key: Option<Key>,
    first: HashMap<String, Span>,
    merges: Vec<(usize, Span)>,
}

#[derive(Default)]
struct Builder {
    tree: Tree,
    open: Vec<Open>,
    anchors: HashMap<usize, usize>,
    documents: usize,
    merged: usize,
    /// Where the last event stands.
    last: Span,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        self.last = span;
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.fault(span, FaultKind::SecondDocument);
                    return Err(Stop);
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tagged_text =
                    tag.as_deref().is_some_and(|t| t.is_yaml_core_schema() && t.suffix == "str");
                self.check_tag(tag.as_deref(), span);
                let plain = style == ScalarStyle::Plain && !tagged_text;
                let scalar = Scalar { text: text.into_owned(), plain };
                let node = self.add(Content::Scalar(scalar), anchor);
                self.place(node, span);
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), span);
                return self.enter(Content::List(Vec::new()), anchor, span);
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), span);
                return self.enter(Content::Map(Vec::new()), anchor, span);
            }
            Event::Alias(anchor) => {
                if let Some(&node) = self.anchors.get(&anchor) {
                    self.place(node, span);
                }
            }
            Event::SequenceEnd => {
                self.open.pop();
            }
            Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    self.merge(open);
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn add(&mut self, content: Content, anchor: usize) -> usize {
        self.tree.nodes.push(content);
        let node = self.tree.nodes.len() - 1;
        if anchor > 0 {
            self.anchors.insert(anchor, node);
        }
        node
    }

    fn enter(&mut self, content: Content, anchor: usize, span: Span) -> Result<(), Stop> {
        let node = self.add(content, anchor);
        self.place(node, span);
        if self.open.len() >= MAX_DEPTH {
            self.fault(span, FaultKind::TooDeep);
            return Err(Stop);
        }
        self.open.push(Open { node, key: None, first: HashMap::new(), merges: Vec::new() });
        Ok(())
    }

    /// Puts a node where the text has it: the root, a list's next element, a key, or a key's value.
    fn place(&mut self, node: usize, span: Span) {
        let Some(open) = self.open.last_mut() else {
            self.tree.root = Some(Item { node, span, key: None });
            return;
        };
        match &mut self.tree.nodes[open.node] {
            Content::List(items) => items.push(Item { node, span, key: None }),
            Content::Map(entries) => match open.key.take() {
                None => self.place_key(node, span),
                // Repeated ones are kept behind the first, so that a password among them is known as one.
                Some(Key::Named(name, key) | Key::Repeated(name, key)) => {
                    entries.push((name, Item { node, span, key: Some(key) }));
                }
                Some(Key::Merge(key)) => open.merges.push((node, key)),
                Some(Key::Odd) => {}
            },
            Content::Scalar(_) => {}
        }
    }

    fn place_key(&mut self, node: usize, span: Span) {
        let scalar = match &self.tree.nodes[node] {
            Content::Scalar(scalar) => Some(scalar.clone()),
            Content::List(_) | Content::Map(_) => None,
        };
        let Some(open) = self.open.last_mut() else { return };
        let Some(scalar) = scalar else {
            open.key = Some(Key::Odd);
            self.fault(span, FaultKind::OddKey);
            return;
        };
        if scalar.text.len() > LONGEST_KEY {
            open.key = Some(Key::Odd);
            self.fault(span, FaultKind::OddKey);
            return;
        }
        if scalar.plain && scalar.text == "<<" {
            open.key = Some(Key::Merge(span));
            return;
        }
        if let Some(&first) = open.first.get(&scalar.text) {
            open.key = Some(Key::Repeated(scalar.text.clone(), span));
            let mut path = self.path();
            path.push(scalar.text);
            self.tree.faults.push(Fault { span, path, what: FaultKind::DuplicateKey { first } });
            return;
        }
        open.first.insert(scalar.text.clone(), span);
        open.key = Some(Key::Named(scalar.text, span));
    }

    /// YAML 1.1's `<<`: entries of other sections, behind the section's own.
    fn merge(&mut self, mut open: Open) {
        for (source, key) in std::mem::take(&mut open.merges) {
            let sources = match &self.tree.nodes[source] {
                Content::List(items) => items.iter().map(|i| i.node).collect(),
                _ => vec![source],
            };
            for source in sources {
                let entries = match &self.tree.nodes[source] {
                    Content::Map(entries) if self.merged + entries.len() > MAX_MERGED => {
                        self.fault(key, FaultKind::BadMerge);
                        return;
                    }
                    Content::Map(entries) if !self.is_open(source) && source != open.node => entries.clone(),
                    _ => {
                        self.fault(key, FaultKind::BadMerge);
                        continue;
                    }
                };
                self.merged += entries.len();
                for (name, item) in entries {
                    if open.first.contains_key(&name) {
                        continue;
                    }
                    open.first.insert(name.clone(), item.key.unwrap_or(key));
                    if let Content::Map(own) = &mut self.tree.nodes[open.node] {
                        own.push((name, item));
                    }
                }
            }
        }
    }

    fn is_open(&self, node: usize) -> bool {
        self.open.iter().any(|open| open.node == node)
    }

    fn check_tag(&mut self, tag: Option<&Tag>, span: Span) {
        const KNOWN: [&str; 7] = ["str", "int", "bool", "null", "float", "map", "seq"];
        let Some(tag) = tag else { return };
        let non_specific =
            tag.handle.is_empty() && tag.suffix == "!" || tag.handle == "!" && tag.suffix.is_empty();
        if !(non_specific || tag.is_yaml_core_schema() && KNOWN.contains(&tag.suffix.as_str())) {
            self.fault(span, FaultKind::UnknownTag);
        }
    }

    fn path(&self) -> Vec<String> {
        let mut path = Vec::new();
        for pair in self.open.windows(2) {
            let inner = pair[1].node;
            match &self.tree.nodes[pair[0].node] {
                Content::Map(entries) => {
                    path.extend(
                        entries.iter().rev().find(|(_, i)| i.node == inner).map(|(name, _)| name.clone()),
                    );
                }
                Content::List(items) => path.push(items.len().to_string()),
                Content::Scalar(_) => {}
            }
        }
        path
    }

    fn fault(&mut self, span: Span, what: FaultKind) {
        let mut path = self.path();
        if let Some(Open { key: Some(Key::Named(name, _)), .. }) = self.open.last() {
            path.push(name.clone());
        }
        self.tree.faults.push(Fault { span, path, what });
    }
}
