//! `pvc task …`: what the primary coordinator was asked to do, and what became of it.

use pvc_operate::storage::TaskRow;

use super::{follow, now_unix_s};
use crate::{
    args::Task,
    door::Door,
    failure::Failure,
    print::{
        Out,
        table::{Cell, pairs, printable, table},
    },
};

pub(super) async fn run(command: Task, door: &Door, out: &Out) -> Result<(), Failure> {
    match command {
        Task::List => list(door, out).await,
        Task::Info { task } => info(&door.task(task).await?, out),
        Task::Wait { within, task } => {
            follow::follow(door, out, door.follow_task(task).await?, Some(within)).await
        }
        Task::Cancel { change, task } => {
            let asked = door.cancel_task(task).await?;
            follow::follow(door, out, asked, (!change.no_wait).then_some(change.within)).await
        }
    }
}

async fn list(door: &Door, out: &Out) -> Result<(), Failure> {
    let (tasks, problems) = door.tasks().await?;
    if out.is_json() {
        return out.json(&tasks);
    }
    let now = now_unix_s();
    let row = |task: &TaskRow| -> Vec<Cell> {
        vec![
            task.id.to_string().into(),
            Cell::state(&task.state),
            ago(task.asked_at, now).into(),
            Cell::from(&task.what),
            Cell::from(task.trouble.clone().or_else(|| task.progress.map(far)).unwrap_or_default()),
        ]
    };
    let rows: Vec<Vec<Cell>> = tasks.iter().map(row).collect();
    out.write(&table(&["task", "state", "asked", "what", ""], &rows, out.colour()))?;
    for problem in problems {
        out.write(&format!("? {}\n", printable(&problem.to_string())))?;
    }
    Ok(())
}

fn info(task: &TaskRow, out: &Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(task);
    }
    let now = now_unix_s();
    let mut lines = vec![
        ("task", Cell::from(task.id.to_string())),
        ("what", Cell::from(&task.what)),
        ("asked", format!("by {}, {}", task.by, ago(task.asked_at, now)).into()),
        ("state", Cell::state(&task.state)),
    ];
    if let Some(node) = &task.node {
        lines.push(("carried out by", Cell::from(node)));
    }
    if let Some(percent) = task.progress {
        lines.push(("progress", far(percent).into()));
    }
    if let Some(by) = &task.cancelled_by {
        lines.push(("to be cancelled", format!("says {by}").into()));
    }
    if let Some(why) = &task.goes_on {
        lines.push(("goes on, since", Cell::from(why)));
    }
    if let Some(at) = task.over_at {
        lines.push(("over", ago(at, now).into()));
    }
    if let Some(trouble) = &task.trouble {
        lines.push(("because", Cell::from(trouble)));
    }
    out.write(&pairs(&lines, out.colour()))
}

fn far(percent: u8) -> String {
    format!("{percent} % done")
}

fn ago(at: u64, now: u64) -> String {
    format!("{} s ago", now.saturating_sub(at))
}
