//! Servers in memory, and a node that is primary or not.

use pvc_config::{check, sample::Sample};
use pvc_core::plan::database_leader::Member;
use pvc_host::database_cluster::fake::FakeDatabaseCluster;

use super::*;

fn start(database: &Arc<FakeDatabaseCluster>) -> Arc<dyn PrimaryService> {
    let database: Arc<dyn DatabaseCluster> = Arc::clone(database) as _;
    DatabaseLeader::start(Ground { me: "hv1".parse().unwrap(), own: vec![], port: 5432 }, database)
}

async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

fn hv1(database: &FakeDatabaseCluster) -> bool {
    database.state().members.iter().any(|member| member.name == "hv1" && member.leads)
}

#[tokio::test(start_paused = true)]
async fn the_leader_is_asked_for_when_this_node_becomes_primary_and_not_before() {
    let database = FakeDatabaseCluster::new(&["hv2", "hv1"]);
    let service = start(&database);
    pass(600).await;
    assert_eq!(database.state().looks, 0, "it is another's");
    service.start().await.unwrap();
    pass(1).await;
    assert!(hv1(&database));
    assert_eq!(database.state().asked, [("hv2".to_owned(), "hv1".to_owned())]);
    pass(600).await;
    assert_eq!((service.check().await, database.state().asked.len()), (Ok(()), 1), "it is here");
    let looks = database.state().looks;
    assert!(looks < 15, "{looks}");
    service.stop().await.unwrap();
    pass(1).await;
    database.by_hand(|state| state.members.reverse());
    pass(600).await;
    assert_eq!(database.state().looks, looks, "it is another's again");
}

#[tokio::test(start_paused = true)]
async fn a_patroni_that_refuses_hangs_or_ends_holds_up_nobody_and_is_asked_again() {
    let database = FakeDatabaseCluster::new(&["hv2", "hv1"]);
    let service = start(&database);
    database.by_hand(|state| state.refuses = true);
    let began = Instant::now();
    service.start().await.unwrap();
    pass(1).await;
    let said = service.check().await.unwrap_err();
    assert!(said.contains("refused to change the leader: a test refuses it"), "{said}");
    database.by_hand(|state| (state.refuses, state.hangs) = (false, true));
    pass(300).await;
    let said = service.check().await.unwrap_err();
    assert!(said.contains("did not tell its members within 3 s"), "{said}");
    service.stop().await.unwrap();
    service.start().await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(301), "nobody waits");
    let all = database.state().members;
    database.by_hand(|state| (state.hangs, state.members) = (false, vec![]));
    pass(100).await;
    let said = service.check().await.unwrap_err();
    assert!(said.contains("Patroni does not run here"), "it did: {said}");
    // It comes back without a leader, and elects one.
    let mut headless = all.clone();
    for member in &mut headless {
        member.leads = false;
    }
    database.by_hand(|state| state.members = headless);
    pass(100).await;
    assert!(service.check().await.unwrap_err().contains("Patroni elects one"));
    database.by_hand(|state| state.members = all);
    pass(100).await;
    assert_eq!(service.check().await, Ok(()));
    assert!(hv1(&database));
}

#[tokio::test(start_paused = true)]
async fn a_database_without_patroni_is_no_trouble() {
    let database = Arc::new(FakeDatabaseCluster::default());
    let service = start(&database);
    service.start().await.unwrap();
    pass(600).await;
    assert_eq!(service.check().await, Ok(()));
    let looks = database.state().looks;
    assert!((5..20).contains(&looks), "{looks}");
    database.by_hand(|state| {
        let member = |name: &str, leads| Member {
            name: name.into(),
            host: None,
            port: None,
            leads,
            works: true,
            state: "running".into(),
        };
        state.members = vec![member("hv1", false), member("hv2", true)];
    });
    pass(61).await;
    assert!(hv1(&database), "it was installed meanwhile");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_moves_away_again_is_let_be_for_five_minutes_and_then_twice_as_long_each_time() {
    let database = FakeDatabaseCluster::new(&["hv2", "hv1"]);
    let service = start(&database);
    service.start().await.unwrap();
    pass(1).await;
    let asked = || database.state().asked.len();
    let mut minutes = 5;
    for times in 1..10 {
        assert_eq!(asked(), times);
        assert_eq!(service.check().await, Ok(()));
        move_away(&database);
        pass(60 * (minutes - 1)).await;
        let said = service.check().await.unwrap_err();
        let again = format!("hv2 leads although it was asked for, which is done again after {minutes} min");
        assert!(said.contains(&again), "{said}");
        assert_eq!(asked(), times);
        // It is noticed within a minute, and the last pause is one, too.
        pass(180).await;
        minutes = (2 * minutes).min(240);
    }
    // Who becomes primary anew asks at once.
    service.stop().await.unwrap();
    move_away(&database);
    pass(1).await;
    service.start().await.unwrap();
    pass(1).await;
    assert_eq!((service.check().await, asked()), (Ok(()), 11));
}

fn move_away(database: &FakeDatabaseCluster) {
    database.by_hand(|state| {
        for member in &mut state.members {
            member.leads = member.name == "hv2";
        }
    });
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_counts_also_if_nobody_says_that_it_was_done() {
    let database = FakeDatabaseCluster::new(&["hv2", "hv1"]);
    database.by_hand(|state| state.fails = true);
    let service = start(&database);
    service.start().await.unwrap();
    pass(1).await;
    assert!(service.check().await.unwrap_err().contains("could not change the leader: a test"));
    move_away(&database);
    pass(280).await;
    assert!(service.check().await.unwrap_err().contains("done again after 5 min"));
    assert_eq!(database.state().asked.len(), 1);
    pass(90).await;
    assert_eq!(database.state().asked.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_paused_is_asked_for_nothing() {
    let database = FakeDatabaseCluster::new(&["hv2", "hv1"]);
    database.by_hand(|state| state.is_paused = true);
    let service = start(&database);
    service.start().await.unwrap();
    pass(600).await;
    assert!(service.check().await.unwrap_err().contains("Patroni is paused"));
    assert_eq!(database.state().asked.len(), 0);
    database.by_hand(|state| state.is_paused = false);
    pass(61).await;
    assert_eq!((service.check().await, database.state().asked.len()), (Ok(()), 1));
}

#[test]
fn only_a_database_beside_the_coordinators_is_led() {
    let own = |sample: Sample| ground(&check(&sample.text(), "pvcd.yaml").config.unwrap());
    let all = own(Sample::default()).unwrap();
    assert_eq!(
        all.own.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
        ["127.0.0.1", "10.255.0.1", "10.254.0.1"]
    );
    for here in ["127.0.0.1", "10.255.0.1", "LOCALHOST"] {
        assert!(own(Sample::default().with("coordinator.dns.database.host", here)).is_some());
    }
    for elsewhere in ["10.255.0.254", "db.example"] {
        assert_eq!(own(Sample::default().with("coordinator.dns.database.host", elsewhere)), None);
    }
    assert_eq!(own(Sample::default().with("node", "pvc-hv9")), None, "it is no coordinator");
    assert_eq!(own(Sample::default().with("functions.enable_networking", "False")), None);
}
