//! What every store promises, proved on the fake and on a real ZooKeeper: the fake cannot lie.
//!
//! Cases are in `cases.rs`, written once against [`Bench`]; here they are run on both, on one that is asked once, and in `crates/sim/tests/contract.rs` on the simulator's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[macro_use]
mod list;

mod bench;
mod cases;
mod walk;
mod worlds;

macro_rules! on_all {
    ($($case:ident,)+) => {
        mod memory {
            $(
                #[tokio::test(start_paused = true)]
                async fn $case() {
                    super::cases::$case(&super::worlds::Memory::default()).await;
                }
            )+
        }
        mod kept {
            $(
                #[tokio::test(start_paused = true)]
                async fn $case() {
                    super::cases::$case(&super::worlds::Kept::default()).await;
                }
            )+
        }
        mod zookeeper {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::cases::$case(&super::worlds::Real::start().await).await;
                }
            )+
        }
    };
}

with_all_cases!(on_all);
