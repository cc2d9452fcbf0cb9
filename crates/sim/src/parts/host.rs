//! A simulated machine, as its daemon asks about it: memory that guests take, a wall clock that faults set, processes that were killed.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
};

use pvc_core::model::{MachineId, StaticData};
use pvc_host::{
    hypervisor::fake::FakeHypervisor,
    machine::{Figures, Machine},
};

use crate::journal::Journal;

/// Where simulated wall clocks begin.
pub(crate) const EPOCH_S: u64 = 1_700_000_000;
/// What the machine needs itself, MiB.
const OVERHEAD_MIB: u64 = 2048;
/// The process id of a daemon's first run.
const FIRST_PID: u32 = 1000;

/// What outlives boots of a machine.
#[derive(Debug, Default)]
pub struct Hardware {
    /// By how much its wall clock is wrong.
    pub clock_offset_s: AtomicI64,
    /// The run of its daemon that has a process; 0: none.
    pub living_run: AtomicU32,
}

/// See the module's documentation.
pub struct SimMachine {
    /// Its memory, MiB.
    pub memory_mib: u64,
    /// What tells it from other machines.
    pub id: MachineId,
    /// What outlives its boots.
    pub hardware: Arc<Hardware>,
    /// What its guests are.
    pub hypervisor: Arc<FakeHypervisor>,
    /// The time.
    pub journal: Arc<Journal>,
}

/// The process id of a run.
pub fn pid(run: u32) -> u32 {
    FIRST_PID + run
}

impl Machine for SimMachine {
    fn describe(&self) -> io::Result<StaticData> {
        Ok(StaticData {
            cpu_count: 16,
            kernel: "6.1.0-18-amd64".into(),
            os: "GNU/Linux".into(),
            arch: "x86_64".into(),
        })
    }

    fn identity(&self) -> MachineId {
        self.id.clone()
    }

    fn figures(&self) -> io::Result<Figures> {
        let used = OVERHEAD_MIB + self.hypervisor.memory_mib();
        Ok(Figures {
            mem_total_mib: self.memory_mib,
            mem_used_mib: used,
            mem_free_mib: self.memory_mib.saturating_sub(used),
            load: 0.25,
        })
    }

    fn unix_s(&self) -> u64 {
        let offset = self.hardware.clock_offset_s.load(Ordering::Relaxed);
        (EPOCH_S + self.journal.now().as_secs()).saturating_add_signed(offset)
    }

    fn process_started(&self, asked: u32) -> io::Result<Option<u64>> {
        let living = self.hardware.living_run.load(Ordering::Relaxed);
        Ok((living != 0 && pid(living) == asked).then_some(living.into()))
    }
}
