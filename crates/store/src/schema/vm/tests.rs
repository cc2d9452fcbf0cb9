//! VMs: both directions, what is written under which conditions, rubbish.

use std::sync::Arc;

use proptest::{collection::btree_set, option, prelude::*};
use pvc_core::model::{Claim, Entry, Field, NodeName, Vm, VmChange, VmSet, VmState};

use super::*;
use crate::{
    CommitError, CreateMode, Op, Value,
    memory::{MemoryStore, MemoryTree},
};

fn id() -> VmId {
    "11111111-0000-4000-8000-000000000001".parse().unwrap()
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn define() -> VmChange {
    VmChange::Define {
        id: id(),
        name: "web".parse().unwrap(),
        node: node("node1"),
        xml: "<domain/>".into(),
        rbd_images: vec!["vms/web_sda".into(), "vms/web_sdb".into()],
    }
}

async fn defined() -> (Arc<MemoryStore>, MemoryTree) {
    let tree = MemoryTree::new();
    let store = tree.client();
    crate::schema::root::init(&*store).await.unwrap();
    apply(&*store, &define()).await.unwrap();
    (store, tree)
}

async fn good(store: &dyn Store) -> Vm {
    match read(store, id()).await.unwrap() {
        Some(Entry::Good(vm)) => vm,
        other => panic!("{other:?}"),
    }
}

async fn write(store: &dyn Store, ops: Vec<Op>) {
    store.commit(Transaction { ops }).await.unwrap();
}

fn key(key: &str) -> String {
    if key == "claim" { key_path(id(), VmKey::Claim) } else { format!("{}/{key}", path(id())) }
}

fn set(key: &str, data: &str) -> Op {
    Op::Set { path: self::key(key), data: data.into(), version: None }
}

fn delete(key: &str) -> Op {
    Op::Delete { path: self::key(key), version: None }
}

fn create(key: &str) -> Op {
    Op::Create { path: self::key(key), data: vec![], mode: CreateMode::Persistent }
}

fn claimed_by(claim: &str) -> VmChange {
    VmChange::Update { id: id(), expect: vec![], set: vec![VmSet::Claim(claim.parse().unwrap())] }
}

#[tokio::test]
async fn a_definition_creates_every_key_of_the_contract_and_is_read_back() {
    let (store, _) = defined().await;
    let mut keys = store.children(&path(id())).await.unwrap().unwrap();
    keys.sort();
    assert_eq!(keys, ["consolelog", "failedreason", "lastnode", "node", "rbdlist", "state", "xml"]);
    let vm = good(&*store).await;
    assert_eq!((vm.name.as_str(), vm.state.value, vm.node.value), ("web", VmState::Stop, node("node1")));
    assert_eq!((vm.last_node.value, vm.failed_reason.value.as_str()), (None, ""));
    assert_eq!(vm.rbd_images, ["vms/web_sda", "vms/web_sdb"]);
    assert_eq!((vm.claim.value, vm.claim.version, vm.xml_version), (Claim::none(), None, Some(0)));
    assert_eq!(read_xml(&*store, id()).await.unwrap(), Some(("<domain/>".into(), 0)));
    let again = apply(&*store, &define()).await;
    assert!(matches!(again, Err(CommitError::Conflict { op: 0, .. })), "defined once: {again:?}");
}

#[tokio::test]
async fn an_update_is_done_only_while_every_key_it_was_decided_from_stands() {
    let (store, tree) = defined().await;
    write(&*store, vec![create("claim")]).await;
    let seen = good(&*store).await;
    let keys = [VmKey::State, VmKey::Node, VmKey::Claim, VmKey::Xml, VmKey::LastNode, VmKey::FailedReason];
    for (n, moved) in ["state", "node", "claim", "xml", "lastnode", "failedreason"].into_iter().enumerate() {
        let seen = good(&*store).await;
        write(&*store, vec![set(moved, if moved == "state" { "start" } else { "node1" })]).await;
        let before = tree.dump();
        let change = VmChange::update(&seen, &keys, vec![VmSet::Claim(Claim::only(&node("node2")))]);
        let outcome = apply(&*store, &change).await;
        let Err(CommitError::Conflict { path, .. }) = outcome else { panic!("{n} {moved}: {outcome:?}") };
        assert_eq!(path, key(moved));
        assert_eq!(tree.dump(), before);
    }
    let fresh = good(&*store).await;
    assert!(fresh.state.zxid > seen.state.zxid);
    let desired = vec![VmSet::State(VmState::Shutdown), VmSet::Node(node("node3"))];
    apply(&*store, &VmChange::update(&fresh, &keys, desired)).await.unwrap();
    let vm = good(&*store).await;
    assert_eq!((vm.state.value, vm.node.value), (VmState::Shutdown, node("node3")));
    assert_eq!(vm.state.version, fresh.state.version.map(|v| v + 1), "one write, one version");
}

#[tokio::test]
async fn keys_that_older_clients_leave_out_are_empty_and_come_with_their_first_write() {
    let (store, _) = defined().await;
    write(&*store, ["lastnode", "failedreason", "rbdlist", "xml"].map(delete).into()).await;
    let vm = good(&*store).await;
    assert_eq!((vm.claim.version, vm.claim.value.is_empty(), vm.xml_version), (None, true, None));
    // Decided from its absence, and not decided from it at all.
    let set = vec![VmSet::Claim(Claim::only(&node("node1"))), VmSet::FailedReason("no".into())];
    let change = VmChange::update(&vm, &[VmKey::Claim, VmKey::Xml], set);
    apply(&*store, &change).await.unwrap();
    let vm = good(&*store).await;
    assert!(vm.claim.value.is_only(&node("node1")));
    assert_eq!(vm.failed_reason.value, "no");
    assert_eq!(vm.xml_version, None, "the check of absence leaves nothing behind");
    let late = apply(&*store, &change).await;
    assert!(matches!(late, Err(CommitError::Conflict { .. })), "no longer absent: {late:?}");
}

#[tokio::test]
async fn a_claim_outlives_its_vm_unless_it_names_nobody() {
    let (store, tree) = defined().await;
    apply(&*store, &claimed_by("node1")).await.unwrap();
    // As clients of the 0.5 generation do: everything below the VM, then the VM.
    let subtree = crate::put::subtree(&*store, &path(id())).await.unwrap().unwrap();
    for path in subtree.leaves_first {
        write(&*store, vec![Op::Delete { path, version: None }]).await;
    }
    assert_eq!(read(&*store, id()).await.unwrap(), None);
    apply(&*store, &define()).await.unwrap();
    let vm = good(&*store).await;
    assert!(vm.claim.value.is_only(&node("node1")), "defined anew, and claimed as before");

    apply(&*store, &VmChange::remove(&vm, &[VmKey::State])).await.unwrap();
    assert_eq!(tree.dump()[&key("claim")], b"node1", "whatever is removed");
    apply(&*store, &define()).await.unwrap();
    apply(&*store, &claimed_by("")).await.unwrap();
    let stale = apply(&*store, &VmChange::remove(&vm, &[VmKey::Claim])).await;
    assert!(matches!(stale, Err(CommitError::Conflict { .. })), "{stale:?}");
    let free = good(&*store).await;
    apply(&*store, &VmChange::remove(&free, &[VmKey::Claim])).await.unwrap();
    assert!(!tree.dump().contains_key(&key("claim")));
}

#[tokio::test]
async fn the_claim_of_a_vm_that_is_gone_is_released_unless_the_vm_is_back() {
    let (store, tree) = defined().await;
    apply(&*store, &claimed_by("node1 node2")).await.unwrap();
    let vm = good(&*store).await;
    let release = |seen: &Field<Claim>, n| VmChange::orphan(id(), seen, &node(n));
    let back = apply(&*store, &release(&vm.claim, "node1")).await;
    assert!(matches!(back, Err(CommitError::Conflict { op: 0, .. })), "{back:?}");
    apply(&*store, &VmChange::remove(&vm, &[])).await.unwrap();
    apply(&*store, &release(&vm.claim, "node1")).await.unwrap();
    assert_eq!(tree.dump()[&key("claim")], b"node2");
    let late = apply(&*store, &release(&vm.claim, "node2")).await;
    assert!(matches!(late, Err(CommitError::Conflict { .. })), "{late:?}");
    let values = store.get_many(&paths(id())).await.unwrap();
    let Some(Entry::Good(seen)) = decode_claim(id(), &values) else { panic!("{values:?}") };
    apply(&*store, &release(&seen, "node2")).await.unwrap();
    assert!(!tree.dump().contains_key(&key("claim")) && !tree.dump().contains_key(&path(id())));
}

#[tokio::test]
async fn a_removal_takes_everything_below_with_it_or_nothing() {
    let (store, tree) = defined().await;
    let bare = MemoryTree::new();
    crate::schema::root::init(&*bare.client()).await.unwrap();
    let seen = good(&*store).await;
    write(&*store, vec![create("foreign"), create("foreign/deeper"), create("x__lock__0000000001")]).await;
    let why = Explanation {
        by: "node1".into(),
        at_unix_s: 1,
        doing: "waiting".into(),
        because: "desired state is start".into(),
        error: None,
    };
    explain::write(&*store, &Subject::Vm(id()), Some(&why)).await.unwrap();
    assert_eq!(read_explanation(&*store, id()).await.unwrap(), Some(Ok(why)));

    write(&*store, vec![set("state", "start")]).await;
    let stale = apply(&*store, &VmChange::remove(&seen, &[VmKey::State])).await;
    assert!(matches!(stale, Err(CommitError::Conflict { .. })), "{stale:?}");
    let fresh = good(&*store).await;
    apply(&*store, &VmChange::remove(&fresh, &[VmKey::State, VmKey::Claim])).await.unwrap();
    assert_eq!(tree.dump(), bare.dump(), "nothing is left, the explanation neither");
    apply(&*store, &VmChange::Remove { id: id(), expect: vec![] }).await.unwrap();
    let gone = apply(&*store, &VmChange::remove(&fresh, &[VmKey::State])).await;
    assert!(matches!(gone, Err(CommitError::Conflict { .. })), "{gone:?}");
}

#[tokio::test]
async fn an_explanation_is_replaced_and_taken_back_any_number_of_times() {
    let (store, tree) = defined().await;
    let say = |doing: &str| Explanation {
        by: "node1".into(),
        at_unix_s: 1,
        doing: doing.into(),
        because: String::new(),
        error: Some("no".into()),
    };
    for doing in ["one", "two"] {
        explain::write(&*store, &Subject::Vm(id()), Some(&say(doing))).await.unwrap();
        assert_eq!(read_explanation(&*store, id()).await.unwrap(), Some(Ok(say(doing))));
    }
    for _ in 0..2 {
        explain::write(&*store, &Subject::Vm(id()), None).await.unwrap();
        assert_eq!(read_explanation(&*store, id()).await.unwrap(), None);
    }
    let create = Op::Create {
        path: crate::schema::explain::vm_path(id()),
        data: b"rubbish".into(),
        mode: CreateMode::Persistent,
    };
    write(&*store, vec![create]).await;
    assert!(matches!(read_explanation(&*store, id()).await.unwrap(), Some(Err(_))));
    assert!(tree.dump().contains_key(&crate::schema::explain::vm_path(id())));
}

#[tokio::test]
async fn a_console_log_is_replaced() {
    let (store, _) = defined().await;
    store.commit(console_log(id(), "login: ")).await.unwrap();
    assert_eq!(read_console_log(&*store, id()).await.unwrap(), "login: ");
}

/// The keys hold this, and are read as these: `state`, `node`, `lastnode`, claim; and are not what they hold.
async fn read_as(keys: [&str; 4], words: [&str; 4], unread: &[VmKey], told: &[&str]) {
    let (store, _) = defined().await;
    let paths = [VmKey::State, VmKey::Node, VmKey::LastNode, VmKey::Claim].map(|key| key_path(id(), key));
    let mut txn = Transaction::default();
    txn.create(&*paths[3], "");
    for (path, value) in paths.iter().zip(keys) {
        match value {
            "(gone)" => txn.delete(path.as_str(), None),
            value => txn.set(path.as_str(), value, None),
        }
    }
    store.commit(txn).await.unwrap();
    let vm = good(&*store).await;
    let last = vm.last_node.value.as_ref().map(ToString::to_string).unwrap_or_default();
    let claim = vm.claim.value.to_string();
    let read = [vm.state.value.as_str(), vm.node.value.as_str(), &last, &claim];
    assert_eq!(read, words, "{keys:?}");
    assert_eq!(vm.unread, unread.iter().copied().collect(), "{keys:?}");
    let keys_told: Vec<&str> = vm.problems.iter().map(|p| p.key.rsplit('/').next().unwrap()).collect();
    assert_eq!(keys_told, told, "{keys:?}: {:?}", vm.problems);
}

#[tokio::test]
async fn each_key_is_read_for_itself_and_what_cannot_be_read_changes_nothing() {
    use VmKey::{Claim, LastNode, Node, State};
    let uuid = id().to_string();
    for (keys, words, unread, told) in [
        (["start", "a", "b", "a"], ["start", "a", "b", "a"], &[][..], &[][..]),
        // The desired state: it stays as it is.
        (["Start", "a", "b", "a"], ["start", "a", "b", "a"], &[State], &["state"]),
        (["", "a", "", ""], ["stop", "a", "", ""], &[State], &["state"]),
        (["stopp", "b", "", "a"], ["start", "a", "", "a"], &[State, Node], &["state"]),
        (["x", "b", "", "a b"], ["start", "a", "", "a b"], &[State, Node], &["state"]),
        (["(gone)", "a", "", "a"], ["start", "a", "", "a"], &[State], &["state"]),
        (["(gone)", "(gone)", "", ""], ["stop", "none", "", ""], &[State, Node], &["node", "state"]),
        // The node: who has it, or whoever is chosen.
        (["start", "None", "b", "a"], ["start", "a", "b", "a"], &[Node], &["node"]),
        (["start", "", "", ""], ["start", "none", "", ""], &[Node], &["node"]),
        (["stop", "a b", "", ""], ["stop", "none", "", ""], &[Node], &["node"]),
        (["migrate", "None", "a", "a"], ["migrate", "none", "a", "a"], &[Node], &["node"]),
        (["migrate", "(gone)", "", ""], ["migrate", "none", "", ""], &[Node], &["node"]),
        // The way home.
        (["start", "a", "a b", "a"], ["start", "a", "", "a"], &[LastNode], &["lastnode"]),
        (["start", "a", "None", "a"], ["start", "a", "", "a"], &[], &[]),
        (["unmigrate", "a", "b", "a"], ["migrate", "b", "", "a"], &[State, Node, LastNode], &[]),
        (["unmigrate", "a", "", "a"], ["migrate", "a", "", "a"], &[State, Node, LastNode], &[]),
        // The claim: somebody may have it.
        (["start", "a", "", "a ../x"], ["start", "a", "", "?"], &[Claim], &[uuid.as_str()]),
        (["x", "a", "", "?"], ["start", "a", "", "?"], &[Claim, State], &[uuid.as_str(), "state"]),
    ] {
        read_as(keys, words, unread, told).await;
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_with_what_the_key_holds_and_what_is_allowed() {
    let (store, _) = defined().await;
    write(&*store, vec![set("state", "Start"), set("node", &"x".repeat(10_000)), set("lastnode", "a b")])
        .await;
    let mut txn = Transaction::default();
    txn.set(path(id()), "my web server", None);
    txn.create(migration_method_path(id()), "telepathy");
    store.commit(txn).await.unwrap();
    let vm = good(&*store).await;
    assert_eq!(vm.name.as_str(), id().to_string(), "a name that cannot be used");
    assert_eq!(vm.migration_method, pvc_core::model::MigrationMethod::Live, "no guest is shut down for it");
    let told: Vec<String> = vm.problems.iter().map(ToString::to_string).collect();
    for (part, allowed) in [
        ("\"my web server\"", "letters, digits"),
        ("\"Start\"", "start, stop, shutdown"),
        ("\"a b\"", "a short host name"),
        ("\"telepathy\"", "live, shutdown or none"),
    ] {
        assert!(told.iter().any(|told| told.contains(part) && told.contains(allowed)), "{part}: {told:?}");
    }
    assert!(told.iter().all(|told| told.len() < 500), "long rubbish is cut: {told:?}");
}

fn name_text() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,8}".prop_filter("reserved", |name| name != "none")
}

fn vm_set() -> impl Strategy<Value = VmSet> {
    let node = || name_text().prop_map(|name| self::node(&name));
    prop_oneof![
        "[a-z0-9][a-zA-Z0-9._+-]{0,20}".prop_map(|name| VmSet::Name(name.parse().unwrap())),
        prop::sample::select(VmState::ALL.to_vec()).prop_map(VmSet::State),
        node().prop_map(VmSet::Node),
        option::of(node()).prop_map(VmSet::LastNode),
        "[a-zA-Z ,:äß]{0,30}".prop_map(|reason| VmSet::FailedReason(reason.trim().to_owned())),
        btree_set(name_text(), 0..3)
            .prop_map(|names| VmSet::Claim(names.into_iter().collect::<Vec<_>>().join(" ").parse().unwrap())),
        prop::collection::vec("[a-z]{1,5}/[a-z]{1,5}", 0..3).prop_map(VmSet::RbdImages),
        "\\PC{0,30}".prop_map(VmSet::Xml),
    ]
}

fn value(data: Vec<u8>) -> Value {
    Value { data, version: 3, mzxid: 7, children: 0 }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(set in vm_set()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (store, _) = defined().await;
            let change = VmChange::Update { id: id(), expect: vec![], set: vec![set.clone()] };
            apply(&*store, &change).await.unwrap();
            let vm = good(&*store).await;
            match set {
                VmSet::Name(name) => prop_assert_eq!(vm.name, name),
                VmSet::State(state) => prop_assert_eq!(vm.state.value, state),
                VmSet::Node(node) => prop_assert_eq!(vm.node.value, node),
                VmSet::LastNode(node) => prop_assert_eq!(vm.last_node.value, node),
                VmSet::FailedReason(reason) if reason == "None" => prop_assert_eq!(vm.failed_reason.value, ""),
                VmSet::FailedReason(reason) => prop_assert_eq!(vm.failed_reason.value, reason),
                VmSet::Claim(claim) => prop_assert_eq!(vm.claim.value, claim),
                VmSet::RbdImages(images) => prop_assert_eq!(vm.rbd_images, images),
                VmSet::Xml(xml) => prop_assert_eq!(read_xml(&*store, id()).await.unwrap(), Some((xml, 1))),
            }
            Ok(())
        })?;
    }

    #[test]
    fn rubbish_never_panics_and_never_becomes_a_vm_without_a_word(
        data in prop::collection::vec(option::of(prop::collection::vec(any::<u8>(), 0..30)), READ_KEYS),
    ) {
        let values: Vec<Option<Value>> = data.into_iter().map(|d| d.map(value)).collect();
        match decode(id(), &values, None) {
            None => prop_assert!(values[0].is_none()),
            Some(Entry::Bad(problems)) => prop_assert!(false, "{problems:?}"),
            Some(Entry::Good(vm)) => {
                let held = values[1].as_ref().map(|v| v.data.trim_ascii());
                let read = held == Some(vm.state.value.as_str().as_bytes());
                prop_assert!(read || vm.cannot_read(VmKey::State) && !vm.problems.is_empty());
                // Whoever names an unreadable claim names nobody that may start or release it.
                let claim = values[6].as_ref().is_some_and(|v| !v.data.trim_ascii().is_empty());
                prop_assert_eq!(vm.claim.value.is_empty(), !claim);
            }
        }
    }
}
