//! OSDs: what Ceph says of them, and numbers for new ones.

use pvc_core::model::{
    ceph::OsdId,
    osd::{ObservedOsd, OsdUuid, Osds},
};
use serde_json::{Value, json};

use super::{
    super::{CephError, cluster::Cluster},
    Librados,
    osd_dump::{self, Dump, Osd, Pool},
};

pub(super) fn observe(cluster: &Cluster) -> Result<Osds, CephError> {
    let Dump { osds, pools } = osd_dump::dump(cluster)?;
    let used = osd_dump::used(cluster)?;
    let by_host = osd_dump::rules_by_host(cluster)?;
    let mut hosts = osd_dump::hosts(cluster)?;
    let observed = |osd: Osd| -> Result<(OsdId, ObservedOsd), CephError> {
        let used = used.get(&osd.id);
        Ok((
            OsdId(osd.id),
            ObservedOsd {
                uuid: osd.uuid.try_into().map_err(CephError::Strange)?,
                is_in: osd.r#in != 0,
                is_up: osd.up != 0,
                was_up: osd.up_from > 0,
                is_destroyed: osd.state.iter().any(|word| word == "destroyed"),
                weight: used.map(|used| used.crush_weight),
                host: hosts.remove(&osd.id),
                pgs: used.map_or(0, |used| used.pgs),
                kib: used.map_or(0, |used| used.kb),
                kib_used: used.map_or(0, |used| used.kb_used),
                kib_data: used.map_or(0, |used| used.kb_used_data.saturating_add(used.kb_used_omap)),
            },
        ))
    };
    let most = |pools: &mut dyn Iterator<Item = &Pool>| {
        pools.max_by_key(|pool| pool.size).map(|pool| (pool.size, pool.name.clone()))
    };
    Ok(Osds {
        all: osds.into_iter().map(observed).collect::<Result<_, _>>()?,
        most_copies: most(&mut pools.iter()),
        most_hosts: most(&mut pools.iter().filter(|pool| by_host.contains(&pool.crush_rule))),
    })
}

/// Whether nothing is lost without it.
pub(super) fn is_safe(osd: OsdId) -> Value {
    json!({"prefix": "osd safe-to-destroy", "ids": [osd.to_string()]})
}

/// `osd purge` is the manager's, which asks itself whether that is safe, then asks the monitors for this. It has no answer to who comes by way of the monitors.
pub(super) fn purge(osd: OsdId) -> Value {
    json!({"prefix": "osd purge-actual", "id": osd.0, "yes_i_really_mean_it": true})
}

/// The monitors refuse it of one that was ever heard: whenever this arrives, no data is lost.
pub(super) fn purge_new(osd: OsdId) -> Value {
    json!({"prefix": "osd purge-new", "id": osd.0, "yes_i_really_mean_it": true})
}

/// Its number stays taken. One that was never heard of has nothing that could be lost. For the name see [`purge`].
pub(super) fn destroy(osd: OsdId) -> Value {
    json!({"prefix": "osd destroy-actual", "id": osd.0, "yes_i_really_mean_it": true})
}

impl Librados {
    /// Asked a second time, Ceph answers the number that this UUID has.
    pub(super) async fn take_number(&self, uuid: &OsdUuid) -> Result<(), CephError> {
        self.monitors(json!({"prefix": "osd new", "uuid": uuid.as_str()})).await.map(drop)
    }

    pub(super) async fn why_unsafe(&self, osd: OsdId) -> Result<Option<String>, CephError> {
        match self.monitors(is_safe(osd)).await {
            Ok(_) => Ok(None),
            // It says no by an error.
            Err(CephError::Refused { why, .. }) => Ok(Some(why)),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn bootstrap_key(&self) -> Result<String, CephError> {
        let entity = "client.bootstrap-osd";
        let keyring = match self.monitors(json!({"prefix": "auth get", "entity": entity})).await {
            Err(CephError::Refused { .. }) => {
                let caps = ["mon", "allow profile bootstrap-osd"];
                self.monitors(json!({"prefix": "auth get-or-create", "entity": entity, "caps": caps})).await?
            }
            keyring => keyring?,
        };
        String::from_utf8(keyring).map_err(|_| CephError::Strange("a keyring that is no text".to_owned()))
    }
}
