//! `pvc maintenance [on|off]`.

use pvc_core::command::cluster;
use pvc_store::schema::maintenance as switch;
use serde::Serialize;

use crate::{args::Switch, connect::Connection, failure::Failure, print::Out};

#[derive(Serialize)]
struct Shown {
    maintenance: bool,
}

pub(super) async fn maintenance(
    cluster: &Connection,
    out: &Out,
    wish: Option<Switch>,
) -> Result<(), Failure> {
    let view = cluster.view().await?;
    let Some(wish) = wish else {
        if out.is_json() {
            return out.json(&Shown { maintenance: view.maintenance });
        }
        let off = "maintenance is off: silent nodes are fenced as configured";
        return out.write(&format!("{}\n", if view.maintenance { cluster::MAINTENANCE } else { off }));
    };
    let on = wish == Switch::On;
    let accepted = cluster::maintenance(&view, on);
    if let Some(on) = accepted.change {
        switch::set(&*cluster.store, on).await?;
    }
    out.message(if on { cluster::MAINTENANCE } else { "maintenance is off" }, &accepted.notes)
}
