//! `pvc init`. Creates what is absent and never touches what exists: a second run does nothing.

use pvc_store::schema::root;

use crate::{connect::Connection, failure::Failure, print::Out};

pub(super) async fn init(cluster: &Connection, out: &Out) -> Result<(), Failure> {
    let created = root::init(&*cluster.store).await?;
    let message = match created.len() {
        0 => format!("the state store at {} was initialised already; nothing was changed", cluster.addresses),
        keys => format!("the state store at {} is initialised: {keys} keys created", cluster.addresses),
    };
    out.message(&message, &[])
}
