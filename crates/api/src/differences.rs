//! What is to be told to listeners of two views of the cluster: which objects are others, or gone, and in words what has become of them, which are the command line's.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use pvc_core::{command::news, model::ClusterView};
use serde_json::json;

/// The last two views that were compared, and what is to be told of them: all listeners that keep up compare the same two.
#[derive(Default)]
pub(crate) struct Differences(Mutex<Option<Difference>>);

struct Difference {
    before: Arc<ClusterView>,
    now: Arc<ClusterView>,
    told: Arc<str>,
}

impl Differences {
    /// One event after the other, as they are sent; empty: nothing that anybody is told of.
    pub(crate) fn between(&self, before: &Arc<ClusterView>, now: &Arc<ClusterView>) -> Arc<str> {
        // Held while they are compared: whoever comes meanwhile wants the same.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*last
            && Arc::ptr_eq(&last.before, before)
            && Arc::ptr_eq(&last.now, now)
        {
            return Arc::clone(&last.told);
        }
        let told: Arc<str> = told(before, now).into();
        let (before, now) = (Arc::clone(before), Arc::clone(now));
        *last = Some(Difference { before, now, told: Arc::clone(&told) });
        told
    }
}

/// So many sentences at once: who looks away for long, or comes when much is removed, looks at the lists.
const MOST_NEWS: usize = 500;

fn told(before: &ClusterView, now: &ClusterView) -> String {
    let mut told = String::new();
    compare(&mut told, "node", &before.nodes, &now.nodes);
    compare(&mut told, "vm", &before.vms, &now.vms);
    compare(&mut told, "network", &before.networks, &now.networks);
    if (&before.primary_holder, &before.primary_node.value, before.maintenance)
        != (&now.primary_holder, &now.primary_node.value, now.maintenance)
        || before.fences != now.fences
    {
        say(&mut told, "cluster", "", false);
    }
    let news = news::between(before, now);
    for sentence in news.iter().take(MOST_NEWS) {
        tell(&mut told, &json!(sentence));
    }
    if let Some(more @ 1..) = news.len().checked_sub(MOST_NEWS) {
        tell(
            &mut told,
            &json!({ "kind": "cluster", "id": "", "name": "", "what": format!("and {more} changes more") }),
        );
    }
    told
}

/// An object that was read again is another one; those that were not are shared between views.
fn compare<K: Ord + ToString, V>(
    told: &mut String,
    kind: &str,
    before: &BTreeMap<K, Arc<V>>,
    now: &BTreeMap<K, Arc<V>>,
) {
    for (key, object) in now {
        if before.get(key).is_none_or(|known| !Arc::ptr_eq(known, object)) {
            say(told, kind, &key.to_string(), false);
        }
    }
    for key in before.keys().filter(|key| !now.contains_key(key)) {
        say(told, kind, &key.to_string(), true);
    }
}

fn tell(told: &mut String, news: &serde_json::Value) {
    // As below.
    let _ = write!(told, "event: news\ndata: {news}\n\n");
}

fn say(told: &mut String, kind: &str, id: &str, gone: bool) {
    let data = json!({ "kind": kind, "id": id, "gone": gone });
    // Writing to a text cannot fail.
    let _ = write!(told, "event: {kind}\ndata: {data}\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_told_of_the_same_two_views_only() {
        let view = |maintenance| Arc::new(ClusterView { maintenance, ..ClusterView::default() });
        let (off, on, same) = (view(false), view(true), view(true));
        let differences = Differences::default();
        for _ in 0..2 {
            assert!(differences.between(&off, &on).contains("cluster"));
        }
        assert_eq!(&*differences.between(&on, &same), "", "another before");
        assert!(differences.between(&off, &same).contains("cluster"));
        assert_eq!(&*differences.between(&off, &off), "", "another now");
    }
}
