//! Which nodes are fenced, and how far that has come.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

use pvc_core::model::{Entry, FenceJob, NodeName, Problem};
use serde::{Deserialize, Serialize};

use crate::{Cluster, Failure};

/// A fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceRow {
    pub node: NodeName,
    /// `None`: the record cannot be read.
    #[serde(flatten)]
    pub job: Option<FenceJob>,
    /// Who works on it now; `None`: nobody.
    pub fencer: Option<NodeName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// All fences, by node.
pub async fn fences(cluster: &Cluster) -> Result<Vec<FenceRow>, Failure> {
    let view = cluster.view_without_vms().await?;
    let row = |(node, entry): (&NodeName, &Entry<_>)| match entry {
        Entry::Good(fence) => row(fence),
        Entry::Bad(problems) => FenceRow {
            node: node.clone(),
            job: None,
            fencer: None,
            problems: problems.iter().map(Problem::to_string).collect(),
        },
    };
    Ok(view.fences.iter().map(row).collect())
}

fn row(fence: &pvc_core::model::Fence) -> FenceRow {
    FenceRow {
        node: fence.node.clone(),
        job: Some(fence.job.clone()),
        fencer: fence.fencer.clone(),
        problems: Vec::new(),
    }
}
