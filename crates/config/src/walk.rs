//! Typed reading of the tree: each reading gives a value with its place, or tells the operator what is wrong and goes on.
//!
//! No reading stops at the first mistake. `Told` means: already in the list of diagnostics, say nothing more.

use crate::{
    diagnostic::{Diagnostic, Severity},
    kind::Kind,
    settings::Schema,
    source::{Show, Source, is_secret},
    tree::{Content, Fault, FaultKind, Item, LONGEST_LINE, MAX_FAULTS, Scalar, Tree},
};

/// More would help nobody.
const MAX_DIAGNOSTICS: usize = 200;

/// The mistake has been told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told;

/// A reading of a setting that must be there.
pub(crate) type Read<T> = Result<Found<T>, Told>;
/// A reading of a setting that may be absent.
pub(crate) type ReadOptional<T> = Result<Option<Found<T>>, Told>;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Found<T> {
    pub(crate) value: T,
    pub(crate) at: Setting,
}

/// A setting's path and place.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) path: String,
    pub(crate) item: Item,
}

impl Setting {
    /// The line to name in other settings' diagnostics.
    pub(crate) fn line(&self) -> usize {
        self.item.span.start.line
    }
}

/// A section (a mapping) of the file.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) path: String,
    pub(crate) item: Item,
}

impl Section {
    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// The tree, its text, and what was found wrong so far.
pub(crate) struct Walk<'t> {
    pub(crate) tree: &'t Tree,
    /// The settings that there are.
    pub(crate) schema: Schema,
    source: Source<'t>,
    file: String,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Warnings that were counted and not made: each costs a look at its line.
    unmade: usize,
}

impl<'t> Walk<'t> {
    pub(crate) fn new(schema: Schema, text: &'t str, tree: &'t Tree, file: &str) -> Self {
        let source = Source::new(text, tree);
        Self { tree, schema, source, file: file.to_owned(), diagnostics: Vec::new(), unmade: 0 }
    }

    /// All diagnostics in the order of the file; too many are cut off, errors last.
    pub(crate) fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|d| (d.line, d.column, d.severity));
        if self.diagnostics.len() > MAX_DIAGNOSTICS {
            self.diagnostics.sort_by_key(|d| d.severity);
            let more = self.diagnostics.split_off(MAX_DIAGNOSTICS);
            let severity = more.iter().map(|d| d.severity).min().unwrap_or(Severity::Warning);
            self.diagnostics.sort_by_key(|d| (d.line, d.column, d.severity));
            let more = more.len() + self.unmade;
            let last = self.whole_file(severity, format!("{more} more like these are not shown"));
            self.diagnostics.push(last);
        }
        self.diagnostics
    }

    /// A diagnostic about the file as a whole.
    pub(crate) fn whole_file(&self, severity: Severity, problem: String) -> Diagnostic {
        Diagnostic {
            severity,
            file: self.file.clone(),
            line: None,
            column: None,
            path: String::new(),
            problem,
            found: None,
            allowed: None,
            help: Vec::new(),
            excerpt: None,
        }
    }

    /// A diagnostic about a setting's value; to be completed and told by the caller.
    pub(crate) fn about(&self, severity: Severity, at: &Setting, problem: impl Into<String>) -> Diagnostic {
        let found = match self.tree.content(at.item) {
            Content::Scalar(scalar) if scalar.text.is_empty() => "nothing".to_owned(),
            Content::Scalar(scalar) => self.source.safe(scalar.text.trim()),
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a section".to_owned(),
        };
        let shown = if is_secret(&at.path) { "***".to_owned() } else { found };
        Diagnostic { found: Some(shown), ..self.at(severity, at, show_of(at, self.tree), problem) }
    }

    /// A diagnostic about a setting's key: nothing of its value is shown.
    pub(crate) fn about_key(
        &self,
        severity: Severity,
        at: &Setting,
        problem: impl Into<String>,
    ) -> Diagnostic {
        self.at(severity, at, Show::Key, problem)
    }

    fn at(&self, severity: Severity, at: &Setting, show: Show, problem: impl Into<String>) -> Diagnostic {
        let key = at.item.key;
        // A value that is not there has no place of its own worth pointing at.
        let show = if at.item.span.start == at.item.span.end { Show::Key } else { show };
        let place = if show == Show::Key { key.unwrap_or(at.item.span) } else { at.item.span }.start;
        Diagnostic {
            line: Some(place.line),
            column: Some(place.column),
            path: at.path.clone(),
            excerpt: self.source.setting(key, at.item.span, show),
            ..self.whole_file(severity, problem.into())
        }
    }

    /// Adds a diagnostic to the list.
    pub(crate) fn tell(&mut self, diagnostic: Diagnostic) -> Told {
        self.diagnostics.push(diagnostic);
        Told
    }

    /// What is wrong with the YAML itself.
    pub(crate) fn tell_fault(&mut self, fault: &Fault) {
        let path = fault.path.strip_prefix(&["pvc".to_owned()]).unwrap_or(&fault.path).join(".");
        let (problem, help) = match &fault.what {
            FaultKind::Syntax(reason) => (
                format!("this is not YAML: {reason}"),
                if reason.contains("tab") {
                    "nothing after this point was read; YAML is indented with spaces, never with tabs"
                } else {
                    "nothing after this point was read; look at indentation, quotes and brackets here and just above"
                },
            ),
            FaultKind::DuplicateKey { first } => (
                format!("is set twice, first in line {}", first.start.line),
                "remove one: readers of YAML do not agree on which counts",
            ),
            FaultKind::OddKey => ("this key is not a name".to_owned(), "keys are plain, short words"),
            FaultKind::UnknownTag => {
                ("has a type tag that is not allowed".to_owned(), "remove the word with '!'")
            }
            FaultKind::BadMerge => (
                "merges what cannot be merged".to_owned(),
                "'<<' takes a section that ended above, or a list of such",
            ),
            FaultKind::TooDeep => (
                "this is nested too deeply".to_owned(),
                "nothing after this point was read; no setting is so deep",
            ),
            FaultKind::SecondDocument => (
                "a second document begins here".to_owned(),
                "nothing after this point was read; remove the line '---'",
            ),
            FaultKind::LongLine => (
                format!("this line is longer than {LONGEST_LINE} bytes"),
                "nothing was read; put each setting on a line of its own",
            ),
            FaultKind::TooMany => (
                format!("this file has more than {MAX_FAULTS} mistakes"),
                "nothing after this point was read; is this the configuration file?",
            ),
        };
        let named = matches!(
            fault.what,
            FaultKind::DuplicateKey { .. } | FaultKind::UnknownTag | FaultKind::BadMerge
        );
        let excerpt = match fault.what {
            FaultKind::DuplicateKey { .. } => self.source.setting(Some(fault.span), fault.span, Show::Key),
            _ => self.source.spot(fault.span),
        };
        let problem = if named && path.is_empty() { format!("this {problem}") } else { problem };
        let diagnostic = Diagnostic {
            line: Some(fault.span.start.line),
            column: Some(fault.span.start.column),
            path: if named { self.source.safe(&path) } else { String::new() },
            excerpt,
            help: vec![help.to_owned()],
            ..self.whole_file(Severity::Error, problem)
        };
        self.tell(diagnostic);
    }

    /// The section `name`, if it is there. `None` and nothing at all count as absent. Warns of what is unknown in it.
    pub(crate) fn optional_section(&mut self, parent: &Section, name: &str) -> Result<Option<Section>, Told> {
        let section = self.enter(parent, name, &parent.path_of(name))?;
        if let Some(section) = &section {
            self.warn_unknown(section, &self.schema.known(&section.path));
        }
        Ok(section)
    }

    /// The section `pvc`, which holds all others; their paths do not name it, as the manual's do not.
    pub(crate) fn root(&mut self, file: Item) -> Result<Section, Told> {
        let file = Section { path: String::new(), item: file };
        self.warn_unknown(&file, &["pvc"]);
        match self.enter(&file, "pvc", "")? {
            Some(section) => {
                let root = Section { path: String::new(), ..section };
                self.warn_unknown(&root, &self.schema.known(""));
                Ok(root)
            }
            None => Err(self.missing(&file, "pvc", &self.schema.a_section(""))),
        }
    }

    /// `known_as` is the path by which its settings are known.
    fn enter(&mut self, parent: &Section, name: &str, known_as: &str) -> Result<Option<Section>, Told> {
        let Some(item) = self.tree.get(parent.item, name) else { return Ok(None) };
        let path = parent.path_of(name);
        match self.tree.content(item) {
            Content::Map(_) => Ok(Some(Section { path, item })),
            Content::Scalar(scalar) if scalar.is_none() => Ok(None),
            content => {
                let found = if matches!(content, Content::List(_)) { "a list" } else { "a single value" };
                let diagnostic = Diagnostic {
                    found: Some(found.to_owned()),
                    allowed: Some(self.schema.a_section(known_as)),
                    ..self.about_key(Severity::Error, &Setting { path, item }, "must be a section")
                };
                Err(self.tell(diagnostic))
            }
        }
    }

    /// The section `name`, which must be there.
    pub(crate) fn section(&mut self, parent: &Section, name: &str) -> Result<Section, Told> {
        match self.optional_section(parent, name)? {
            Some(section) => Ok(section),
            None => Err(self.missing(parent, name, &self.schema.a_section(&parent.path_of(name)))),
        }
    }

    /// The list `name`, which must be there and not be empty.
    pub(crate) fn list(&mut self, parent: &Section, name: &str, of: &str) -> Result<Vec<Setting>, Told> {
        let Some(item) = self.tree.get(parent.item, name) else {
            return Err(self.missing(parent, name, &format!("a list of {of}")));
        };
        let at = Setting { path: parent.path_of(name), item };
        let problem = match self.tree.content(item) {
            Content::List(items) if !items.is_empty() => {
                let path = |index| format!("{}[{index}]", at.path);
                return Ok(items
                    .iter()
                    .enumerate()
                    .map(|(i, &item)| Setting { path: path(i), item })
                    .collect());
            }
            Content::List(_) => "is empty",
            Content::Scalar(scalar) if scalar.is_none() => "is empty",
            _ => "must be a list",
        };
        let allowed = Some(format!("a list of {of}, at least one, each on its own line after '- '"));
        let diagnostic = Diagnostic { allowed, ..self.about_key(Severity::Error, &at, problem) };
        Err(self.tell(diagnostic))
    }

    /// An entry of a list, which must be a section.
    pub(crate) fn entry(&mut self, at: &Setting) -> Result<Section, Told> {
        let section = Section { path: at.path.clone(), item: at.item };
        if let Content::Map(_) = self.tree.content(at.item) {
            self.warn_unknown(&section, &self.schema.known(&section.path));
            return Ok(section);
        }
        let diagnostic = Diagnostic {
            allowed: Some(self.schema.a_section(&at.path)),
            ..self.about_key(Severity::Error, at, "must be a section")
        };
        Err(self.tell(diagnostic))
    }

    /// A setting that must be there.
    pub(crate) fn required<T>(&mut self, section: &Section, name: &str, kind: &Kind<T>) -> Read<T> {
        match self.optional(section, name, kind)? {
            Some(found) => Ok(found),
            None => Err(self.missing(section, name, &kind.allowed)),
        }
    }

    /// A setting that may be absent; `None` is absence too, unless `kind` gives it a meaning.
    pub(crate) fn optional<T>(&mut self, section: &Section, name: &str, kind: &Kind<T>) -> ReadOptional<T> {
        let Some(item) = self.tree.get(section.item, name) else { return Ok(None) };
        let at = Setting { path: section.path_of(name), item };
        self.value(at, kind)
    }

    /// A setting with a default, which counts where it is absent.
    pub(crate) fn defaulted<T>(&mut self, section: &Section, name: &str, kind: &Kind<T>) -> Result<T, Told> {
        if let Some(found) = self.optional(section, name, kind)? {
            return Ok(found.value);
        }
        let text = self.schema.default_of(&section.path, name).unwrap_or_default().to_owned();
        let default = kind.read(&Scalar { text, plain: true });
        default.ok().flatten().ok_or_else(|| self.missing(section, name, &kind.allowed))
    }

    /// The value at a known place.
    pub(crate) fn value<T>(&mut self, at: Setting, kind: &Kind<T>) -> ReadOptional<T> {
        let refusal = match self.tree.content(at.item) {
            Content::Scalar(scalar) => match kind.read(scalar) {
                Ok(value) => return Ok(value.map(|value| Found { value, at })),
                Err(refusal) => refusal,
            },
            Content::List(_) | Content::Map(_) => "must be a single value".into(),
        };
        let diagnostic = Diagnostic {
            allowed: Some(kind.allowed.clone()),
            help: refusal.help,
            ..self.about(Severity::Error, &at, refusal.problem)
        };
        Err(self.tell(diagnostic))
    }

    /// Says that `name` is not in `section`.
    pub(crate) fn missing(&mut self, section: &Section, name: &str, allowed: &str) -> Told {
        let present = self.tree.get(section.item, name);
        let path = section.path_of(name);
        let item = present.unwrap_or(section.item);
        let (problem, mut diagnostic) = if present.is_some() {
            ("has no value, but is required", self.about_key(Severity::Error, &Setting { path, item }, ""))
        } else if section.item.key.is_none() {
            ("is missing", self.whole_file(Severity::Error, String::new()))
        } else {
            let at = Setting { path: section.path.clone(), item };
            ("is missing", self.about_key(Severity::Error, &at, ""))
        };
        diagnostic.path = section.path_of(name);
        problem.clone_into(&mut diagnostic.problem);
        diagnostic.allowed = Some(allowed.to_owned());
        self.tell(diagnostic)
    }

    fn warn_unknown(&mut self, section: &Section, known: &[&str]) {
        let Content::Map(entries) = self.tree.content(section.item) else { return };
        let mut unknown = entries.iter().filter(|(name, _)| !known.contains(&name.as_str()));
        // One more than is shown, so that the rest is told of.
        for (name, item) in unknown.by_ref().take(MAX_DIAGNOSTICS + 1) {
            let at = Setting { path: section.path_of(&self.source.safe(name)), item: *item };
            let nearest = self.schema.nearest(&section.path, name, known);
            let help = nearest.map_or_else(
                || format!("it is ignored; known here: {}", known.join(", ")),
                |nearest| format!("it is ignored; did you mean '{nearest}'?"),
            );
            let diagnostic =
                Diagnostic { help: vec![help], ..self.about_key(Severity::Warning, &at, "is not a setting") };
            self.tell(diagnostic);
        }
        self.unmade += unknown.count();
    }
}

fn show_of(at: &Setting, tree: &Tree) -> Show {
    match tree.content(at.item) {
        Content::Scalar(_) if is_secret(&at.path) => Show::Secret,
        Content::Scalar(_) => Show::Value,
        Content::List(_) | Content::Map(_) => Show::Key,
    }
}
