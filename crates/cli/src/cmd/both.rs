//! Each command says the same at both doors: it is given to two clusters that are alike, to one by its state store and to the other by the real router of the API, and what is printed, what is
//! refused, and the code that it ends with are compared, byte for byte. A command that is in none of the lists below fails this.

mod answers;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::{CommandFactory as _, Parser as _};
use pvc_api::{Api, Gate, Limits, Server};
use pvc_config::{ApiToken, Authentication, Role, Secret, Token as Kept};
use pvc_core::model::{Claim, VmSet, VmState};
use pvc_operate::{
    Cluster,
    testing::{Fake, id, name},
};
use regex_lite::Regex;
use tokio::task::JoinHandle;

use super::dispatch;
use crate::{
    args::{Args, Format},
    door::{
        Client, Door,
        endpoint::{Endpoint, Token},
    },
    print::Out,
};

const TOKEN: &str = "a-token-that-is-long-enough";

/// What is asked, one after the other, of one cluster each.
const COMMANDS: &[&str] = &[
    "audit list",
    "status",
    "top",
    "maintenance",
    "maintenance on",
    "status",
    "maintenance off",
    "node list",
    "node list hv1",
    "node info -l hv1",
    "node info hv9",
    "node explain hv1",
    "node explain hv9",
    "node flush hv2",
    "node flush -w --within 1 hv2",
    "node explain hv2",
    "node ready hv2",
    "node primary --wait 1 hv2",
    "node primary --no-wait hv2",
    "node secondary --no-wait hv2",
    "node fence -y hv2",
    "node fence --cancel hv2",
    "node confirm-dead -y --listen 1 hv2",
    "node replace -y --listen 1 hv2",
    "node remove -y --listen 1 hv2",
    "vm list",
    "vm list -l",
    "vm list --raw",
    "vm list -t hv1 -s stop web1",
    "vm list -t hv9",
    "vm info -l web1",
    "vm info nobody",
    "vm explain web1",
    "vm explain nobody",
    "vm explain 11111111-0000-4000-8000-000000000003",
    "vm explain 11111111-0000-4000-8000-000000000009",
    "vm info 11111111-0000-4000-8000-000000000003",
    "vm dump web1",
    "vm log web1",
    "vm log nobody",
    "vm define -t hv1 FILE",
    "vm define -t hv1 FILE",
    "vm modify web1 FILE",
    "vm modify new FILE",
    "vm start --wait 30 web1",
    "vm start web1",
    "vm list",
    "vm info web1",
    "vm explain web1",
    "vm restart --no-wait new",
    "vm migrate --no-wait web1",
    "vm migrate --no-wait -t hv9 web1",
    "vm unmigrate --no-wait web2",
    "vm move --no-wait -t hv2 new",
    "vm shutdown --no-wait web2",
    "vm stop --wait 30 web1",
    "vm start --wait 1 web2",
    "vm stop --no-wait web2",
    "vm flush-locks --no-wait web1",
    "vm undefine -y web1",
    "vm undefine -y web1",
    "vm undefine -y --wait 1 web2",
    "network list",
    "network add -p managed -d web -i 10.1.0.0/24 -g 10.1.0.1 --dhcp --dhcp-start 10.1.0.10 --dhcp-end 10.1.0.20 100",
    "network add -p managed -d web -i 10.1.0.0/24 100",
    "network add -p bridged -d out 7",
    "network list",
    "network list web",
    "network info 100",
    "network info nothing",
    "network explain web",
    "network modify -d www -n example.org web",
    "network modify -g none www",
    "network overlay",
    "network overlay flood",
    "network acl add --in -d ssh -r tcp/22 100",
    "network acl add -d all -r accept 100",
    "network acl list 100",
    "network acl list --out 100",
    "network acl remove 100 all",
    "network acl remove 100 nothing",
    "network dhcp static add 100 10.1.0.30 52:54:00:00:00:0a db",
    "network dhcp static list 100",
    "network dhcp list 100",
    "network dhcp static remove 100 db",
    "network dhcp static remove 100 db",
    "network remove -y 7",
    "plan flush hv1",
    "plan death hv1",
    "plan vm new",
    "plan vm nobody",
    "storage status",
    "storage df",
    "storage pool add --no-wait vms",
    "storage pool remove -y --no-wait vms",
    "storage pool list",
    "storage volume add --no-wait vms disk 1G",
    "storage volume resize --no-wait vms disk 2G",
    "storage volume rename --no-wait vms disk other",
    "storage volume clone --no-wait --snapshot s vms disk copy",
    "storage volume remove -y --no-wait vms disk",
    "storage volume list",
    "storage snapshot add --no-wait vms disk s",
    "storage snapshot rename --no-wait vms disk s t",
    "storage snapshot rollback -y --no-wait vms disk s",
    "storage snapshot remove -y --no-wait vms disk s",
    "storage snapshot list -p vms",
    "storage volume snapshot list",
    "storage osd add -y --no-wait hv1 /dev/sdb",
    "storage osd remove -y --no-wait 1",
    "storage osd in --no-wait 1",
    "storage osd out --no-wait 1",
    "storage osd set --no-wait noout",
    "storage osd unset --no-wait noout",
    "storage locks --no-wait",
    "storage fence list --no-wait",
    "storage fence lift -y --no-wait all",
    "task list",
    "task info 2",
    "task info 999",
    "task wait --within 1 2",
    "task cancel --no-wait 2",
    "task wait --within 1 2",
    "token list",
    "token add --role operate --vm web1 ci",
    "token add --role read ci",
    "token list",
    "token remove ci",
    "token remove ci",
];

/// What a node does by itself, what is asked of nobody, and what needs a terminal or does not end.
const OTHERS: &[&str] =
    &["completions", "doctor", "init", "login", "logout", "man-pages", "events", "vm console", "vm vnc"];

/// Says yes before it is asked.
const YES: &str = " -y ";

/// The words of `storage volume snapshot` are those of `storage snapshot`.
const TWICE: &str = "storage volume snapshot ";

/// A cluster with what there is to be seen: one VM runs that is in no tree.
async fn fake() -> Fake {
    let fake = Fake::with(&["hv1", "hv2"]).await;
    fake.define(1, "web1", "hv1").await;
    fake.define(2, "web2", "hv2").await;
    fake.report(&name("hv1"), &[id(3)]).await;
    fake
}

/// The daemon of hv1, as far as starting and stopping goes.
fn daemon(fake: &Arc<Fake>) -> JoinHandle<()> {
    let fake = Arc::clone(fake);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let Ok(vm) = fake.cluster.vm(id(1)).await else { continue };
            let (runs, is_claimed) = (vm.state.value == VmState::Start, !vm.claim.value.is_empty());
            if vm.node.value != name("hv1") || runs == is_claimed {
                continue;
            }
            let claim = if runs { Claim::only(&vm.node.value) } else { Claim::none() };
            fake.change(1, vec![VmSet::Claim(claim)]).await;
            let running = if runs { vec![id(1)] } else { Vec::new() };
            fake.report(&name("hv1"), &running).await;
        }
    })
}

async fn served(fake: &Fake) -> SocketAddr {
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let address = server.address().unwrap();
    tokio::spawn(serve(fake, server));
    address
}

/// Serves the API of that cluster.
fn serve(fake: &Fake, server: Server) -> impl Future<Output = ()> + use<> {
    let token = |token: &str, role| ApiToken {
        description: "tests".into(),
        role,
        token: Kept::Plain(Secret::new(token)),
    };
    let authentication = Authentication { secret_key: None, tokens: vec![token(TOKEN, Role::Admin)] };
    let limits = Limits::default();
    let gate = Gate::new(Some(&authentication), false, limits);
    let cluster = Cluster::new(fake.cluster.store.clone(), fake.cluster.place.clone());
    let api = Arc::new(Api::new(cluster, gate, limits));
    async move {
        server.serve(api).await;
    }
}

fn client(address: SocketAddr, token: &str) -> Client {
    let endpoint = Endpoint::parse(&format!("http://{address}")).unwrap();
    Client::new(endpoint, Some(Token::new(token).unwrap()), None)
}

/// What a command prints, and with which code and words it ends.
async fn said(door: &Door, command: &str, format: Format, file: &str) -> String {
    let words = std::iter::once("pvc").chain(command.split(' '));
    let args = Args::try_parse_from(words.map(|word| if word == "FILE" { file } else { word }));
    let args = args.unwrap_or_else(|error| panic!("{command}: {error}"));
    let out = Out::captured(format);
    let end = Box::pin(dispatch(args.command, door, &out)).await;
    let end = end.map_or_else(
        |failure| format!("{}: {}", failure.exit_code(), failure.with_causes()),
        |()| "0".into(),
    );
    alike(&format!("{}\n{end}", out.text()))
}

/// Without what differs from run to run, and without who asks, which at one door is this user and at the other a token.
fn alike(text: &str) -> String {
    let patterns = [
        ("[0-9a-f]{64}", "TOKEN"),
        ("…[0-9a-f]{4}", "…ENDS"),
        (r#""ends": "[0-9a-f]{4}""#, r#""ends": "ENDS""#),
        (r"[0-9]{10}", "TIME"),
        (r"[0-9]+ s ago", "AGO"),
        (r#""by": "[^"]*""#, r#""by": "SOMEBODY""#),
        (r"asked:( +)by .*, AGO", "asked: by SOMEBODY"),
        (r"recorded:( +)by .*", "recorded: by SOMEBODY"),
        (r"asked for:( +)by .*", "asked for: by SOMEBODY"),
        (r"cancelled by .*", "cancelled by SOMEBODY"),
        (r"says .* on .*|says .* over HTTP", "says SOMEBODY"),
        (r"[0-9]{2}:[0-9]{2}:[0-9]{2}Z", "NOW"),
    ];
    patterns.iter().fold(text.to_owned(), |text, (pattern, word)| {
        Regex::new(pattern).unwrap().replace_all(&text, *word).into_owned()
    })
}

async fn compare(format: Format) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let xml = "<domain type='kvm'><name>new</name><uuid>11111111-0000-4000-8000-000000000007</uuid><memory unit='MiB'>64</memory>\
               <vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os><devices/></domain>";
    std::fs::write(file.path(), xml).unwrap();
    let file = file.path().to_str().unwrap();
    let (one, other) = (Arc::new(fake().await), Arc::new(fake().await));
    let daemons = [daemon(&one), daemon(&other)];
    let (direct, api) = (Door::from(&*one), Door::Api(client(served(&other).await, TOKEN)));
    let mut different = Vec::new();
    for command in COMMANDS.iter().copied().flat_map(with_and_without_a_yes) {
        let command = command.as_str();
        let (at_store, at_api) =
            (said(&direct, command, format, file).await, said(&api, command, format, file).await);
        if at_store != at_api {
            different.push(format!(
                "== pvc {command}\n-- by the state store\n{at_store}\n-- over the API\n{at_api}\n"
            ));
        }
    }
    daemons.iter().for_each(JoinHandle::abort);
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// What is said yes to is first asked without, where nobody can be asked. An undefinition of what is off needs no yes.
fn with_and_without_a_yes(command: &str) -> impl Iterator<Item = String> {
    let asks = command.contains(YES) && !command.starts_with("vm undefine");
    let without = asks.then(|| command.replace(YES, " "));
    without.into_iter().chain([command.to_owned()])
}

#[tokio::test]
async fn each_command_says_the_same_to_people_at_both_doors() {
    compare(Format::Table).await;
}

#[tokio::test]
async fn each_command_says_the_same_to_programs_at_both_doors() {
    compare(Format::Json).await;
}

/// The first primary goes away while it is waited for, for a while nobody answers, and the next one has none of what the first knew.
#[tokio::test]
async fn the_waiting_goes_on_at_the_next_primary() {
    let fake = Arc::new(fake().await);
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let address = server.address().unwrap();
    let first = tokio::spawn(serve(&fake, server));
    let door = Door::Api(client(address, TOKEN));
    let change = async {
        while fake.cluster.vm(id(1)).await.unwrap().state.value != VmState::Start {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        first.abort();
        let _ = first.await;
        tokio::time::sleep(Duration::from_secs(7)).await;
        let next = loop {
            match Server::bind(address, None).await {
                Ok(server) => break server,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        tokio::spawn(serve(&fake, next));
        daemon(&fake).abort_handle()
    };
    let (said, daemon) = tokio::join!(said(&door, "vm start --wait 60 web1", Format::Table, ""), change);
    daemon.abort();
    assert_eq!(said, "VM web1 runs on hv1\n\n0");
}

#[test]
fn no_command_is_forgotten() {
    fn leaves(command: &clap::Command, path: &str, all: &mut Vec<String>) {
        let path = if path.is_empty() { String::new() } else { format!("{path} ") };
        let mut below = command.get_subcommands().filter(|below| below.get_name() != "help").peekable();
        if below.peek().is_none() {
            all.push(path.trim_end().to_owned());
        }
        for below in below {
            leaves(below, &format!("{path}{}", below.get_name()), all);
        }
    }
    let mut all = Vec::new();
    leaves(&Args::command(), "", &mut all);
    let is_asked = |leaf: &String| {
        let leaf = leaf.replace(TWICE, "storage snapshot ");
        let asks = |command: &&str| **command == leaf || command.starts_with(&format!("{leaf} "));
        COMMANDS.iter().any(asks) || OTHERS.contains(&leaf.as_str())
    };
    let forgotten: Vec<&String> = all.iter().filter(|leaf| !is_asked(leaf)).collect();
    assert!(all.len() > 60 && forgotten.is_empty(), "{forgotten:?}");
}
