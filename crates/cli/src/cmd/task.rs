//! `pvc task …`: what the primary coordinator was asked to do, and what became of it.

use pvc_operate::{
    Cluster,
    storage::{self as command, TaskRow},
};

use super::{follow, now_unix_s, operator};
use crate::{
    args::Task,
    failure::Failure,
    print::{
        Out,
        table::{Cell, pairs, printable, table},
    },
};

pub(super) async fn run(command: Task, cluster: &Cluster, out: &Out) -> Result<(), Failure> {
    match command {
        Task::List => list(cluster, out).await,
        Task::Info { task } => info(&command::info(cluster, task).await?, out),
        Task::Wait { within, task } => {
            follow::follow(cluster, out, command::wait(cluster, task).await?, Some(within)).await
        }
        Task::Cancel { task } => {
            out.answer(&command::cancel(cluster, task, &operator(), now_unix_s()).await?)
        }
    }
}

async fn list(cluster: &Cluster, out: &Out) -> Result<(), Failure> {
    let (tasks, problems) = command::tasks(cluster).await?;
    if out.is_json() {
        return out.json(&tasks);
    }
    let now = now_unix_s();
    let row = |task: &TaskRow| -> Vec<Cell> {
        vec![
            task.id.to_string().into(),
            Cell::state(task.state),
            ago(task.asked_at, now).into(),
            Cell::from(&task.what),
            Cell::from(task.trouble.clone().unwrap_or_default()),
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
        ("state", Cell::state(task.state)),
    ];
    if let Some(node) = &task.node {
        lines.push(("carried out by", Cell::from(node)));
    }
    if let Some(at) = task.over_at {
        lines.push(("over", ago(at, now).into()));
    }
    if let Some(trouble) = &task.trouble {
        lines.push(("because", Cell::from(trouble)));
    }
    out.write(&pairs(&lines, out.colour()))
}

fn ago(at: u64, now: u64) -> String {
    format!("{} s ago", now.saturating_sub(at))
}
