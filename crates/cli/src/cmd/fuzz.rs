//! No state of the tree makes `pvc` panic, or print without bounds. Whatever clients, daemons and accidents may leave there is made from seeds; every command
//! is tried on it. `cargo xtask fuzz` does the same with as many trees as one likes.

use std::{cell::Cell, fmt::Write as _, panic, time::Duration};

use clap::Parser as _;
use fastrand::Rng;
use pvc_operate::testing::{Fake, id};
use pvc_store::{CreateMode, Op, Store as _, Transaction};

use super::dispatch;
use crate::{
    args::{Args, Format},
    door::Door,
    print::Out,
};

/// How many trees, and from which seed on, if not this few.
const TREES: (&str, u64) = ("PVC_FUZZ_TREES", 60);
const FIRST: (&str, u64) = ("PVC_FUZZ_FIRST", 1);

/// Longer than any line of a table, whatever is in the tree; the dump and the log of a VM are not ours.
const LONGEST_LINE: usize = 16 * 1024;

/// What operators look at first …
const ALWAYS: &[&str] = &["status", "node list", "vm list -l"];

/// … and so many of the rest, for each tree.
const SOME: usize = 5;

/// What operators ask, about the nodes and VMs that a tree begins with.
const COMMANDS: &[&str] = &[
    "node info -l hv1",
    "node info hv2",
    "node explain hv1",
    "node explain hv2",
    "vm list",
    "vm list --raw",
    "vm list -t hv1",
    "vm info -l web1",
    "vm info web2",
    "vm explain web1",
    "vm explain 11111111-0000-4000-8000-000000000002",
    "vm dump web1",
    "vm log web1",
    "maintenance",
    "plan flush hv1",
    "plan death hv2",
    "plan vm web1",
    "vm start --wait 3 web1",
    "vm migrate --wait 3 web2",
    "vm move --wait 3 web1 -t hv2",
    "vm unmigrate --wait 3 web2",
    "vm shutdown --no-wait web1",
    "vm restart --no-wait web2",
    "vm stop --wait 3 web1",
    "vm undefine -y --wait 3 web2",
    "node flush hv1",
    "node ready hv1",
    "node primary --wait 3 hv2",
    "node secondary --no-wait hv1",
    "node fence -y hv1",
    "node fence --cancel hv1",
    "node confirm-dead -y hv2",
    "node replace -y hv2",
    "init",
];

/// Words, numbers and rubbish.
const VALUES: &[&str] = &[
    "",
    "None",
    "0",
    "1",
    "-1",
    "5",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775807",
    "4294967295",
    "1e308",
    "NaN",
    "inf",
    "-0.0",
    "0x10",
    " 7 ",
    "run",
    "stop",
    "dead",
    "init",
    "start",
    "migrate",
    "failed",
    "ready",
    "flush",
    "unflush",
    "flushed",
    "primary",
    "secondary",
    "coordinator",
    "hypervisor",
    "True",
    "False",
    "hv1",
    "hv2",
    "hv9",
    "hv1 hv2",
    "hv2,hv1",
    "web1",
    "{}",
    "[]",
    "{\"by\":1}",
    "{\"by\":\"hv1\",\"doing\":\"\u{9b}\",\"because\":\"x\"}",
    "a\u{9b}2J\x1b[2J\u{202e}\u{2028}",
    "\n\n",
    "11111111-0000-4000-8000-000000000001",
    "11111111-0000-4000-8000-000000000001 11111111-0000-4000-8000-000000000001",
    "<domain/>",
    "<domain type='kvm'>",
    "b'x'",
    "(dp0\n.",
    "8 6.1 GNU/Linux x86_64",
    "18446744073709551615 x y z",
];

/// Keys that are made, whether or not anybody knows them.
const KEYS: &[&str] = &[
    "/nodes/\u{202e}hv",
    "/nodes/hv1/x",
    "/nodes/hv1/keepalive_interval",
    "/nodes/hv1/selffence",
    "/nodes/hv2/boot",
    "/domains/web1",
    "/domains/11111111-0000-4000-8000-00000000000F",
    "/domains/11111111-0000-4000-8000-000000000001/failedreason",
    "/domains/11111111-0000-4000-8000-000000000001/migration_method",
    "/pvc/fence/hv1",
    "/pvc/fence/hv1/job",
    "/pvc/fence/hv2",
    "/pvc/flush/hv1",
    "/pvc/claim/11111111-0000-4000-8000-000000000009",
    "/pvc/claim/x",
    "/pvc/explain/primary",
    "/pvc/explain/node/hv1",
    "/pvc/explain/vm/11111111-0000-4000-8000-000000000001",
    "/pvc/primary",
    "/pvc/primary_held/hv1",
    "/pvc/machine/hv1",
    "/pvc/daemon/hv9",
    "/primary_node",
    "/maintenance",
    "/upgrade",
    "/networks/100",
    "/networks/x",
];

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// A cluster of two nodes and two VMs after accidents.
async fn tree(rng: &mut Rng) -> Fake {
    let cluster = Fake::with(&["hv1", "hv2"]).await;
    for number in [1, 2] {
        cluster.define(number, &format!("web{number}"), "hv1").await;
    }
    let running = [id(1), id(2)];
    cluster.report(&"hv1".parse().unwrap(), &running[..rng.usize(..3)]).await;
    // Few accidents leave enough in order for the commands to get far.
    for _ in 0..=rng.usize(..12) {
        let paths: Vec<String> = cluster.tree.dump().into_keys().filter(|path| path != "/").collect();
        let path = rng.choice(&paths).unwrap().clone();
        let ops = match rng.usize(..8) {
            0 => vec![Op::Delete { path, version: None }],
            1 => made(rng),
            // The same everywhere: what is too large for one sum of all.
            2 | 3 => {
                let data = value(rng, &cluster, &paths);
                let leaf = path.rsplit('/').next();
                let alike = paths.iter().filter(|other| other.rsplit('/').next() == leaf);
                alike.map(|path| Op::Set { data: data.clone(), path: path.clone(), version: None }).collect()
            }
            _ => vec![Op::Set { data: value(rng, &cluster, &paths), path, version: None }],
        };
        // What the store refuses leaves the tree as it is.
        let _ = cluster.client.commit(Transaction { ops }).await;
    }
    cluster
}

/// A key with all that must be above it.
fn made(rng: &mut Rng) -> Vec<Op> {
    let path = *rng.choice(KEYS).unwrap();
    let create = |path: &str, data: &str| Op::Create {
        path: path.into(),
        data: data.into(),
        mode: CreateMode::Persistent,
    };
    let mut ops = vec![create(path, rng.choice(VALUES).unwrap())];
    if rng.usize(..2) == 0
        && let Some((parent, _)) = path.rsplit_once('/')
    {
        ops.insert(0, create(parent, ""));
    }
    ops
}

fn value(rng: &mut Rng, cluster: &Fake, paths: &[String]) -> Vec<u8> {
    match rng.usize(..12) {
        0 => "x".repeat(60_000 + rng.usize(..80_000)).into(),
        1 => (0..rng.usize(..40)).map(|_| rng.u8(..)).collect(),
        2 => rng.choice(VALUES).unwrap().repeat(1 + rng.usize(..3000)).into(),
        3 | 4 => {
            // What another key says, or what this one said with a piece of something else in it.
            let mut data = cluster.tree.dump().remove(rng.choice(paths).unwrap()).unwrap_or_default();
            let at = rng.usize(..=data.len());
            if rng.usize(..2) == 0 {
                data.truncate(at);
            }
            data.splice(at.min(data.len()).., rng.choice(VALUES).unwrap().bytes());
            data
        }
        _ => (*rng.choice(VALUES).unwrap()).into(),
    }
}

/// Runs a command; answers what is wrong with what it printed.
async fn run(cluster: &Fake, command: &str, format: Format) -> Option<String> {
    let args = Args::try_parse_from(std::iter::once("pvc").chain(command.split(' '))).unwrap();
    let out = Out::captured(format);
    let outcome =
        tokio::time::timeout(Duration::from_mins(5), dispatch(args.command, &Door::from(cluster), &out))
            .await;
    let mut said = out.text();
    match outcome {
        Err(_) => return Some("it does not end".into()),
        Ok(Err(failure)) => {
            let _ = (write!(said, "\n{}", failure.with_causes()), failure.exit_code());
        }
        Ok(Ok(())) => {}
    }
    let verbatim = ["vm dump", "vm log"].iter().any(|foreign| command.starts_with(foreign));
    let longest = said.lines().map(str::len).max().unwrap_or(0);
    (!verbatim && format == Format::Table && longest > LONGEST_LINE)
        .then(|| format!("a line of {longest} bytes"))
}

fn number((name, default): (&str, u64)) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn no_tree_makes_a_command_panic_or_print_without_end() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.set(PANICS.get() + 1);
        before(info);
    }));
    let mut faults = Vec::new();
    let first = number(FIRST);
    for seed in first..first.saturating_add(number(TREES)) {
        // Time passes as soon as everybody waits.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut rng = Rng::with_seed(seed);
            let cluster = tree(&mut rng).await;
            let some = (0..SOME).map(|_| *rng.choice(COMMANDS).unwrap()).collect::<Vec<_>>();
            for command in ALWAYS.iter().copied().chain(some) {
                let format = *rng.choice(&[Format::Table, Format::Json]).unwrap();
                let wrong = caught(run(&cluster, command, format)).await;
                let wrong = wrong.unwrap_or_else(|()| Some("it panics".to_owned()));
                let hidden = PANICS.replace(0) > 0;
                if let Some(wrong) = wrong.or_else(|| hidden.then(|| "a task of it panics".to_owned())) {
                    faults.push(format!("seed {seed}, pvc {command} ({format:?}): {wrong}"));
                }
            }
        });
        assert!(faults.len() < 20, "{}", faults.join("\n"));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A panic of a future as an error.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, ()> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(move |cx| {
        match panic::catch_unwind(panic::AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => std::task::Poll::Ready(Err(())),
        }
    })
    .await
}
