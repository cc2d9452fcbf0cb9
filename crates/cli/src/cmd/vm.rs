//! `pvc vm …`: wishes about virtual machines, and what is known of them.

mod define;
mod explain;
mod info;
mod list;
mod log;
mod migrate;
mod undefine;
mod wish;

use crate::{args, connect::Connection, failure::Failure, print::Out};

pub(super) async fn run(command: args::Vm, cluster: &Connection, out: &Out) -> Result<(), Failure> {
    use args::Vm;
    use wish::Kind;
    match command {
        Vm::Define { target, selector, file } => {
            define::define(cluster, out, &file, target.as_deref(), selector).await
        }
        Vm::Undefine { yes, vm, wait } => undefine::undefine(cluster, out, &vm.vm, yes, wait).await,
        Vm::Start(args) => wish::wish(cluster, out, Kind::Start, &args).await,
        Vm::Stop(args) => wish::wish(cluster, out, Kind::Stop, &args).await,
        Vm::Shutdown(args) => wish::wish(cluster, out, Kind::Shutdown, &args).await,
        Vm::Restart(args) => wish::wish(cluster, out, Kind::Restart, &args).await,
        Vm::Migrate(args) => migrate::migrate(cluster, out, migrate::Kind::Migrate, &args).await,
        Vm::Unmigrate { force, wish } => {
            let args = args::Migrate { target: None, selector: None, force, wish };
            migrate::migrate(cluster, out, migrate::Kind::Unmigrate, &args).await
        }
        Vm::Move(args) => migrate::migrate(cluster, out, migrate::Kind::Move, &args).await,
        Vm::List(args) => list::list(cluster, out, &args).await,
        Vm::Info { long, vm } => info::info(cluster, out, &vm.vm, long).await,
        Vm::Dump(vm) => info::dump(cluster, out, &vm.vm).await,
        Vm::Log { lines, follow, vm } => log::log(cluster, out, &vm.vm, lines, follow).await,
        Vm::Explain(vm) => explain::explain(cluster, out, &vm.vm).await,
    }
}
