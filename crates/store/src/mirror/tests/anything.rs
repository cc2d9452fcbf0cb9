//! Whatever happens to the tree and to the connection, the view ends up as a fresh listing gives it.

use proptest::prelude::*;

use super::*;

/// What may happen to a tree and to the mirror's client.
#[derive(Debug, Clone)]
enum Step {
    Define(u8),
    Remove(u8),
    Set(u8, &'static str, String),
    Delete(u8, &'static str),
    Stray(u8),
    Register(u8),
    Report(u8, u64),
    Primary(String),
    Hold(u8),
    Release(u8),
    Fence(u8),
    Record(u8),
    Finish(u8),
    SpoilFence(u8),
    Maintenance(String),
    Place(u8),
    OtherExpires,
    Suspend,
    Resume,
    ResumeWithoutWatches,
    Expire,
    FallBehind,
    CatchUp,
    Refuse(u32),
    Delay(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..5_u8;
    let some = || 0..5_u8;
    let key =
        prop::sample::select(vec!["state", "node", "lastnode", "failedreason", "claim", "xml", "rbdlist"]);
    let text = prop_oneof![
        Just("start".to_owned()),
        Just("stop".to_owned()),
        Just("node1".to_owned()),
        Just(String::new()),
        "\\PC{0,8}",
    ];
    prop_oneof![
        3 => n.clone().prop_map(Step::Define),
        1 => n.clone().prop_map(Step::Remove),
        6 => (n.clone(), key.clone(), text).prop_map(|(n, k, t)| Step::Set(n, k, t)),
        1 => (n.clone(), key).prop_map(|(n, k)| Step::Delete(n, k)),
        1 => n.clone().prop_map(Step::Stray),
        1 => n.clone().prop_map(Step::Register),
        2 => (n, any::<u64>()).prop_map(|(n, m)| Step::Report(n, m)),
        1 => "none|node1|two words".prop_map(Step::Primary),
        1 => some().prop_map(Step::Hold),
        1 => some().prop_map(Step::Release),
        2 => some().prop_map(Step::Fence),
        1 => some().prop_map(Step::Record),
        1 => some().prop_map(Step::Finish),
        1 => some().prop_map(Step::SpoilFence),
        1 => "on|off|perhaps".prop_map(Step::Maintenance),
        2 => some().prop_map(Step::Place),
        1 => Just(Step::OtherExpires),
        1 => Just(Step::Suspend),
        2 => Just(Step::Resume),
        1 => Just(Step::ResumeWithoutWatches),
        1 => Just(Step::Expire),
        1 => Just(Step::FallBehind),
        1 => Just(Step::CatchUp),
        1 => (0..3_u32).prop_map(Step::Refuse),
        1 => (0..20_u64).prop_map(Step::Delay),
        4 => (0..10_u64).prop_map(Step::Wait),
    ]
}

fn key_of(n: u8, key: &str) -> String {
    match key {
        "claim" => vm::key_path(id(n), VmKey::Claim),
        _ => format!("{}/{key}", vm::path(id(n))),
    }
}

async fn take(step: Step, own: &MemoryStore, other: &MemoryStore) {
    let one = |op: Op| Transaction { ops: vec![op] };
    // Conflicts (a key is absent, or exists) are part of the walk.
    match step {
        Step::Define(n) => drop(vm::apply(other, &define(n)).await),
        Step::Remove(n) => drop(vm::apply(other, &VmChange::Remove { id: id(n), expect: vec![] }).await),
        Step::Set(n, key, text) => {
            let path = key_of(n, key);
            let create = Op::Create {
                path: path.clone(),
                data: text.clone().into(),
                mode: crate::CreateMode::Persistent,
            };
            if other.commit(one(Op::Set { path, data: text.into(), version: None })).await.is_err() {
                drop(other.commit(one(create)).await);
            }
        }
        Step::Delete(n, key) => {
            let path = key_of(n, key);
            drop(other.commit(one(Op::Delete { path, version: None })).await);
        }
        Step::Stray(n) => {
            let root = if n % 2 == 0 { vm::ROOT } else { vm::CLAIM_ROOT };
            let path = format!("{root}/stray{n}");
            let create = Op::Create { path: path.clone(), data: vec![], mode: crate::CreateMode::Persistent };
            if other.commit(one(create)).await.is_err() {
                other.commit(one(Op::Delete { path, version: None })).await.unwrap();
            }
        }
        Step::Register(n) => drop(node::register(other, &registration(n)).await),
        Step::Report(n, mem) => {
            let report = NodeReport { mem_free_mib: mem, keepalive_unix_s: mem, ..NodeReport::default() };
            drop(other.commit(node::report(&name(n), &report, None)).await);
        }
        Step::Primary(text) => set(other, "/primary_node", &text).await,
        Step::Hold(n) => drop(other.commit(primary::take(&name(n), false)).await),
        Step::Release(n) => drop(other.commit(primary::release(&name(n))).await),
        Step::Fence(n) => {
            if let Ok(Some(node)) = node::read(other, &name(n)).await {
                drop(other.commit(fence::begin(&node, &name(1), &job(FenceStep::Shooting))).await);
            }
        }
        Step::Record(n) => {
            if let Ok(Some(Entry::Good(fence))) = fence::read(other, &name(n)).await {
                let proven = job(FenceStep::Proven { proof: Proof::PowerOff });
                drop(other.commit(fence::record(&fence, &proven)).await);
            }
        }
        Step::Finish(n) => {
            if let Ok(Some(Entry::Good(fence))) = fence::read(other, &name(n)).await {
                drop(other.commit(fence::finish(&fence)).await);
            }
        }
        Step::SpoilFence(n) => {
            let path = fence::path(&name(n));
            drop(other.commit(one(Op::Set { path, data: "{".into(), version: None })).await);
        }
        Step::Maintenance(text) => {
            let path = maintenance::MAINTENANCE.to_owned();
            let mode = crate::CreateMode::Persistent;
            let set = Op::Set { path: path.clone(), data: text.clone().into(), version: None };
            if other.commit(one(set)).await.is_err() {
                other.commit(one(Op::Create { path, data: text.into(), mode })).await.unwrap();
            }
        }
        Step::Place(n) => {
            let seen = other.stat_many(&[placement::PLACEMENT.to_owned()]).await.unwrap()[0].unwrap().version;
            let change =
                VmChange::Update { id: id(n), expect: vec![], set: vec![VmSet::LastNode(Some(name(2)))] };
            drop(placement::apply_placed(other, &change, Some(seen)).await);
        }
        Step::OtherExpires => other.expire(),
        Step::Suspend => own.suspend(),
        Step::Resume => own.resume(),
        Step::ResumeWithoutWatches => own.resume_without_watches(),
        Step::Expire => own.expire(),
        Step::FallBehind => own.fall_behind(),
        Step::CatchUp => own.catch_up(),
        Step::Refuse(n) => own.refuse(n),
        Step::Delay(ms) => own.delay(Duration::from_millis(ms)),
        Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
    }
}

fn same(a: &ClusterView, b: &ClusterView) -> Result<(), TestCaseError> {
    prop_assert_eq!(&a.nodes, &b.nodes);
    prop_assert_eq!(&a.vms, &b.vms);
    prop_assert_eq!(&a.orphan_claims, &b.orphan_claims);
    prop_assert_eq!(&a.primary_node, &b.primary_node);
    prop_assert_eq!(&a.strays, &b.strays);
    prop_assert_eq!(&a.networks, &b.networks);
    prop_assert_eq!(&a.primary_holder, &b.primary_holder);
    prop_assert_eq!(&a.fences, &b.fences);
    prop_assert_eq!((a.maintenance, a.overlay), (b.maintenance, b.overlay));
    prop_assert_eq!(a.placement_version, b.placement_version);
    Ok(())
}

/// What a subscriber that repeats every change on its own copy ends up with.
fn follow(copy: &mut BTreeSet<Subject>, changes: &mut UnboundedReceiver<Subject>, view: &ClusterView) {
    while let Ok(subject) = changes.try_recv() {
        let exists = match &subject {
            Subject::Keepalive(_) => continue,
            Subject::Vm(id) => view.vms.contains_key(id) || view.orphan_claims.contains_key(id),
            Subject::Node(name) => view.nodes.contains_key(name),
            Subject::Primary => view.primary_node.value.is_some() || view.primary_holder.is_some(),
            Subject::Network(vni) => view.networks.contains_key(vni),
            Subject::Fence(name) => view.fences.contains_key(name),
            // The mirror has none.
            Subject::Task(_) => false,
            Subject::Cluster => view.maintenance || view.overlay != pvc_core::model::Overlay::default(),
        };
        if exists {
            copy.insert(subject);
        } else {
            copy.remove(&subject);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn after_any_changes_and_faults_the_view_is_what_a_fresh_listing_gives(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (own, other, tree) = world().await;
            let mirror = Mirror::start(own.clone());
            let (mut changes, mut copy) = (mirror.changes(|_, _| true), BTreeSet::new());
            for step in steps {
                take(step, &own, &other).await;
            }
            own.resume();
            own.catch_up();
            own.refuse(0);
            let caught_up = mirror.figures(SOON).await;
            prop_assert!(caught_up.is_ok() && mirror.synced(), "{:?}", caught_up);
            let fresh = Mirror::start(tree.client());
            fresh.ready().await;
            same(&mirror.view(), &fresh.view())?;
            follow(&mut copy, &mut changes, &mirror.view());
            let all: BTreeSet<Subject> = super::super::kinds::subjects(&mirror.view()).collect();
            prop_assert_eq!(copy, all);
            Ok(())
        })?;
    }
}
