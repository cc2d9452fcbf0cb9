//! What Ceph's monitors say of all OSDs, read once for all who want a part of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{
    super::{CephError, cluster::Cluster},
    figures::read,
};

/// Of the answer to `osd dump`.
#[derive(Deserialize)]
pub(super) struct Dump {
    pub(super) osds: Vec<Osd>,
    pub(super) pools: Vec<Pool>,
}

#[derive(Deserialize)]
pub(super) struct Osd {
    #[serde(rename = "osd")]
    pub(super) id: u32,
    pub(super) uuid: String,
    pub(super) up: u8,
    pub(super) r#in: u8,
    /// When it was last heard anew; 0: never.
    pub(super) up_from: u64,
    pub(super) primary_affinity: f64,
    /// In Ceph's order.
    pub(super) state: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct Pool {
    #[serde(rename = "pool_name")]
    pub(super) name: String,
    pub(super) size: u32,
    pub(super) crush_rule: i64,
}

/// Of the answer to `osd df`.
#[derive(Deserialize)]
struct Df {
    nodes: Vec<Figures>,
}

#[derive(Deserialize)]
pub(super) struct Figures {
    id: i64,
    pub(super) crush_weight: f64,
    pub(super) reweight: f64,
    pub(super) pgs: u64,
    pub(super) kb: u64,
    pub(super) kb_used: u64,
    pub(super) kb_used_data: u64,
    pub(super) kb_used_omap: u64,
    pub(super) utilization: f64,
    pub(super) var: f64,
}

/// Of the answer to `osd crush rule dump`.
#[derive(Deserialize)]
struct Rule {
    #[serde(rename = "rule_id")]
    id: i64,
    steps: Vec<RuleStep>,
}

#[derive(Deserialize)]
struct RuleStep {
    #[serde(default)]
    r#type: String,
}

/// Of the answer to `osd metadata`.
#[derive(Deserialize)]
struct Metadata {
    id: u32,
    hostname: Option<String>,
}

/// The OSDs and the pools.
pub(super) fn dump(cluster: &Cluster) -> Result<Dump, CephError> {
    read(cluster, "osd dump")
}

/// How much is on each, by its number. One that was never used may not be there.
pub(super) fn used(cluster: &Cluster) -> Result<BTreeMap<u32, Figures>, CephError> {
    Ok(by_number(read::<Df>(cluster, "osd df")?))
}

/// Numbers below zero are hosts and other parts of the map.
fn by_number(df: Df) -> BTreeMap<u32, Figures> {
    df.nodes.into_iter().filter_map(|used| Some((u32::try_from(used.id).ok()?, used))).collect()
}

/// The rules that put each copy on another host.
pub(super) fn rules_by_host(cluster: &Cluster) -> Result<BTreeSet<i64>, CephError> {
    let mut rules: Vec<Rule> = read(cluster, "osd crush rule dump")?;
    rules.retain(|rule| rule.steps.iter().any(|step| step.r#type == "host"));
    Ok(rules.into_iter().map(|rule| rule.id).collect())
}

/// The short name of the host that each was on last.
pub(super) fn hosts(cluster: &Cluster) -> Result<BTreeMap<u32, String>, CephError> {
    let metadata: Vec<Metadata> = read(cluster, "osd metadata")?;
    let short = |osd: Metadata| Some((osd.id, osd.hostname?.split('.').next()?.to_owned()));
    Ok(metadata.into_iter().filter_map(short).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ceph_16_answers_is_read() {
        let dump: Dump = serde_json::from_str(
            r#"{"epoch":9,"pools":[{"pool":1,"pool_name":"vms","size":3,"crush_rule":0}],
                "osds":[{"osd":2,"uuid":"70766364-0000-4000-8000-000000000001","up":1,"in":1,"weight":1,"primary_affinity":0.5,
                         "up_from":7,"state":["exists","up"]}]}"#,
        )
        .unwrap();
        let osd = &dump.osds[0];
        assert_eq!(
            (osd.id, osd.up, osd.r#in, osd.up_from, osd.state.join(",")),
            (2, 1, 1, 7, "exists,up".into())
        );
        assert_eq!((dump.pools[0].name.as_str(), dump.pools[0].size), ("vms", 3));
        let figures = r#""crush_weight":0.5,"reweight":1.0,"pgs":8,"kb":100,"kb_used":20,"kb_used_data":10,"kb_used_omap":1,
                         "kb_used_meta":9,"utilization":20.0,"var":1.0"#;
        let df = format!(r#"{{"nodes":[{{"id":2,{figures}}},{{"id":-1,{figures}}}],"stray":[]}}"#);
        let used = by_number(serde_json::from_str(&df).unwrap());
        assert_eq!(used.keys().copied().collect::<Vec<_>>(), [2]);
        assert_eq!((used[&2].pgs, used[&2].kb_used_data), (8, 10));
    }
}
