//! What looks at the cluster from outside and asks neither pvcd nor libvirt.

pub mod probe;
pub mod processes;
pub mod tree;
