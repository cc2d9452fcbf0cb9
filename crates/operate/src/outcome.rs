//! Whether what was asked for is so, for who looks from elsewhere: one look at a [`Goal`].

use crate::{
    Answer, Cluster, Failure, Goal, node, storage, vm,
    wait::{Look, Pursuit},
};

/// Looks whether it is so, by what is known no earlier than now.
///
/// # Errors
/// If it cannot be so any more.
pub async fn look(cluster: &Cluster, goal: Goal) -> Result<Look<Answer>, Failure> {
    cluster.store.sync().await?;
    let mut pursuit: Box<dyn Pursuit> = match goal {
        Goal::Vm(vm, desired) => Box::new(vm::DesiredPursuit::of(vm, desired)),
        Goal::Moved { vm, from, to } => Box::new(vm::Arrival { id: vm, from, to }),
        Goal::Node(name, goal) => node::pursuit(name, goal),
        Goal::Task(task, goal) => storage::pursuit(task, goal),
    };
    pursuit.look(cluster).await
}
