//! How long the command line client takes for an answer, from its process's start to its end.

use std::{path::Path, time::Instant};

use anyhow::Result;

use crate::{
    capsule::ZOOKEEPER,
    probe,
    program::{command, output},
};

/// One sample a run.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) seconds: Vec<f64>,
    pub(crate) packets: Vec<f64>,
}

pub(crate) fn measure(binaries: &Path, arguments: &[&str], repeat: usize) -> Result<Answers> {
    let mut pvc = command(binaries.join("pvc"));
    pvc.env("PVC_ZOOKEEPER", ZOOKEEPER).args(arguments);
    // The first run reads the program from disk.
    output(&mut pvc)?;
    let mut answers = Answers::default();
    for _ in 0..repeat {
        let before = probe::zookeeper()?;
        let began = Instant::now();
        output(&mut pvc)?;
        answers.seconds.push(began.elapsed().as_secs_f64());
        answers.packets.push(probe::zookeeper()?.packets - before.packets);
    }
    Ok(answers)
}
