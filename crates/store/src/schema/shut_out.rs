//! `/pvc/shut_out/<client>` **(ours)**: whose a client of Ceph is that was shut out, as JSON; the slash of its address is written `_`.
//!
//! Written before the record of that client (`/pvc/vm_clients`) is removed, removed when it is let in again.

use std::collections::BTreeMap;

use pvc_core::model::{
    Problem,
    ceph::{ClientAddress, Recorded, ShutOut, Whose},
};

use super::text::Decoder;
use crate::{CommitError, Store, StoreError, Transaction, put::put};

/// The parent of all of them.
pub const ROOT: &str = "/pvc/shut_out";

fn path(client: &ClientAddress) -> String {
    format!("{ROOT}/{}", client.to_string().replace('/', "_"))
}

/// Notes whose the clients of a record are, which are shut out.
///
/// # Errors
/// If the store refuses, or does not answer.
pub async fn note(store: &dyn Store, record: &Recorded) -> Result<(), CommitError> {
    let Recorded { vm, node, clients, .. } = record;
    let noted = ShutOut { whose: Whose::Vm(*vm), node: node.clone(), boot: clients.boot.clone() };
    for client in &clients.clients {
        note_one(store, client, &noted).await?;
    }
    Ok(())
}

/// Notes whose a client is that is shut out.
///
/// # Errors
/// If the store refuses, or does not answer.
pub async fn note_one(
    store: &dyn Store,
    client: &ClientAddress,
    shut_out: &ShutOut,
) -> Result<(), CommitError> {
    // Texts and numbers always have a JSON form.
    put(store, &path(client), serde_json::to_vec(shut_out).unwrap_or_default()).await
}

/// Forgets one that was let in again. Absent already is success.
///
/// # Errors
/// If the store refuses, or does not answer.
pub async fn forget(store: &dyn Store, client: &ClientAddress) -> Result<(), CommitError> {
    let mut txn = Transaction::default();
    txn.delete(path(client), None);
    match store.commit(txn).await {
        Err(CommitError::Conflict { .. }) => Ok(()),
        done => done.map(drop),
    }
}

/// All of them, and what is wrong with those that cannot be read.
///
/// # Errors
/// If the store does not answer.
pub async fn read_all(
    store: &dyn Store,
) -> Result<(BTreeMap<ClientAddress, ShutOut>, Vec<Problem>), StoreError> {
    let names = store.children(ROOT).await?.unwrap_or_default();
    let paths: Vec<String> = names.iter().map(|name| format!("{ROOT}/{name}")).collect();
    let values = store.get_many(&paths).await?;
    let (mut noted, mut d) = (BTreeMap::new(), Decoder::default());
    for ((name, path), value) in names.iter().zip(&paths).zip(values) {
        let Some(value) = value else { continue };
        match (name.replace('_', "/").parse(), serde_json::from_slice(&value.data)) {
            (Ok(client), Ok(shut_out)) => drop(noted.insert(client, shut_out)),
            (Err(error), _) => d.problem(path, error),
            (_, Err(error)) => d.problem(path, format_args!("not the expected JSON: {error}")),
        }
    }
    Ok((noted, d.problems))
}

#[cfg(test)]
mod tests {
    use pvc_core::model::ceph::VmClients;

    use super::*;
    use crate::memory::MemoryTree;

    #[tokio::test]
    async fn whose_they_are_is_read_back_and_forgotten_and_rubbish_is_told() {
        let store = MemoryTree::new().client();
        crate::schema::root::init(&*store).await.unwrap();
        let clients: Vec<ClientAddress> =
            ["10.0.0.1:0/7", "[fd00::1]:0/8"].map(|client| client.parse().unwrap()).into();
        let record = Recorded {
            vm: "11111111-0000-4000-8000-000000000001".parse().unwrap(),
            node: "a".parse().unwrap(),
            clients: VmClients {
                clients: clients.iter().copied().collect(),
                boot: Some("first".to_owned()),
                ..VmClients::default()
            },
            version: 0,
        };
        for _ in 0..2 {
            note(&*store, &record).await.unwrap();
        }
        let mut rubbish = Transaction::default();
        rubbish.create(format!("{ROOT}/nonsense"), "");
        store.commit(rubbish).await.unwrap();
        let (noted, problems) = read_all(&*store).await.unwrap();
        assert_eq!((noted.keys().copied().collect::<Vec<_>>(), problems.len()), (clients.clone(), 1));
        assert_eq!(noted[&clients[0]].boot.as_deref(), Some("first"));
        for _ in 0..2 {
            forget(&*store, &clients[0]).await.unwrap();
        }
        assert_eq!(read_all(&*store).await.unwrap().0.len(), 1);
    }
}
