//! Makes the tree say of a pool or a volume what Ceph has, whatever it said before.

use std::collections::BTreeSet;

use pvc_core::model::{
    ceph::{ImageName, PoolName, SnapshotName},
    storage::{ObservedImage, ObservedPool, TreeChange},
};

use super::{SNAPSHOTS, VOLUMES, json, osd_path, pool_path, snapshot_path, stats_path, volume_path};
use crate::{Store, StoreError, Transaction, put};

/// Adds what the tree lacks of it to a transaction.
pub(crate) async fn change(
    store: &dyn Store,
    txn: &mut Transaction,
    change: &TreeChange,
) -> Result<(), StoreError> {
    match change {
        TreeChange::Pool(pool, Some(observed)) => write(store, txn, pool_keys(pool, observed)).await,
        TreeChange::Pool(pool, None) => {
            for root in [pool_path(pool), format!("{VOLUMES}/{pool}"), format!("{SNAPSHOTS}/{pool}")] {
                remove(store, txn, &root).await?;
            }
            Ok(())
        }
        TreeChange::Volume(image, Some(observed)) => {
            let desired = volume_keys(image, observed);
            let kept: BTreeSet<&str> = desired.iter().map(|(path, _)| path.as_str()).collect();
            let parent = snapshots_path(image);
            for name in store.children(&parent).await?.unwrap_or_default() {
                let path = format!("{parent}/{name}");
                if !kept.contains(path.as_str()) {
                    remove(store, txn, &path).await?;
                }
            }
            write(store, txn, desired).await
        }
        TreeChange::Osd(osd, Some((node, device))) => {
            let path = osd_path(*osd);
            let keys = [("node", node.to_string()), ("device", device.to_string())];
            let named = keys.map(|(name, text)| (format!("{path}/{name}"), Some(text.into_bytes())));
            // Figures of the one that had this number before are not its.
            let stats = (stats_path(&path), Some(b"{}".to_vec()));
            write(store, txn, [vec![(path, None)], named.into(), vec![stats]].concat()).await
        }
        TreeChange::Osd(osd, None) => remove(store, txn, &osd_path(*osd)).await,
        TreeChange::Volume(image, None) => {
            remove(store, txn, &volume_path(&image.pool, &image.volume)).await?;
            remove(store, txn, &snapshots_path(image)).await
        }
    }
}

fn snapshots_path(image: &ImageName) -> String {
    format!("{SNAPSHOTS}/{}/{}", image.pool, image.volume)
}

/// Keys, parents first; those whose value is not ours to say are only made.
type Keys = Vec<(String, Option<Vec<u8>>)>;

fn pool_keys(pool: &PoolName, observed: &ObservedPool) -> Keys {
    let path = pool_path(pool);
    vec![
        (path.clone(), None),
        (format!("{path}/pgs"), Some(observed.pgs.to_string().into())),
        (stats_path(&path), Some(json(Some(&observed.stats)))),
        (format!("{VOLUMES}/{pool}"), None),
        (format!("{SNAPSHOTS}/{pool}"), None),
    ]
}

fn volume_keys(image: &ImageName, observed: &ObservedImage) -> Keys {
    let ImageName { pool, volume } = image;
    let path = volume_path(pool, volume);
    let mut keys = vec![
        (format!("{VOLUMES}/{pool}"), None),
        (format!("{SNAPSHOTS}/{pool}"), None),
        (path.clone(), None),
        (stats_path(&path), Some(json(Some(&observed.stats)))),
        (snapshots_path(image), None),
    ];
    // Made by somebody else, under a name that no client could say.
    let sayable = observed.snapshots.iter().filter_map(|name| name.parse::<SnapshotName>().ok());
    for snapshot in sayable {
        let path = snapshot_path(pool, volume, &snapshot);
        let stats = stats_path(&path);
        keys.extend([(path, None), (stats, Some(b"{}".to_vec()))]);
    }
    keys
}

async fn write(store: &dyn Store, txn: &mut Transaction, keys: Keys) -> Result<(), StoreError> {
    let paths: Vec<String> = keys.iter().map(|(path, _)| path.clone()).collect();
    let there = store.get_many(&paths).await?;
    for ((path, data), there) in keys.into_iter().zip(there) {
        match (there, data) {
            (None, data) => txn.create(path, data.unwrap_or_default()),
            (Some(there), Some(data)) if there.data != data => txn.set(path, data, Some(there.version)),
            (Some(_), _) => {}
        }
    }
    Ok(())
}

async fn remove(store: &dyn Store, txn: &mut Transaction, root: &str) -> Result<(), StoreError> {
    let found = put::subtree(store, root).await?;
    for path in found.into_iter().flat_map(|found| found.leaves_first) {
        txn.delete(path, None);
    }
    Ok(())
}
