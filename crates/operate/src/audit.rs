//! What was changed over the API, and by whom.

use pvc_core::model::{Problem, audit::AuditEntry};
use pvc_store::schema::audit;

use crate::{Cluster, Failure};

/// The last changes, the newest first, and what is wrong with those that cannot be read.
pub async fn list(cluster: &Cluster, most: u64) -> Result<(Vec<AuditEntry>, Vec<Problem>), Failure> {
    Ok(audit::read(&*cluster.store, most).await?)
}
