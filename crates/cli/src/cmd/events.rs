//! `pvc events`: what becomes of the cluster, line by line, until Ctrl-C.

use pvc_core::command::news::{Kind, News};
use pvc_operate::events::Heard;
use serde::Serialize;

use super::now_unix_s;
use crate::{
    door::Door,
    failure::Failure,
    print::{Out, table::printable},
};

/// A line for programs.
#[derive(Serialize)]
struct Line<'a> {
    at_unix_s: u64,
    #[serde(flatten)]
    news: &'a News,
}

pub(super) async fn events(door: &Door, out: &Out) -> Result<(), Failure> {
    let mut listener = door.listen().await?;
    out.aside("what changes from now on; Ctrl-C ends it");
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let heard = tokio::select! {
            heard = listener.next() => heard?,
            _ = &mut interrupt => return Ok(()),
        };
        let all = match heard {
            Some(Heard::News(all)) => all,
            Some(Heard::Lost) => {
                out.aside(&format!("{} is out of reach: what changes is told when it answers", door.who()));
                continue;
            }
            Some(Heard::Back) => {
                out.aside(&format!("{} answers again", door.who()));
                continue;
            }
            None => {
                let why = "the state store is not watched any more".to_owned();
                return Err(pvc_operate::Failure::Failed(why).into());
            }
        };
        let at_unix_s = now_unix_s();
        for news in &all {
            if out.is_json() {
                out.json_line(&Line { at_unix_s, news })?;
            } else {
                out.write(&line(at_unix_s, news))?;
            }
        }
    }
}

fn line(at_unix_s: u64, news: &News) -> String {
    let (hours, minutes, seconds) = (at_unix_s / 3600 % 24, at_unix_s / 60 % 60, at_unix_s % 60);
    let about = match news.kind {
        Kind::Node => "node ",
        Kind::Vm => "VM ",
        Kind::Network => "network ",
        Kind::Cluster => "cluster",
    };
    let (name, what) = (printable(&news.name), printable(&news.what));
    format!("{hours:02}:{minutes:02}:{seconds:02}Z  {about}{name}: {what}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_time_of_day_and_what_it_is_about() {
        let news =
            |kind, name: &str| News { kind, id: name.into(), name: name.into(), what: "so\u{1b}[2J".into() };
        let told = line(86_400 + 3_661, &news(Kind::Vm, "web1"));
        assert!(told.starts_with("01:01:01Z  VM web1: so") && !told.contains('\u{1b}'), "{told:?}");
        assert!(line(0, &news(Kind::Cluster, "")).starts_with("00:00:00Z  cluster: "));
    }
}
