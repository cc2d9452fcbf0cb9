//! Shows a person what is waited for. Ctrl-C ends the waiting, not what was asked for.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pvc_operate::Progress;
use tokio::time::Instant;

use crate::{
    door::{Door, Pending},
    failure::Failure,
    print::Out,
};

/// Does what takes time. `interrupted`: what to say of it at a Ctrl-C, from what was waited for last.
pub(super) async fn watched<T>(
    out: &Out,
    interrupted: impl FnOnce(&str) -> String,
    work: impl AsyncFnOnce(Progress<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (began, last) = (Instant::now(), Mutex::new(String::new()));
    let progress = |waiting_for: &str| {
        out.progress(&format!("{} s: {waiting_for}", began.elapsed().as_secs()));
        waiting_for.clone_into(&mut last.lock().unwrap_or_else(PoisonError::into_inner));
    };
    let ended = tokio::select! {
        ended = work(&progress) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted(interrupted(&last.lock().unwrap_or_else(PoisonError::into_inner)))),
    };
    out.progress_done();
    ended
}

/// Says what was asked for, or waits until it is so.
pub(super) async fn follow(
    door: &Door,
    out: &Out,
    asked: Pending,
    within: Option<Duration>,
) -> Result<(), Failure> {
    let Some(within) = within.filter(|_| !asked.is_settled()) else { return out.answer(&asked.answer) };
    for note in &asked.answer.notes {
        out.aside(&format!("{}: {note}", asked.subject));
    }
    let (message, more) = (asked.answer.message.clone(), asked.more.clone());
    let interrupted = |waiting: &str| {
        let waiting = if waiting.is_empty() { String::new() } else { format!(" ({waiting})") };
        format!("{message} all the same{waiting}. {more}")
    };
    let work = async |progress: Progress<'_>| asked.wait(door, within, progress).await;
    out.answer(&watched(out, interrupted, work).await?)
}

/// Prepares a command that listens for a while whether a node lives.
pub(super) async fn listening<T>(
    out: &Out,
    prepare: impl AsyncFnOnce(Progress<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    watched(out, |_| "nothing was written".to_owned(), prepare).await
}
