//! What is known of a cluster that is watched, beside what is read of it.

use pvc_core::{command::network::Settings, model::NetworkKind, plan::placement::Selector};
use pvc_store::{Op, Transaction};
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::{
    Kind, network, node,
    testing::{Fake, id, name},
    vm,
    watched::WITHIN,
};

async fn names(catalogue: &Arc<Catalogue>) -> Vec<String> {
    let vms = catalogue.all().await.unwrap();
    vms.all().iter().map(|row| row.name().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_may_be_old_is_not_shown_and_what_was_missed_is() {
    let fake = Fake::with(&["hv1"]).await;
    fake.define(1, "web1", "hv1").await;
    let catalogue = Catalogue::of(&fake.cluster);
    let watched = catalogue.cluster();
    assert_eq!(names(&catalogue).await, ["web1"]);
    fake.client.suspend();
    let other = Cluster::new(fake.tree.client(), "");
    let past = Fake { tree: fake.tree.clone(), client: fake.tree.client(), cluster: other };
    past.define(2, "web2", "hv1").await;
    let began = Instant::now();
    let away = catalogue.all().await.err().unwrap();
    assert_eq!(away.kind(), Kind::Unavailable, "{away}");
    assert!(began.elapsed() <= WITHIN, "{:?}", began.elapsed());
    for away in [
        watched.nodes().await.err().unwrap(),
        watched.roster().await.err().unwrap(),
        watched.view().await.err().unwrap(),
        network::list(watched, None).await.err().unwrap(),
    ] {
        assert_eq!(away.kind(), Kind::Unavailable, "{away}");
    }
    let comes_back = async {
        tokio::time::sleep(WITHIN / 2).await;
        fake.client.resume();
    };
    let (names, ()) = tokio::join!(names(&catalogue), comes_back);
    assert_eq!(names, ["web1", "web2"], "a connection that is lost for a moment is waited for");
    // Answered again, and nobody has told yet what was missed.
    fake.client.suspend();
    past.define(3, "web3", "hv1").await;
    fake.client.resume_without_watches();
    let comes_back = async {
        tokio::time::sleep(WITHIN / 2).await;
        fake.client.set_watches();
    };
    let (vms, ()) = tokio::join!(catalogue.all(), comes_back);
    assert_eq!(vms.unwrap().all().len(), 3);
}

#[tokio::test]
async fn where_there_is_no_cluster_that_is_said() {
    let tree = pvc_store::memory::MemoryTree::new();
    let catalogue = Catalogue::of(&Cluster::new(tree.client(), "nowhere"));
    let watched = catalogue.cluster();
    assert!(matches!(catalogue.all().await, Err(Failure::Uninitialised { .. })));
    assert!(matches!(watched.nodes().await, Err(Failure::Uninitialised { .. })));
    Cluster::new(tree.client(), "").init().await.unwrap();
    assert_eq!(catalogue.all().await.unwrap().all().len(), 0);
}

#[tokio::test]
async fn what_is_watched_reads_as_what_is_asked_for() {
    let fake = Fake::with(&["hv1", "hv2"]).await;
    for (n, name) in ["web2", "web1", "db", "db", "web-1"].into_iter().enumerate() {
        fake.define(u8::try_from(n).unwrap(), name, ["hv1", "hv2"][n % 2]).await;
    }
    fake.report(&name("hv1"), &[id(0), id(2)]).await;
    let settings = Settings { description: Some("web".to_owned()), ..Settings::default() };
    network::add(&fake.cluster, "100", NetworkKind::Bridged, &settings, &[]).await.unwrap();
    let set = |path: String, data: &str| Op::Set { path, data: data.into(), version: None };
    let create = |path: &str| Op::Create {
        path: path.to_owned(),
        data: Vec::new(),
        mode: pvc_store::CreateMode::Persistent,
    };
    let broken = vec![
        set(format!("/domains/{}/state", id(3)), "flying"),
        set(pvc_store::schema::vm::xml_path(id(4)), "<domain"),
        create("/nodes/no node"),
        create("/networks/none"),
        create("/domains/none"),
    ];
    fake.cluster.store.commit(Transaction { ops: broken }).await.unwrap();
    let catalogue = Catalogue::of(&fake.cluster);
    let watched = catalogue.cluster();
    let filter = Filter { node: None, state: None, wanted: None, long: true };
    let asked = vm::list(&fake.cluster, &filter, 0).await.unwrap();
    let vms = catalogue.all().await.unwrap();
    let mut seen = Vec::new();
    for (row, said) in vms.all().iter().zip(vms.definitions(vms.all(), true).await.unwrap()) {
        let path = pvc_store::schema::vm::xml_path(row.id);
        let mut row = json!(vms.shown(row, &said));
        let details = format!("{{{}}}", said.details.as_deref().unwrap_or_default());
        let details: serde_json::Map<_, _> = serde_json::from_str(&details).unwrap();
        row.as_object_mut().unwrap().extend(details);
        let text: String = serde_json::from_str(&said.text.unwrap()).unwrap();
        assert_eq!(Some(text), fake.get(&path).await);
        seen.push(row);
    }
    assert_eq!(json!(seen), json!(asked.vms));
    let (asked, seen) = (fake.cluster.nodes().await.unwrap(), watched.nodes().await.unwrap());
    assert_eq!((asked.all, asked.strays), (seen.all, seen.strays));
    let list = async |cluster| json!(node::list(cluster, 0, |_| true).await.unwrap().nodes);
    assert_eq!(list(&fake.cluster).await, list(watched).await);
    let list = async |cluster| network::list(cluster, None).await.unwrap();
    let (asked, seen) = (list(&fake.cluster).await, list(watched).await);
    assert_eq!((json!(asked.networks), asked.strays), (json!(seen.networks), seen.strays));
    assert_eq!(fake.cluster.roster().await.unwrap(), watched.roster().await.unwrap());
    let status = async |cluster| json!(crate::status::status(cluster, 0).await.unwrap());
    assert_eq!(status(&fake.cluster).await, status(watched).await);
    let death =
        async |cluster| json!(crate::forecast::death(cluster, "hv1", Selector::default()).await.unwrap());
    assert_eq!(death(&fake.cluster).await, death(watched).await);
    let network = async |cluster| json!(network::info(cluster, "100").await.unwrap());
    assert_eq!(network(&fake.cluster).await, network(watched).await);
    let info = async |cluster, vm: &str| json!(vm::info(cluster, vm).await.unwrap());
    for vm in ["web1", &id(3).to_string(), "web-1"] {
        assert_eq!(info(&fake.cluster, vm).await, info(watched, vm).await);
    }
}
