//! Gives a VM another definition.

use pvc_core::{command::vm as command, model::VmId};
use pvc_store::schema::vm;

use crate::{
    Answer, Cluster, Failure,
    write::{ATTEMPTS, Tries},
};

/// Replaces a VM's definition; `seen` as for [`command::modify`].
pub async fn modify(cluster: &Cluster, id: VmId, xml: &str, seen: Option<i32>) -> Result<Answer, Failure> {
    let mut tries = Tries::of(ATTEMPTS);
    loop {
        let vm = cluster.vm(id).await?;
        let before = cluster.xml(id).await?.unwrap_or_default();
        let accepted = command::modify(&vm, &before, xml, seen)?;
        let answer =
            Answer { message: format!("the definition of VM {} is changed", vm.name), notes: accepted.notes };
        let Some(change) = &accepted.change else {
            return Ok(Answer { message: format!("VM {} stays as it is", vm.name), ..answer });
        };
        if tries.wrote(vm::apply(&*cluster.store, change).await)? {
            return Ok(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use pvc_store::schema::vm;

    use super::*;
    use crate::testing::{Fake, id};

    #[tokio::test]
    async fn a_definition_is_changed_unless_a_newer_one_is_there() {
        let fake = Fake::with(&["hv1"]).await;
        fake.define(1, "web1", "hv1").await;
        let bare = fake.get(&vm::xml_path(id(1))).await.unwrap();
        modify(&fake.cluster, id(1), &bare, None).await.unwrap();
        let (before, version) = vm::read_xml(&*fake.cluster.store, id(1)).await.unwrap().unwrap();
        let larger = before.replace(">100<", ">200<");
        let done = modify(&fake.cluster, id(1), &larger, Some(version)).await.unwrap();
        assert_eq!(done.message, "the definition of VM web1 is changed");
        assert_eq!(fake.get(&vm::xml_path(id(1))).await.as_deref(), Some(larger.as_str()));
        let again = modify(&fake.cluster, id(1), &larger, None).await.unwrap();
        assert_eq!(again.message, "VM web1 stays as it is");
        let late = modify(&fake.cluster, id(1), &before, Some(version)).await.unwrap_err().to_string();
        assert!(late.contains("somebody else has changed"), "{late}");
        assert_eq!(fake.get(&vm::xml_path(id(1))).await, Some(larger));
    }
}
