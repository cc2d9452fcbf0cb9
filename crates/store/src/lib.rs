//! The cluster's state tree: the store behind it (ZooKeeper, or memory for tests), the schema of its keys, and a mirror
//! of it that is cheap to read. The only crate that knows key names and value formats.

mod heard;
mod kept;
mod layer;
pub mod lock;
#[cfg(any(test, feature = "fake"))]
pub mod memory;
pub mod mirror;
mod put;
pub mod schema;
pub mod servers;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod trial;
pub mod zookeeper;

pub use heard::Heard;
pub use kept::Kept;
pub use layer::Layer;
pub use store::{
    Check, Children, Clash, CommitError, Committed, CreateMode, Op, Session, Stat, Store, StoreError,
    Transaction, Value, Watch, WatchEvent,
};
pub use trial::Trial;
