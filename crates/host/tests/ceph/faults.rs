//! What only the real Ceph can be put through.

use std::time::Duration;

use pvc_host::{
    ceph::{Access, Ceph as _, CephError, Librados},
    testing::ceph::POOL,
};
use tokio::time::sleep;

use crate::rig::{Real, Rig as _, image};

#[tokio::test]
async fn a_node_without_a_configuration_says_so() {
    let ceph = Librados::new(Access { configuration: "/nowhere/ceph.conf".to_owned(), ..Access::default() });
    let error = ceph.blocklisted().await.unwrap_err();
    assert!(matches!(&error, CephError::Unavailable(why) if why.contains("/nowhere/ceph.conf")), "{error:?}");
}

#[tokio::test]
async fn it_says_what_the_cluster_holds() {
    let rig = Real::start();
    // A manager that has just started has heard of no OSD's space yet.
    let figures = loop {
        let figures = rig.ceph.figures().await.unwrap();
        if figures.space.total_bytes > 0 {
            break figures;
        }
        sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(figures.osds, [3, 3, 3]);
    assert!(figures.health.starts_with("HEALTH_"), "{}", figures.health);
    assert!(
        figures.status.contains("cluster:") && figures.status.contains("3 osds: 3 up"),
        "{}",
        figures.status
    );
    let osds = rig.ceph.osd_stats().await.unwrap();
    assert_eq!(osds.keys().map(ToString::to_string).collect::<Vec<_>>(), ["0", "1", "2"]);
    for osd in osds.values() {
        assert!(osd.up == 1 && osd.r#in == 1 && osd.kb > 0 && osd.uuid.len() == 36, "{osd:?}");
        assert!(osd.state.contains("up") && !osd.avail.is_empty() && !osd.wr_ops.is_empty(), "{osd:?}");
        assert!(!osd.node.is_empty(), "{osd:?}");
    }
    // The manager makes one of its own, sooner or later.
    assert!([1, 2].contains(&figures.pools[POOL].stats.id), "{figures:?}");
}

/// A key that may not, a monitor that hangs, and a connection of our own that is blocklisted.
#[tokio::test]
async fn a_cluster_in_trouble_is_an_error_in_time_and_heals_by_itself() {
    let rig = Real::start();
    rig.create(&image("one"));
    let client = "192.0.2.1:0/4711".parse().unwrap();

    rig.cluster.user("reader", &["mon", "allow r", "osd", &format!("allow rwx pool={POOL}")]).unwrap();
    let access = Access { configuration: rig.cluster.configuration(), user: "client.reader".to_owned() };
    let reader = Librados::new(access);
    let error = reader.blocklist(&client).await.unwrap_err();
    assert!(matches!(error, CephError::Refused { .. }), "{error:?}");
    assert!(!rig.ceph.blocklisted().await.unwrap().contains_key(&client));

    rig.cluster.freeze_monitor().unwrap();
    let error = rig.ceph.blocklist(&client).await.unwrap_err();
    assert!(matches!(error, CephError::Late { .. }), "{error:?}");
    rig.cluster.thaw_monitor().unwrap();
    rig.ceph.blocklisted().await.expect("the connection has come back by itself");

    // Of every client of this host, as somebody in a hurry does it.
    rig.cluster.ceph(&["osd", "blocklist", "add", "127.0.0.1:0/0", "3600"]).unwrap();
    rig.ceph.await_latest_map().await.unwrap();
    let error = rig.ceph.users(&image("one")).await.unwrap_err();
    assert!(matches!(error, CephError::ShutOut), "{error:?}");
    rig.cluster.ceph(&["osd", "blocklist", "rm", "127.0.0.1:0/0"]).unwrap();
    assert!(rig.ceph.users(&image("one")).await.unwrap().is_some(), "a new connection is let in");
}
