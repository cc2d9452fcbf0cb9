//! The one writer of the view: gathers events, reads what they name in as few requests as possible, publishes.
//!
//! ```text
//! events ─▶ Dirty ─▶ names, if needed ─▶ one multi-read ─▶ Picture ─▶ view, then subjects
//!             ▲                              │ failed: later again
//!             └──────────────────────────────┘
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pvc_core::model::{ClusterView, Entry, Fence, NodeName, Problem, Vm, VmId};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::warn;

use super::{
    Figures, NotCaughtUp, Question, Status,
    dirty::{Dirty, ROOTS, Root, VmParts},
    keepalives::Keepalives,
    picture::{self, ViewBuilder},
    refused::{self, Refused},
    subscribers::Subscribers,
};
use crate::{
    Session, Store, StoreError, Watch, WatchEvent,
    schema::{
        fence, maintenance,
        node::{self, Figure},
        primary, root,
        text::field,
        vm,
    },
};

/// The events of one transaction usually arrive together: so often the connection is asked whether there are more before they
/// are read. A timer would gather more of those that come apart, and cost every change a millisecond and a wake.
const GATHER: usize = 8;
/// Objects per read: bounds memory at the first listing.
const OBJECTS_AT_ONCE: usize = 128;
/// First and longest pause after a read that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Task {
    store: Arc<dyn Store>,
    session: watch::Receiver<Session>,
    watches: [(Root, Watch); ROOTS],
    /// Roots whose last word was `Resync`. The others may have changed without a word.
    reported: BTreeSet<Root>,
    dirty: Dirty,
    /// The node that this runs on, if it is one: of its own figures none is news here.
    me: Option<NodeName>,
    keepalives: Keepalives,
    picture: ViewBuilder,
    questions: Vec<Question>,
    retry: Option<(Instant, Duration)>,
    refused: Refused,
    view: watch::Sender<Arc<ClusterView>>,
    status: watch::Sender<Status>,
    subscribers: Arc<Subscribers>,
}

impl Task {
    pub(super) fn new(
        store: Arc<dyn Store>,
        me: Option<NodeName>,
        keepalives: Keepalives,
        view: watch::Sender<Arc<ClusterView>>,
        status: watch::Sender<Status>,
        subscribers: Arc<Subscribers>,
    ) -> Self {
        Self {
            session: store.session(),
            watches: Root::ALL.map(|root| (root, store.watch(root.path()))),
            store,
            reported: BTreeSet::new(),
            dirty: Dirty::default(),
            me,
            keepalives,
            picture: ViewBuilder::default(),
            questions: Vec::new(),
            retry: None,
            refused: Refused::default(),
            view,
            status,
            subscribers,
        }
    }

    /// Runs until the mirror is dropped or the store closed.
    pub(super) async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Question>) {
        loop {
            let (retry, again_at) = (self.retry, self.refused.again_at());
            let hurry = tokio::select! {
                biased;
                question = asked.recv() => match question {
                    Some(question) => {
                        self.questions.push(question);
                        true
                    }
                    None => break,
                },
                event = next_event(&mut self.watches) => match event {
                    Some((root, event)) => {
                        self.note(root, event);
                        false
                    }
                    None => break,
                },
                () = sleep_until(retry.map_or_else(Instant::now, |(at, _)| at)), if retry.is_some() => true,
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {
                    let refused = self.refused.take();
                    self.dirty.merge(refused);
                    true
                }
            };
            if !hurry {
                self.gather().await;
            }
            if !self.note_all() {
                break;
            }
            self.refresh().await;
            self.answer();
        }
        self.not_current();
    }

    /// Waits as long as more events come without waiting for them.
    async fn gather(&mut self) {
        for _ in 0..GATHER {
            tokio::task::yield_now().await;
            if self.watches.iter().all(|(_, watch)| watch.is_empty()) {
                return;
            }
            // A store that is closed is noticed by whoever waits for the next event.
            self.note_all();
        }
    }

    /// Notes what is queued; false if the store is closed.
    fn note_all(&mut self) -> bool {
        for i in 0..self.watches.len() {
            loop {
                let (root, watch) = &mut self.watches[i];
                let root = *root;
                match watch.try_recv() {
                    Ok(event) => self.note(root, event),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return false,
                }
            }
        }
        true
    }

    fn note(&mut self, root: Root, event: WatchEvent) {
        match event {
            WatchEvent::Changed(path) => {
                let waits = root == Root::Nodes && self.note_figure(&path);
                if !waits {
                    self.dirty.key(root, &path);
                }
            }
            WatchEvent::Resync => {
                self.reported.insert(root);
                self.dirty.everything(root);
            }
            WatchEvent::Interrupted => {
                self.reported.remove(&root);
                self.not_current();
            }
        }
    }

    /// Notes a figure of a node; whether it is read only when somebody asks for it, or in the node's own case together with something
    /// else. While there is a fence it is seen from each keepalive who lives, and since when what runs where is told.
    fn note_figure(&mut self, path: &str) -> bool {
        let Some((name, figure)) = node::figure(path) else { return false };
        let Ok(name) = name.parse::<NodeName>() else { return false };
        let mine = self.me.as_ref() == Some(&name);
        let waits = mine || (figure != Figure::Lasting && self.picture.view().fences.is_empty());
        if figure == Figure::Keepalive {
            self.keepalives.heard(name.clone());
        }
        if waits {
            self.keepalives.is_unread(name);
        }
        waits
    }

    /// What was asked for and not read yet.
    fn unread(&self) -> BTreeSet<NodeName> {
        let unread = self.keepalives.unread();
        let asked = |name: &&NodeName| self.questions.iter().any(|question| question.figures.are_of(name));
        let mut due: BTreeSet<NodeName> = unread.iter().filter(asked).cloned().collect();
        let of_others = |question: &Question| matches!(question.figures, Figures::Of(_));
        if !self.dirty.is_empty() || !self.questions.iter().all(of_others) {
            due.extend(self.me.iter().filter(|me| unread.contains(*me)).cloned());
        }
        due
    }

    /// Reads what is dirty and publishes what differs. On failure it stays dirty.
    async fn refresh(&mut self) {
        let unread = self.unread();
        self.dirty.nodes.extend(unread);
        while !self.dirty.is_empty() {
            let mut dirty = std::mem::take(&mut self.dirty);
            let outcome = self.read(&mut dirty).await;
            self.publish();
            if let Err(error) = outcome {
                self.dirty.merge(dirty);
                let pause = self.retry.map_or(FIRST_PAUSE, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
                if self.retry.is_none() {
                    warn!("the view of the cluster is not up to date: {error}: trying again");
                }
                self.retry = Some((Instant::now() + pause, pause));
                self.not_current();
                break;
            }
            self.retry = None;
        }
        if self.dirty.is_empty() && self.reported.len() == ROOTS {
            self.status_is(Status { ready: true, current: true });
        }
    }

    fn not_current(&self) {
        let Status { ready, current } = *self.status.borrow();
        if current {
            self.keepalives.gap();
        }
        self.status_is(Status { ready, current: false });
    }

    fn status_is(&self, now: Status) {
        if self.status.send_if_modified(|status| std::mem::replace(status, now) != now) {
            self.subscribers.lock().tell_all();
        }
    }

    fn publish(&mut self) {
        let Some((view, changed)) = self.picture.take_changes() else { return };
        let mut subscribers = self.subscribers.lock();
        let view = Arc::new(view);
        self.view.send_replace(Arc::clone(&view));
        subscribers.tell(&changed, &view);
    }

    /// Answers the questions that can be answered now.
    fn answer(&mut self) {
        let outcome = if !self.session.borrow().is_healthy() {
            Err(NotCaughtUp("the connection to the state store is lost"))
        } else if self.dirty.is_empty() && self.status.borrow().current {
            Ok(())
        } else {
            // Being listed again: the answer comes with it.
            self.questions.retain(|question| !question.answer.is_closed());
            return;
        };
        for question in self.questions.drain(..) {
            let _asker_may_be_gone = question.answer.send(outcome.clone());
        }
    }

    /// Reads what is dirty, and what becomes so meanwhile, which is added.
    async fn read(&mut self, dirty: &mut Dirty) -> Result<(), StoreError> {
        let mut placement = None;
        if std::mem::take(&mut dirty.single) {
            placement = match self.read_single().await {
                Ok(version) => Some(version),
                Err(error) => {
                    dirty.single = true;
                    return Err(error);
                }
            };
            // The view must not show a placement without the VMs that were placed: their events are here by now.
            self.store.show_events().await;
            self.note_all();
            let mut meanwhile = std::mem::take(&mut self.dirty);
            // Read in the next round: a writer that is faster than a round must not keep the view from being published.
            self.dirty.single = std::mem::take(&mut meanwhile.single);
            dirty.merge(meanwhile);
        }
        if let Err(error) = self.read_all(dirty.clone()).await {
            dirty.single |= placement.is_some();
            return Err(error);
        }
        if let Some(version) = placement
            && self.reported.len() == ROOTS
        {
            self.picture.set_placement(version);
        }
        Ok(())
    }

    async fn read_all(&mut self, mut dirty: Dirty) -> Result<(), StoreError> {
        self.read_names(&mut dirty).await?;
        let fences = if dirty.fences { Some(self.read_fences().await?) } else { None };
        if fences.as_ref().is_some_and(|fences| !fences.is_empty()) {
            // A fence is about a keepalive. Shown beside an older one it would look as if its node had spoken since.
            self.store.show_events().await;
            self.note_all();
            dirty.nodes.extend(self.keepalives.unread().iter().cloned());
        }
        let nodes: Vec<NodeName> = std::mem::take(&mut dirty.nodes).into_iter().collect();
        for id in std::mem::take(&mut dirty.claims) {
            dirty.vms.entry(id).or_default();
        }
        let vms: Vec<(VmId, VmParts)> = std::mem::take(&mut dirty.vms).into_iter().collect();
        let vms: Vec<(VmId, VmParts)> = vms.into_iter().map(|(id, parts)| (self.known(id), parts)).collect();
        // The usual few of both together: one request.
        let mut nodes = nodes.chunks(OBJECTS_AT_ONCE);
        let mut vms = vms.chunks(OBJECTS_AT_ONCE);
        loop {
            let (some_nodes, some_vms) = (nodes.next().unwrap_or_default(), vms.next().unwrap_or_default());
            if some_nodes.is_empty() && some_vms.is_empty() {
                break;
            }
            self.read_objects(some_nodes, some_vms).await?;
        }
        if let Some(fences) = fences {
            self.picture.set_fences(fences);
        }
        Ok(())
    }

    /// Lists names where needed; what is to be read becomes dirty, what is gone is removed.
    async fn read_names(&mut self, dirty: &mut Dirty) -> Result<(), StoreError> {
        let roots: Vec<Root> = dirty.everything_in.union(&dirty.names_in).copied().collect();
        if roots.is_empty() {
            return Ok(());
        }
        let paths: Vec<String> = roots.iter().map(|root| root.path().to_owned()).collect();
        let lists = self.store.children_many(&paths).await?;
        for (root, names) in roots.into_iter().zip(lists) {
            let all = dirty.everything_in.contains(&root);
            let names = names.unwrap_or_default();
            match root {
                Root::Vms => self.sort_vms(&names, all, dirty),
                Root::Claims => self.sort_claims(&names, all, dirty),
                _ => self.sort_nodes(&names, all, dirty),
            }
        }
        Ok(())
    }

    fn sort_vms(&mut self, names: &[String], all: bool, dirty: &mut Dirty) {
        let (listed, strays) = vm::ids(names);
        let known = &self.picture.view().vms;
        let stays = |id: &VmId| listed.get(id).is_some_and(|listed| listed.is_spelled_as(*id));
        let gone: Vec<VmId> = known.keys().filter(|id| !stays(id)).copied().collect();
        for id in &listed {
            if all || !known.contains_key(id) || gone.contains(id) {
                // Under the spelling that is listed.
                dirty.vms.remove(id);
                dirty.vm(*id, VmParts { xml: true });
            }
        }
        for id in gone {
            // One that is created right now is reported, and read, after this.
            self.picture.set_vm(id, None);
            dirty.claims.insert(id);
        }
        self.picture.set_strays(Root::Vms, strays);
    }

    fn sort_claims(&mut self, names: &[String], all: bool, dirty: &mut Dirty) {
        let (mut strays, mut listed) = (Vec::new(), BTreeSet::new());
        for name in names {
            match vm::claimed(name) {
                Ok(id) => drop(listed.insert(id)),
                Err(why) => strays.push(picture::stray(Root::Claims, name, why)),
            }
        }
        let view = self.picture.view();
        let claimed = view.good_vms().filter(|vm| vm.claim.version.is_some()).map(|vm| vm.id);
        let known: BTreeSet<VmId> = claimed.chain(view.orphan_claims.keys().copied()).collect();
        if all {
            dirty.claims.extend(&listed);
        }
        dirty.claims.extend(known.symmetric_difference(&listed));
        self.picture.set_strays(Root::Claims, strays);
    }

    fn sort_nodes(&mut self, names: &[String], all: bool, dirty: &mut Dirty) {
        let (mut strays, mut listed) = (Vec::new(), BTreeSet::new());
        for name in names {
            match name.parse::<NodeName>() {
                Ok(name) => drop(listed.insert(name)),
                Err(why) => strays.push(picture::stray(Root::Nodes, name, why)),
            }
        }
        let known = &self.picture.view().nodes;
        let gone: Vec<NodeName> = known.keys().filter(|name| !listed.contains(name)).cloned().collect();
        for name in listed {
            if all || !known.contains_key(&name) {
                dirty.nodes.insert(name);
            }
        }
        for name in gone {
            self.keepalives.forget(&name);
            self.picture.set_node(&name, None);
        }
        self.picture.set_strays(Root::Nodes, strays);
    }

    /// A VM in the spelling of the key that is its own. If another key of the same UUID has changed, the names tell which that is.
    fn known(&mut self, id: VmId) -> VmId {
        match self.picture.view().vms.get_key_value(&id) {
            Some((known, _)) if !known.is_spelled_as(id) => {
                let known = *known;
                self.dirty.names_in.insert(Root::Vms);
                known
            }
            _ => id,
        }
    }

    /// Reads the keys that stand for themselves; answers with the version of the placement, which is not shown yet.
    async fn read_single(&mut self) -> Result<Option<i32>, StoreError> {
        let paths = Root::SINGLE.map(|root| root.path().to_owned());
        let values = self.store.get_many(&paths).await?;
        let value = |root: Root| {
            let i = Root::SINGLE.iter().position(|r| *r == root)?;
            values.get(i).and_then(Option::as_ref)
        };
        self.picture.set_networks_count(value(Root::Networks).map_or(0, |v| v.children).into());
        let desired = value(Root::Primary);
        match root::decode_primary(desired) {
            Ok(node) => self.picture.set_primary(field(node, desired), None),
            Err(problem) => self.picture.set_primary(field(None, desired), Some::<Problem>(problem)),
        }
        self.picture.set_holder(primary::decode_holder(value(Root::Holder)));
        let (on, problem) = maintenance::decode(value(Root::Maintenance));
        self.picture.set_maintenance(on, problem);
        Ok(value(Root::Placement).map(|v| v.version))
    }

    async fn read_fences(&mut self) -> Result<BTreeMap<NodeName, Entry<Fence>>, StoreError> {
        let names = self.store.children(fence::ROOT).await?.unwrap_or_default();
        let (mut strays, mut nodes) = (Vec::new(), Vec::new());
        for name in names {
            match name.parse::<NodeName>() {
                Ok(name) => nodes.push(name),
                Err(why) => strays.push(picture::stray(Root::Fences, &name, why)),
            }
        }
        let mut fences = BTreeMap::new();
        for name in nodes {
            let values = self.store.get_many(&fence::paths(&name)).await;
            let outcome = values.as_ref().map(drop).map_err(Clone::clone);
            let read = match refused::keys(&*self.store, outcome, fence::paths(&name)).await? {
                Some(problems) => {
                    self.refused.fences();
                    Some(Entry::Bad(problems))
                }
                None => {
                    let values = values?;
                    let value = |n: usize| values.get(n).and_then(Option::as_ref);
                    fence::decode(&name, value(0), value(1))
                }
            };
            if let Some(entry) = read {
                fences.insert(name, entry);
            }
        }
        self.picture.set_strays(Root::Fences, strays);
        Ok(fences)
    }

    async fn read_objects(&mut self, nodes: &[NodeName], vms: &[(VmId, VmParts)]) -> Result<(), StoreError> {
        let unread: Vec<&NodeName> = nodes.iter().filter(|name| self.keepalives.reads(name)).collect();
        let before: Vec<Option<i32>> = nodes.iter().map(|name| self.keepalive_version(name)).collect();
        let outcome = self.read_objects_now(nodes, vms).await;
        if outcome.is_err() {
            for name in unread {
                self.keepalives.is_unread(name.clone());
            }
            return outcome;
        }
        for (name, before) in nodes.iter().zip(before) {
            if self.picture.view().node(name).is_none() {
                self.keepalives.forget(name);
                continue;
            }
            // Of this one no event has told.
            if before.is_some() && !unread.contains(&name) && self.keepalive_version(name) != before {
                self.keepalives.heard(name.clone());
            }
        }
        Ok(())
    }

    fn keepalive_version(&self, name: &NodeName) -> Option<i32> {
        self.picture.view().node(name)?.keepalive_version
    }

    /// A key that the store refuses to show costs its object, and nobody else.
    async fn read_objects_now(
        &mut self,
        nodes: &[NodeName],
        vms: &[(VmId, VmParts)],
    ) -> Result<(), StoreError> {
        let together = self.read_together(nodes, vms).await;
        if !matches!(together, Err(StoreError::Refused { .. })) {
            return together;
        }
        for name in nodes {
            match self.read_together(std::slice::from_ref(name), &[]).await {
                Err(StoreError::Refused { .. }) => {
                    self.refused.node(name);
                    self.picture.set_node(name, node::read_key_by_key(&*self.store, name).await?);
                }
                outcome => outcome?,
            }
        }
        for (id, parts) in vms {
            let outcome = self.read_together(&[], &[(*id, *parts)]).await;
            if let Some(problems) = refused::keys(&*self.store, outcome, vm::paths(*id)).await? {
                self.refused.vm(*id);
                let vm = vm::read_key_by_key(&*self.store, *id).await?;
                self.picture.set_orphan_claim(*id, vm.is_none().then_some(Entry::Bad(problems)));
                self.picture.set_vm(*id, vm.map(Entry::Good));
            }
        }
        Ok(())
    }

    async fn read_together(&mut self, nodes: &[NodeName], vms: &[(VmId, VmParts)]) -> Result<(), StoreError> {
        let node_paths = nodes.iter().flat_map(node::paths);
        let paths: Vec<String> = node_paths.chain(vms.iter().flat_map(|(id, _)| vm::paths(*id))).collect();
        // The version of a definition is kept from the last reading unless it may have changed.
        let kept = |id: VmId| self.picture.view().vm(id).map(|vm| vm.xml_version);
        let looked_at: Vec<VmId> =
            vms.iter().filter(|(id, parts)| parts.xml || kept(*id).is_none()).map(|(id, _)| *id).collect();
        let xml_paths: Vec<String> = looked_at.iter().map(|id| vm::xml_path(*id)).collect();
        let (values, stats) = tokio::try_join!(self.store.get_many(&paths), self.stats(&xml_paths))?;

        let mut values = values.as_slice();
        for name in nodes {
            let (own, rest) = values.split_at(node::READ_KEYS.min(values.len()));
            values = rest;
            self.picture.set_node(name, node::decode(name, own));
        }
        for (id, _) in vms {
            let (own, rest) = values.split_at(vm::READ_KEYS.min(values.len()));
            values = rest;
            let xml_version = match looked_at.binary_search(id) {
                Ok(i) => stats.get(i).copied().flatten().map(|stat| stat.version),
                Err(_) => self.picture.view().vm(*id).and_then(|vm: &Vm| vm.xml_version),
            };
            let entry: Option<Entry<Vm>> = vm::decode(*id, own, xml_version);
            if entry.is_none() && self.picture.has_strays(Root::Vms) {
                // A key that spells the same UUID in another way is the VM's from now on.
                self.dirty.names_in.insert(Root::Vms);
            }
            let orphan = if entry.is_none() { vm::decode_claim(*id, own) } else { None };
            self.picture.set_vm(*id, entry);
            self.picture.set_orphan_claim(*id, orphan);
        }
        Ok(())
    }

    async fn stats(&self, paths: &[String]) -> Result<Vec<Option<crate::Stat>>, StoreError> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        self.store.stat_many(paths).await
    }
}

/// The next event of any watch; `None` if the store is closed.
async fn next_event(watches: &mut [(Root, Watch); ROOTS]) -> Option<(Root, WatchEvent)> {
    poll_fn(|cx: &mut Context<'_>| {
        for (root, watch) in watches.iter_mut() {
            if let Poll::Ready(event) = watch.poll_recv(cx) {
                return Poll::Ready(event.map(|event| (*root, event)));
            }
        }
        Poll::Pending
    })
    .await
}
