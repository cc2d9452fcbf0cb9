//! One server's copy of the tree: transactions on it, with ZooKeeper's rules.
//!
//! Knows nothing of sessions' lives, connections or watches: it says which keys a transaction touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::store::{Check, Clash, CommitError, CreateMode, Op, StoreError, Transaction, Value};

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Znode {
    data: Vec<u8>,
    version: i32,
    mzxid: i64,
    /// The session whose end deletes it.
    owner: Option<u64>,
    children: BTreeSet<String>,
    /// Children ever created here: numbers sequential ones, whatever created the others.
    created: u32,
}

impl Znode {
    fn new(data: Vec<u8>, zxid: i64, owner: Option<u64>) -> Self {
        Self { data, version: 0, mzxid: zxid, owner, children: BTreeSet::new(), created: 0 }
    }

    pub(super) fn value(&self) -> Value {
        let children = u32::try_from(self.children.len()).unwrap_or(u32::MAX);
        Value { data: self.data.clone(), version: self.version, mzxid: self.mzxid, children }
    }

    pub(super) fn children(&self) -> Vec<String> {
        self.children.iter().cloned().collect()
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }
}

#[derive(Debug, Clone)]
pub(super) struct Tree {
    /// In no order that anybody may see.
    nodes: HashMap<String, Znode>,
    pub(super) zxid: i64,
}

impl Default for Tree {
    fn default() -> Self {
        let nodes = HashMap::from([("/".to_owned(), Znode::new(Vec::new(), 0, None))]);
        Self { nodes, zxid: 0 }
    }
}

/// What a transaction did, for replicas, watches and observers.
#[derive(Debug, Clone)]
pub(super) struct Applied {
    pub(super) zxid: i64,
    pub(super) created: Vec<String>,
    /// Keys to report to watches, in order.
    pub(super) events: Vec<String>,
    /// Every key that is different now.
    pub(super) changes: Vec<Changed>,
}

/// A key that is different now.
#[derive(Debug, Clone)]
pub(super) struct Changed {
    pub(super) path: String,
    pub(super) before: Option<Znode>,
    pub(super) after: Option<Znode>,
}

impl Tree {
    pub(super) fn get(&self, path: &str) -> Option<&Znode> {
        self.nodes.get(path)
    }

    /// All keys but the root, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Znode)> {
        self.nodes.iter().filter(|(path, _)| *path != "/").map(|(path, node)| (path.as_str(), node))
    }

    /// Applies all of a transaction or nothing.
    pub(super) fn apply(&mut self, txn: &Transaction, session: u64) -> Result<Applied, CommitError> {
        let mut work = Work { tree: self, session, before: BTreeMap::new(), created: vec![], events: vec![] };
        let zxid = work.tree.zxid + 1;
        for (index, op) in txn.ops.iter().enumerate() {
            if let Err(no) = work.step(op, zxid) {
                work.undo();
                return Err(no.into_error(index, op));
            }
        }
        let Work { before, created, events, .. } = work;
        let changed = |(path, before): (String, _)| {
            let after = self.nodes.get(&path).cloned();
            Changed { path, before, after }
        };
        let changes: Vec<Changed> = before.into_iter().map(changed).collect();
        if changes.is_empty() {
            return Ok(Applied { zxid: 0, created, events, changes });
        }
        self.zxid = zxid;
        Ok(Applied { zxid, created, events, changes })
    }

    /// Repeats what another copy of the tree did.
    pub(super) fn replay(&mut self, applied: &Applied) {
        for Changed { path, after, .. } in &applied.changes {
            match after {
                Some(node) => self.nodes.insert(path.clone(), node.clone()),
                None => self.nodes.remove(path),
            };
        }
        self.zxid = self.zxid.max(applied.zxid);
    }

    /// The deletions that the end of a session causes.
    pub(super) fn end_of(&self, session: u64) -> Transaction {
        let owned = self.nodes.iter().filter(|(_, node)| node.owner == Some(session));
        let owned: BTreeSet<&String> = owned.map(|(path, _)| path).collect();
        Transaction {
            ops: owned.into_iter().map(|path| Op::Delete { path: path.clone(), version: None }).collect(),
        }
    }
}

/// Why an operation is not possible.
enum No {
    Conflict(Clash),
    Refused(&'static str),
}

impl No {
    fn into_error(self, op: usize, on: &Op) -> CommitError {
        let path = on.path().to_owned();
        match self {
            Self::Conflict(clash) => CommitError::Conflict { op, path, clash },
            Self::Refused(why) => CommitError::Failed(StoreError::Refused { what: path, why: why.into() }),
        }
    }
}

struct Work<'a> {
    tree: &'a mut Tree,
    session: u64,
    before: BTreeMap<String, Option<Znode>>,
    created: Vec<String>,
    events: Vec<String>,
}

impl Work<'_> {
    fn step(&mut self, op: &Op, zxid: i64) -> Result<(), No> {
        valid(op.path())?;
        match op {
            Op::Check { path, check } => match check {
                Check::Exists => self.existing(path, None),
                Check::Version(version) => self.existing(path, Some(*version)),
            },
            Op::Set { path, data, version } => {
                self.existing(path, *version)?;
                let node = self.touch(path).ok_or(No::Conflict(Clash::Missing))?;
                node.data.clone_from(data);
                node.version += 1;
                node.mzxid = zxid;
                self.events.push(path.clone());
                Ok(())
            }
            Op::Create { path, data, mode } => self.create(path, data, *mode, zxid),
            Op::Delete { path, version } => {
                self.existing(path, *version)?;
                if path == "/" {
                    return Err(No::Refused("the root cannot be deleted"));
                }
                let busy = self.tree.nodes.get(path).is_some_and(|node| !node.children.is_empty());
                if busy {
                    return Err(No::Conflict(Clash::NotEmpty));
                }
                self.touch(path);
                self.tree.nodes.remove(path);
                let (parent, name) = split(path);
                if let Some(parent) = self.touch(parent) {
                    parent.children.remove(name);
                }
                self.events.push(path.clone());
                Ok(())
            }
        }
    }

    fn create(&mut self, path: &str, data: &[u8], mode: CreateMode, zxid: i64) -> Result<(), No> {
        if path == "/" {
            return Err(No::Conflict(Clash::Present));
        }
        let owner = (mode != CreateMode::Persistent).then_some(self.session);
        let (parent_path, name) = split(path);
        let parent = self.touch(parent_path).ok_or(No::Conflict(Clash::Missing))?;
        let name = match mode {
            CreateMode::EphemeralSequential => format!("{name}{:010}", parent.created),
            CreateMode::Persistent | CreateMode::Ephemeral => name.to_owned(),
        };
        if parent.children.contains(&name) {
            return Err(No::Conflict(Clash::Present));
        }
        if parent.owner.is_some() {
            return Err(No::Refused("ephemeral keys cannot have children"));
        }
        parent.created += 1;
        parent.children.insert(name.clone());
        let path = if parent_path == "/" { format!("/{name}") } else { format!("{parent_path}/{name}") };
        self.touch(&path);
        self.tree.nodes.insert(path.clone(), Znode::new(data.to_vec(), zxid, owner));
        self.events.push(path.clone());
        self.created.push(path);
        Ok(())
    }

    fn existing(&self, path: &str, version: Option<i32>) -> Result<(), No> {
        let node = self.tree.nodes.get(path).ok_or(No::Conflict(Clash::Missing))?;
        match version {
            Some(version) if version < 0 => Err(No::Refused("a key's version is never negative")),
            Some(version) if version != node.version => Err(No::Conflict(Clash::Changed)),
            _ => Ok(()),
        }
    }

    /// A key that is about to change; what it was is remembered.
    fn touch(&mut self, path: &str) -> Option<&mut Znode> {
        let node = self.tree.nodes.get_mut(path);
        if !self.before.contains_key(path) {
            self.before.insert(path.to_owned(), node.as_deref().cloned());
        }
        node
    }

    fn undo(self) {
        for (path, before) in self.before {
            match before {
                Some(node) => self.tree.nodes.insert(path, node),
                None => self.tree.nodes.remove(&path),
            };
        }
    }
}

/// The parent's path and the last part.
fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((parent, name)) => (parent, name),
        None => ("/", path),
    }
}

fn valid(path: &str) -> Result<(), No> {
    let parts_ok = path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    let chars_ok = !path.chars().any(char::is_control);
    if path == "/" || (path.starts_with('/') && parts_ok && chars_ok) {
        return Ok(());
    }
    Err(No::Refused("not a path"))
}
