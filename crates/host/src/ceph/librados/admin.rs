//! Looks at pools, images and OSDs.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use pvc_core::model::{
    ceph::{ClientAddress, ImageName, OsdId, PoolName},
    osd::{OsdUuid, Osds},
    storage::{CephChange, Hidden, ObservedImage, ObservedPool, OsdMap},
};
use serde::Deserialize;

use super::{
    super::{Ceph as _, CephAdmin, CephError, OnlyIf, Progress, cluster::Cluster},
    Librados,
    figures::{self, read},
    osds, users,
};

/// Of the answer to `osd dump`.
#[derive(Deserialize)]
struct Dump {
    osds: Vec<Osd>,
    pools: Vec<Pool>,
    flags_set: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Osd {
    osd: u32,
    r#in: u8,
}

#[derive(Deserialize)]
#[allow(clippy::struct_field_names, reason = "Ceph's words")]
struct Pool {
    pool: u64,
    pool_name: String,
    size: u32,
    min_size: u32,
    /// What it is on the way to.
    pg_num_target: u32,
    /// By application.
    application_metadata: BTreeMap<String, BTreeMap<String, String>>,
}

#[async_trait]
impl CephAdmin for Librados {
    async fn pool(&self, pool: &PoolName) -> Result<Option<ObservedPool>, CephError> {
        let name = pool.clone();
        self.call(format!("what pool {pool} is"), move |cluster| observe_pool(cluster, name.as_str())).await
    }

    async fn images(&self, pool: &PoolName) -> Result<Vec<String>, CephError> {
        let name = pool.clone();
        let list = move |cluster: &Cluster| Ok(cluster.images(name.as_str())?);
        self.call(format!("the images of pool {pool}"), list).await
    }

    async fn image(&self, image: &ImageName) -> Result<Option<ObservedImage>, CephError> {
        let name = image.clone();
        self.call(format!("what image {image} is"), move |cluster| observe_image(cluster, &name)).await
    }

    async fn osds(&self) -> Result<OsdMap, CephError> {
        self.call("the OSDs".to_owned(), observe_osds).await
    }

    async fn osd_map(&self) -> Result<Osds, CephError> {
        self.call("the OSDs".to_owned(), osds::observe).await
    }

    async fn take_osd_number(&self, uuid: &OsdUuid) -> Result<(), CephError> {
        self.take_number(uuid).await
    }

    async fn unsafe_to_destroy(&self, osd: OsdId) -> Result<Option<String>, CephError> {
        self.why_unsafe(osd).await
    }

    async fn osd_key(&self) -> Result<String, CephError> {
        self.bootstrap_key().await
    }

    async fn hidden(&self, pool: &PoolName) -> Result<Hidden, CephError> {
        let name = pool.clone();
        let look = move |cluster: &Cluster| {
            let (namespaces, trash) =
                (cluster.count_namespaces(name.as_str())?, cluster.count_trash(name.as_str())?);
            Ok(Hidden { namespaces, trash })
        };
        self.call(format!("what else is in pool {pool}"), look).await
    }

    async fn retire(&self, client: &ClientAddress, images: &[ImageName]) -> Result<(), CephError> {
        for image in images {
            let (name, client) = (image.clone(), *client);
            let look = move |cluster: &Cluster| {
                let open = cluster.open(name.pool.as_str(), name.volume.as_str())?;
                let Some(open) = open else { return Ok(false) };
                Ok(users(&open)?.watchers.contains(&client) && open.is_answered()?)
            };
            // What is not known is no reason to wait: to be shut out costs a change that goes on nothing but time.
            if self.call(format!("whether client {client} is changing {image}"), look).await == Ok(true) {
                return Err(CephError::Late { doing: format!("client {client} is changing {image}") });
            }
        }
        self.blocklist(client).await?;
        self.await_latest_map().await
    }

    async fn change(
        &self,
        change: &CephChange,
        only_if: OnlyIf<'_>,
        progress: &Progress,
    ) -> Result<(), CephError> {
        self.make(change.clone(), only_if, progress).await
    }
}

fn observe_pool(cluster: &Cluster, name: &str) -> Result<Option<ObservedPool>, CephError> {
    let Dump { pools, .. } = read(cluster, "osd dump")?;
    let Some(pool) = pools.into_iter().find(|pool| pool.pool_name == name) else { return Ok(None) };
    // Removed meanwhile.
    let Some(stat) = cluster.pool_stat(name)? else { return Ok(None) };
    Ok(Some(ObservedPool {
        pgs: pool.pg_num_target,
        copies: pool.size,
        min_copies: pool.min_size,
        is_for_images: pool.application_metadata.contains_key("rbd"),
        stats: figures::stats(pool.pool, &stat),
    }))
}

fn observe_image(cluster: &Cluster, name: &ImageName) -> Result<Option<ObservedImage>, CephError> {
    let (pool, volume) = (name.pool.as_str(), name.volume.as_str());
    if let Some(image) = cluster.open(pool, volume)? {
        let (id, stats, snapshots, mark) = (image.id()?, image.stats()?, image.snapshots()?, image.mark()?);
        return Ok(Some(ObservedImage { id, stats, snapshots, mark }));
    }
    // Whoever removes an image takes it from the list last. One whose removal was broken off has no figures any more.
    let is_listed = cluster.images(pool)?.iter().any(|listed| listed == volume);
    Ok(is_listed.then(ObservedImage::default))
}

fn observe_osds(cluster: &Cluster) -> Result<OsdMap, CephError> {
    let Dump { osds, flags_set: mut flags, .. } = read(cluster, "osd dump")?;
    // Set and cleared by one word.
    if flags.contains("pauserd") && flags.contains("pausewr") {
        flags.insert("pause".to_owned());
    }
    let is_in = osds.into_iter().map(|osd| (OsdId(osd.osd), osd.r#in != 0)).collect();
    Ok(OsdMap { is_in, flags })
}
