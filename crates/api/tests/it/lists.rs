//! Lists come from what is known of the cluster: what they cost is counted, and that they are never older than what was changed or shown before.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use pvc_api::Limits;
use pvc_core::model::{VmSet, VmState};
use pvc_operate::{
    Cluster,
    testing::{Fake, id},
};
use pvc_store::{Op, Transaction, schema::vm};
use serde_json::{Value, json};

use crate::{
    counted::Counted,
    support::{Answer, Served, authentication, definition},
    v2::{ask, cluster},
};

pub(crate) async fn counted(fake: &Fake) -> (Served, Arc<Counted>) {
    let store = Counted::of(fake.cluster.store.clone());
    let cluster = Cluster::new(store.clone(), "memory");
    (Served::of(cluster, Some(authentication()), Limits::default()).await, store)
}

fn column(answer: &Answer, name: &str) -> Vec<Value> {
    answer.json().as_array().unwrap().iter().map(|row| row[name].clone()).collect()
}

async fn names(served: &Served, path: &str) -> Vec<Value> {
    let answer = ask(served, "GET", path, "", "").await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    column(&answer, "name")
}

#[tokio::test]
async fn a_list_reads_nothing_while_nothing_changes_and_what_has_changed_once() {
    let fake = Fake::with(&["hv1", "hv2"]).await;
    for n in 1..=5 {
        fake.define(n, &format!("vm{n}"), "hv1").await;
    }
    let (served, store) = counted(&fake).await;
    let form = "vni=100&description=web&nettype=managed&ip4_network=10.1.0.0/24&ip4_gateway=10.1.0.1";
    assert_eq!(served.ask("POST", "/api/v1/network", form).await.status, 200);
    let paths = [
        "/api/v2/vms",
        "/api/v2/vms?count=2",
        "/api/v2/vms?state=stop&node=hv1&limit=vm",
        "/api/v1/vm",
        "/api/v1/vm/vm3",
        "/api/v1/vm/vm3/state",
        "/api/v2/nodes",
        "/api/v1/node",
        "/api/v2/networks",
        "/api/v1/network",
        "/api/v2/maintenance",
    ];
    let ask_all = async || {
        for path in paths {
            let answer = served.ask("GET", path, "").await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
        }
    };
    ask_all().await;
    store.read();
    for _ in 0..3 {
        ask_all().await;
    }
    assert_eq!(store.read(), [""; 0]);
    // By others, past the API: its list shows it when its watch has told of it.
    fake.change(2, vec![VmSet::State(VmState::Start)]).await;
    assert_eq!(column(&served.ask("GET", "/api/v2/vms", "").await, "state")[1], "start");
    ask_all().await;
    let read = store.read();
    assert!(read.iter().all(|key| key.contains(&id(2).to_string())), "{read:?}");
    assert!(!read.iter().any(|key| key.ends_with("/xml")), "its definition is the same: {read:?}");
    ask_all().await;
    assert_eq!(store.read(), [""; 0]);
}

#[tokio::test]
async fn what_is_read_beside_nodes_and_vms_is_read_again_when_it_has_changed() {
    let fake = Fake::with(&["hv1", "hv2"]).await;
    for n in 1..=5 {
        fake.define(n, &format!("vm{n}"), "hv1").await;
    }
    let (served, store) = counted(&fake).await;
    let form = "vni=100&description=web&nettype=managed&ip4_network=10.1.0.0/24&ip4_gateway=10.1.0.1";
    assert_eq!(served.ask("POST", "/api/v1/network", form).await.status, 200);
    let pool = json!({ "name": "vms" }).to_string();
    assert_eq!(ask(&served, "POST", "storage/pools", "", &pool).await.status, 202);
    let token = json!({ "name": "some", "role": "read" }).to_string();
    assert_eq!(ask(&served, "POST", "tokens", "", &token).await.status, 201);
    let paths = [
        "/api/v2/status",
        "/api/v2/nodes/hv1",
        "/api/v2/nodes/hv1/explanation",
        "/api/v2/fences",
        "/api/v2/networks/100",
        "/api/v2/networks/100/explanation",
        "/api/v2/networks/100/leases",
        "/api/v2/networks/100/rules",
        "/api/v2/storage",
        "/api/v2/storage/osds",
        "/api/v2/storage/pools",
        "/api/v2/storage/volumes",
        "/api/v2/storage/snapshots",
        "/api/v2/tasks",
        "/api/v2/tasks/1",
        "/api/v2/tokens",
        "/api/v2/plan/death/hv1",
        "/api/v1/network/100/lease",
        "/api/v1/network/100/acl",
        "/api/v1/storage/ceph/pool",
        "/api/v1/storage/ceph/volume",
    ];
    let ask_all = async || {
        for path in paths {
            let answer = served.ask("GET", path, "").await;
            assert!([200, 404].contains(&answer.status), "{path}: {answer:?}");
        }
    };
    ask_all().await;
    store.read();
    for path in paths {
        served.ask("GET", path, "").await;
        assert_eq!(store.read(), [""; 0], "{path}");
    }
    // By others, past the API.
    let other = Cluster::new(fake.tree.client(), "memory");
    let set = Op::Set { path: vm::xml_path(id(2)), data: "<domain".into(), version: None };
    other.store.commit(Transaction { ops: vec![set] }).await.unwrap();
    let told = served.ask("GET", "/api/v2/status", "").await.json()["findings"].to_string();
    assert!(told.contains("VM vm2 has a definition that is damaged"), "{told}");
    ask_all().await;
    let read = store.read();
    assert!(read.iter().all(|key| key.contains(&id(2).to_string())), "{read:?}");
    let lease = pvc_operate::network::dhcp::add;
    let new = pvc_core::command::network::dhcp::NewReservation {
        address: "10.1.0.9",
        mac: "52:54:00:00:00:09",
        name: None,
    };
    lease(&other, "100", new, 0).await.unwrap();
    let leases = ask(&served, "GET", "networks/100/leases", "", "").await.json();
    assert_eq!(leases["leases"][0]["ip4_address"], "10.1.0.9", "{leases}");
    let read = store.read();
    assert!(read.iter().all(|key| key.starts_with("/networks/100")), "{read:?}");
    ask_all().await;
    store.read();
    ask_all().await;
    assert_eq!(store.read(), [""; 0]);
}

#[tokio::test]
async fn a_page_reads_the_definitions_of_its_own_rows_and_of_no_other() {
    let fake = Fake::with(&["hv1"]).await;
    for n in 1..=9 {
        fake.define(n, &format!("vm{n}"), "hv1").await;
    }
    let (served, store) = counted(&fake).await;
    assert_eq!(names(&served, "nodes").await, ["hv1"]);
    store.read();
    assert_eq!(names(&served, "vms?count=2&after=vm3").await, ["vm3", "vm4"]);
    let xml = |numbers: &[u8]| numbers.iter().map(|n| vm::xml_path(id(*n))).collect::<Vec<_>>();
    assert_eq!(store.read(), xml(&[3, 4]));
    assert_eq!(names(&served, "vms?count=3&after=vm2").await, ["vm2", "vm3", "vm4"]);
    assert_eq!(store.read(), xml(&[2]), "the others are known");
    assert_eq!(served.ask("GET", "/api/v1/vm/vm9", "").await.status, 200);
    assert_eq!(store.read(), xml(&[9]));
}

#[tokio::test]
async fn who_has_changed_something_reads_it_at_once() {
    let (fake, served) = cluster().await;
    fake.client.delay(Duration::from_millis(2));
    for (turn, (word, maintenance)) in
        [("start", true), ("stop", false)].into_iter().cycle().take(10).enumerate()
    {
        let wanted = json!({ "state": word }).to_string();
        assert!(ask(&served, "PUT", "vms/web1/state", "", &wanted).await.status < 300);
        assert_eq!(column(&ask(&served, "GET", "vms", "", "").await, "state"), [word]);
        let all = served.ask("GET", "/api/v1/vm", "").await;
        assert_eq!(column(&all, "state"), [word]);
        let wanted = json!({ "maintenance": maintenance });
        assert_eq!(ask(&served, "PUT", "maintenance", "", &wanted.to_string()).await.status, 200);
        assert_eq!(ask(&served, "GET", "maintenance", "", "").await.json(), wanted);
        let memory = 100 + turn;
        let xml = definition("web1", 1).replace(">64<", &format!(">{memory}<"));
        assert_eq!(ask(&served, "PUT", "vms/web1/definition", "If-Match: *\r\n", &xml).await.status, 200);
        let list = ask(&served, "GET", "vms", "", "").await;
        assert_eq!(column(&list, "memory"), [memory], "{list:?}");
        let all = served.ask("GET", "/api/v1/vm", "").await;
        assert!(column(&all, "xml")[0].as_str().unwrap().contains(&format!(">{memory}<")), "{all:?}");
        let new = json!({ "xml": definition("web2", 2), "node": "hv1" }).to_string();
        assert_eq!(ask(&served, "POST", "vms", "", &new).await.status, 201);
        assert_eq!(names(&served, "vms").await, ["web1", "web2"]);
        assert_eq!(ask(&served, "DELETE", "vms/web2", "", "").await.status, 200);
        assert_eq!(names(&served, "vms").await, ["web1"]);
    }
}

#[tokio::test]
async fn a_definition_with_the_version_of_one_that_was_there_before_is_another() {
    let fake = Fake::with(&["hv1"]).await;
    fake.define(1, "web1", "hv1").await;
    let served = Served::guarded(&fake).await;
    let list = ask(&served, "GET", "vms", "", "").await;
    assert_eq!(column(&list, "memory"), [100]);
    let path = vm::xml_path(id(1));
    let xml = fake.get(&path).await.unwrap().replace(">100<", ">200<");
    // As an undefinition and a definition that no view stands between.
    let ops = vec![
        Op::Delete { path: path.clone(), version: None },
        Op::Create { path, data: xml.into(), mode: pvc_store::CreateMode::Persistent },
    ];
    fake.cluster.store.commit(Transaction { ops }).await.unwrap();
    let list = ask(&served, "GET", "vms", "", "").await;
    assert_eq!(column(&list, "memory"), [200]);
}

#[tokio::test]
async fn a_definition_that_cannot_be_read_costs_nobody_else_and_is_looked_at_again() {
    let (fake, served) = cluster().await;
    fake.define(2, "web2", "hv1").await;
    let path = vm::xml_path(id(2));
    fake.tree.forbid(&path, true);
    let list = ask(&served, "GET", "vms", "", "").await;
    assert_eq!(column(&list, "memory"), [json!(100), Value::Null]);
    assert!(list.json()[1]["problems"][0].as_str().unwrap().contains("refused"), "{list:?}");
    let all = served.ask("GET", "/api/v1/vm", "").await;
    assert_eq!(
        (column(&all, "name"), &all.json()[1]["xml"]),
        (vec![json!("web1"), json!("web2")], &json!(""))
    );
    fake.tree.forbid(&path, false);
    assert_eq!(column(&ask(&served, "GET", "vms", "", "").await, "memory"), [100, 100]);
    let broken = Op::Set { path, data: "<domain".into(), version: None };
    fake.cluster.store.commit(Transaction { ops: vec![broken] }).await.unwrap();
    let list = ask(&served, "GET", "vms", "", "").await;
    assert!(list.json()[1]["problems"][0].as_str().unwrap().contains("damaged"), "{list:?}");
}

#[tokio::test]
async fn pages_have_the_order_of_the_whole_list_and_of_a_token_for_some_vms_its_own() {
    let fake = Fake::with(&["hv1"]).await;
    // Between these stand other characters than between their marks.
    let all = ["web", "web-1", "web.x", "web1", "web_2", "webs"];
    for (n, name) in all.iter().rev().enumerate() {
        fake.define(u8::try_from(n).unwrap() + 1, name, "hv1").await;
    }
    fake.define(20, "web1", "hv1").await;
    fake.report(&"hv1".parse().unwrap(), &[id(33)]).await;
    let (served, store) = counted(&fake).await;
    let whole = column(&ask(&served, "GET", "vms", "", "").await, "uuid");
    assert_eq!(whole.len(), 8);
    assert_eq!(whole[0], id(33).to_string(), "what runs and is in no tree");
    let pages = async |headers: &str, first: &str| {
        let (mut rows, mut path) = (Vec::new(), first.to_owned());
        loop {
            let answer = served.send("GET", &format!("/api/v2/{path}"), headers, "").await;
            let page = column(&answer, "uuid");
            assert!(page.len() <= 2, "{answer:?}");
            rows.extend(page);
            let Some(link) = answer.header("link") else { return rows };
            path = format!("vms{}", link.trim_start_matches('<').split('>').next().unwrap());
        }
    };
    let mine = format!("X-Api-Key: {}\r\n", crate::support::TOKEN);
    assert_eq!(pages(&mine, "vms?count=2").await, whole);
    let new = json!({ "name": "some", "role": "read", "vms": ["web1", "webs", "none", "web"] });
    let made = ask(&served, "POST", "tokens", "", &new.to_string()).await.json();
    let limited = format!("X-Api-Key: {}\r\n", made["token"].as_str().unwrap());
    let own = served.send("GET", "/api/v2/vms", &limited, "").await;
    assert_eq!(column(&own, "name"), ["web", "web1", "web1", "webs"]);
    assert_eq!(pages(&limited, "vms?count=2").await, column(&own, "uuid"));
    let after = served.send("GET", "/api/v2/vms?after=web1&limit=s", &limited, "").await;
    assert_eq!(column(&after, "name"), ["webs"]);
    assert_eq!(served.send("GET", "/api/v2/vms?after=webt", &limited, "").await.body, "[]");
    store.read();
    assert_eq!(column(&served.send("GET", "/api/v2/vms", &limited, "").await, "name").len(), 4);
    assert_eq!(store.read(), [""; 0]);
}

#[tokio::test]
async fn a_long_list_is_made_as_it_is_taken_and_one_that_breaks_off_has_no_end() {
    let fake = Fake::with(&["hv1"]).await;
    for n in 0..200 {
        fake.define(n, &format!("vm{n:03}"), "hv1").await;
    }
    let (served, store) = counted(&fake).await;
    let whole = async |path: &str| {
        // Without pieces that have a length each.
        let request =
            format!("GET {path} HTTP/1.0\r\nHost: api\r\nX-Api-Key: {}\r\n\r\n", crate::support::TOKEN);
        crate::support::parse(&served.raw(request.as_bytes()).await)
    };
    assert_eq!(names(&served, "nodes").await, ["hv1"]);
    // Of the definitions that the list needs only the first can be read.
    store.keys_left.store(100, Ordering::Relaxed);
    let broken = whole("/api/v2/vms").await;
    assert!(!broken.body.contains("vm190"), "{broken:?}");
    assert!(serde_json::from_str::<Value>(&broken.body).is_err());
    store.keys_left.store(0, Ordering::Relaxed);
    assert_eq!(whole("/api/v1/vm").await.status, 503, "what cannot be begun is said");
    store.keys_left.store(usize::MAX, Ordering::Relaxed);
    store.read();
    let expected: Vec<String> = (0..200).map(|n| format!("vm{n:03}")).collect();
    // Two who ask the same at once: each has the whole.
    let (one, two) = tokio::join!(whole("/api/v2/vms"), whole("/api/v2/vms"));
    for answer in [one, two, whole("/api/v2/vms?count=200").await, whole("/api/v1/vm").await] {
        assert_eq!(column(&answer, "name"), expected);
        assert!(answer.json().as_array().unwrap().iter().all(|row| row["memory"] == 100));
    }
    assert_eq!(whole("/api/v2/vms?after=vm198&count=1").await.json()[0]["name"], "vm198");
    // Once each, and with their texts once more.
    let read = store.read();
    assert_eq!(read.iter().filter(|key| key.ends_with("/xml")).count(), 200 - 64 + 200, "{read:?}");
    for path in ["/api/v2/vms", "/api/v1/vm"] {
        assert_eq!(column(&whole(path).await, "name"), expected);
    }
    assert_eq!(store.read(), [""; 0]);
}
