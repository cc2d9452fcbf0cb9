//! What looks at the cluster from outside and asks neither pvcd nor libvirt.

pub mod clients;
pub mod probe;
pub mod processes;
pub mod question;
pub mod rack;
pub mod tree;
