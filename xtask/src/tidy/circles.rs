//! No two modules beside each other import each other, not even by a way around. What a module and its own children share is theirs.
//!
//! Reads `use` and paths that begin with `crate`, `super` or `self`. Tests are free.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result};
use syn::{
    Attribute, Item, ItemMod, ItemUse, UseTree, Visibility,
    visit::{self, Visit},
};

use super::Finding;

/// A module's path below its crate.
type Module = Vec<String>;

/// Who imports what: module, module, and one path that does.
type Imports = BTreeMap<(Module, Module), String>;

pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for krate in fs::read_dir(root.join("crates"))? {
        let folder = krate?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut files = BTreeMap::new();
        read(&folder.join("src"), &mut Vec::new(), &mut files)?;
        findings.extend(circles(&imports(&files)).into_iter().map(|(place, fault)| Finding {
            place: [name.clone()].into_iter().chain(place).collect::<Vec<_>>().join("::"),
            fault,
        }));
    }
    Ok(findings)
}

fn read(folder: &Path, at: &mut Module, files: &mut BTreeMap<Module, syn::File>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            at.push(name);
            read(&path, at, files)?;
            at.pop();
        } else if path.extension().is_some_and(|e| e == "rs") {
            let module = match &*name {
                "lib" | "main" => at.clone(),
                _ => at.iter().cloned().chain([name]).collect(),
            };
            let file = syn::parse_file(&fs::read_to_string(&path)?)
                .with_context(|| format!("{} is not Rust", path.display()))?;
            // A crate may be a library and a program: the library's modules are what the program imports by the crate's name.
            files.entry(module).or_insert(file);
        }
    }
    Ok(())
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("cfg") && a.parse_args::<syn::Path>().is_ok_and(|what| what.is_ident("test"))
    })
}

/// What one file names, and what it hands on from its children under a shorter path.
#[derive(Default)]
struct Named {
    paths: Vec<Vec<String>>,
    handed_on: Vec<Vec<String>>,
    tests: Vec<String>,
}

fn flatten(tree: &UseTree, before: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, out);
            before.pop();
        }
        UseTree::Name(name) => out.push(before.iter().cloned().chain([name.ident.to_string()]).collect()),
        UseTree::Rename(name) => out.push(before.iter().cloned().chain([name.ident.to_string()]).collect()),
        UseTree::Glob(_) => out.push(before.clone()),
        UseTree::Group(group) => group.items.iter().for_each(|item| flatten(item, before, out)),
    }
}

impl<'ast> Visit<'ast> for Named {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Mod(ItemMod { attrs, ident, content, .. }) if is_test(attrs) => {
                if content.is_none() {
                    self.tests.push(ident.to_string());
                }
            }
            Item::Impl(item) if is_test(&item.attrs) => {}
            Item::Fn(item) if is_test(&item.attrs) => {}
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if is_test(&item.attrs) {
            return;
        }
        let mut paths = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut paths);
        if !matches!(item.vis, Visibility::Inherited) {
            self.handed_on.extend(paths.iter().cloned());
        }
        self.paths.extend(paths);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if matches!(&*names[0], "crate" | "super" | "self") {
            self.paths.push(names);
        }
        visit::visit_path(self, path);
    }
}

fn imports(files: &BTreeMap<Module, syn::File>) -> Imports {
    let named: BTreeMap<&Module, Named> = files
        .iter()
        .map(|(module, file)| {
            let mut named = Named::default();
            named.visit_file(file);
            (module, named)
        })
        .collect();
    let mut origins: BTreeMap<Module, Module> = BTreeMap::new();
    for (module, named) in &named {
        for path in &named.handed_on {
            let path = path.strip_prefix(&["self".to_owned()][..]).unwrap_or(path);
            if let (Some(first), Some(last)) = (path.first(), path.last()) {
                let child: Module = module.iter().chain([first]).cloned().collect();
                if files.contains_key(&child) {
                    origins.insert(module.iter().chain([last]).cloned().collect(), child);
                }
            }
        }
    }
    let tests: BTreeSet<Module> = named
        .iter()
        .flat_map(|(module, named)| {
            named.tests.iter().map(|test| module.iter().chain([test]).cloned().collect::<Module>())
        })
        .collect();
    let is_free = |module: &Module| tests.iter().any(|test| module.starts_with(test));
    let mut imports = Imports::new();
    for (module, named) in named.iter().filter(|(module, _)| !is_free(module)) {
        for path in &named.paths {
            if let Some(to) = resolve(module, path, files, &origins)
                && to != **module
                && !is_free(&to)
            {
                imports.entry(((*module).clone(), to)).or_insert_with(|| path.join("::"));
            }
        }
    }
    imports
}

/// The module that a path leads into, if it is one of this crate.
fn resolve(
    from: &Module,
    path: &[String],
    files: &BTreeMap<Module, syn::File>,
    origins: &BTreeMap<Module, Module>,
) -> Option<Module> {
    let mut at = from.clone();
    let mut rest = path;
    match &**rest.first()? {
        "crate" => {
            at.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|name| name == "super") {
                at.pop()?;
                rest = &rest[1..];
            }
        }
        first => {
            let child: Module = from.iter().map(String::as_str).chain([first]).map(str::to_owned).collect();
            files.get(&child)?;
        }
    }
    for name in rest {
        let next: Module = at.iter().chain([name]).cloned().collect();
        if files.contains_key(&next) {
            at = next;
        } else {
            return Some(origins.get(&next).cloned().unwrap_or(at));
        }
    }
    Some(at)
}

/// Each pair of neighbours of which one reaches the other and is reached by it, where they are, and by what.
fn circles(imports: &Imports) -> Vec<(Module, String)> {
    let mut beside: BTreeMap<Module, BTreeMap<(&str, &str), String>> = BTreeMap::new();
    for ((from, to), path) in imports {
        let shared = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        if let (Some(a), Some(b)) = (from.get(shared), to.get(shared)) {
            let seen = beside.entry(from[..shared].to_vec()).or_default();
            seen.entry((a, b)).or_insert_with(|| format!("{} uses {path}", from.join("::")));
        }
    }
    let mut found = Vec::new();
    for (parent, edges) in beside {
        let closes = |(from, to): (&str, &str)| {
            let (mut seen, mut todo) = (BTreeSet::new(), vec![to]);
            while let Some(module) = todo.pop() {
                if seen.insert(module) {
                    todo.extend(edges.keys().filter(|(a, _)| *a == module).map(|(_, b)| *b));
                }
            }
            seen.contains(from)
        };
        for (edge, why) in &edges {
            if closes(*edge) {
                let fault = format!("{} imports {}, which leads back to it ({why})", edge.0, edge.1);
                found.push((parent.clone(), fault));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let parse = |(name, text): &(&str, &str)| {
            let module = name.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
            (module, syn::parse_file(text).unwrap())
        };
        circles(&imports(&files.iter().map(parse).collect())).into_iter().map(|(_, fault)| fault).collect()
    }

    #[test]
    fn two_neighbours_that_import_each_other_are_found_by_whatever_way() {
        let [there, back] = &found(&[("", ""), ("a", "use crate::b::X;"), ("b", "use super::a::Y;")])[..]
        else {
            panic!()
        };
        assert!(there.starts_with("a imports b") && back.starts_with("b imports a"), "{there} {back}");
        let around = found(&[
            ("", "pub use b::{X, Z as W};"),
            ("a", "use crate::X;"),
            ("b::deep", "fn f() { crate::c::g() }"),
            ("b", "mod deep;"),
            ("c", "use crate::{a::{Y, self}};"),
        ]);
        assert_eq!(around.len(), 3, "{around:?}");
    }

    #[test]
    fn parents_children_tests_and_other_crates_make_no_circle() {
        let free = found(&[
            ("", "mod a; mod b; #[cfg(test)] mod tests;"),
            ("a", "mod part; pub use part::P; use std::fmt; #[cfg(test)] mod tests { use crate::b::B; }"),
            ("a::part", "use super::Q;"),
            ("b", "use crate::{a::P, tests::T};"),
            ("tests", "use crate::{a, b};"),
        ]);
        assert_eq!(free, [""; 0]);
    }
}
