//! Pools: made, and removed under a name that nobody else gives to one.

use super::{COPIES, Facts, Standing, counted, users};
use crate::model::{
    ceph::PoolName,
    storage::{CephChange, Hidden, TreeChange},
    storage_command::PgCount,
    task::Task,
};
use Standing::{Done, Impossible, Left, Next};

pub(super) fn add(pool: &PoolName, pgs: PgCount, facts: &Facts, begun: bool) -> Standing {
    match &facts.pool {
        Some(_) if !begun => Impossible(format!("there is a pool {pool} already")),
        None => Next(CephChange::CreatePool { pool: pool.clone(), pgs }),
        Some(found) if (found.copies, found.min_copies) != COPIES => {
            let (copies, min_copies) = COPIES;
            Next(CephChange::KeepCopies { pool: pool.clone(), copies, min_copies })
        }
        Some(found) if !found.is_for_images => Next(CephChange::MarkForImages { pool: pool.clone() }),
        Some(found) => Done(vec![TreeChange::Pool(pool.clone(), Some(found.clone()))]),
    }
}

/// The monitors cannot be kept from what a frozen primary asks of them when it goes on. So a pool is renamed before it is removed, to a name that no other
/// pool ever has: a removal that comes late finds nothing. It gets its name back if it stays.
pub(super) fn remove(task: &Task, pool: &PoolName, facts: &Facts, begun: bool) -> Standing {
    let aside = PoolName::of_task(&task.mark());
    let kept = why_kept(pool, facts);
    match (&facts.pool_aside, &facts.pool) {
        (Some(_), _) if !begun => Impossible(format!(
            "there is a pool {aside} already, which is the name for one that this task removes: rename it"
        )),
        (Some(_), there) => match (kept, there) {
            (None, _) => Next(CephChange::RemovePool { pool: aside }),
            (Some(_), None) => Next(CephChange::RenamePool { pool: aside, to: pool.clone() }),
            (Some(why), Some(_)) => Left(
                format!(
                    "{why}. It is called {aside} now, since there is another pool {pool} by now: `ceph osd pool rename`"
                ),
                Vec::new(),
            ),
        },
        (None, None) if begun || facts.is_in_tree => Done(vec![TreeChange::Pool(pool.clone(), None)]),
        (None, None) => Impossible(format!("there is no pool {pool}")),
        (None, Some(found))
            if !found.is_for_images && (begun || !facts.is_in_tree) && found.stats.num_objects > 0 =>
        {
            Impossible(format!("pool {pool} is no pool of images: pvcd does not know what is in it"))
        }
        (None, Some(_)) => match kept {
            Some(why) => Impossible(why),
            None => Next(CephChange::RenamePool { pool: pool.clone(), to: aside }),
        },
    }
}

/// Why it is not removed; `None`: nobody needs it, and Ceph has not refused.
fn why_kept(pool: &PoolName, facts: &Facts) -> Option<String> {
    if let Some(refused) = facts.refusal(|change| matches!(change, CephChange::RemovePool { .. })) {
        return Some(refused.why.clone());
    }
    if let Some(users) = users(facts) {
        return Some(format!("pool {pool} has volumes of {users}"));
    }
    match (facts.images.len(), &facts.hidden) {
        (0, Hidden { namespaces: 0, trash: 0 }) => None,
        (0, Hidden { namespaces: 0, trash }) => Some(format!(
            "pool {pool} has {} in its trash: `rbd trash ls {pool}` shows what, `rbd trash purge {pool}` removes it",
            counted(*trash, "image")
        )),
        (0, Hidden { namespaces, .. }) => Some(format!(
            "pool {pool} has {}: `rbd namespace ls {pool}` shows which, and `rbd namespace remove` removes one without images",
            counted(*namespaces, "namespace")
        )),
        (count, _) => Some(format!("pool {pool} has {}: remove them first", counted(count, "volume"))),
    }
}
