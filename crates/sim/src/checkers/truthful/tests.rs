use super::*;
use crate::{
    checkers::testing::{History, daemon, definition, node, vm, vm_key},
    event::{Author, Guest, VANDAL},
};

const RECOVERED: &str = r#"{"step":"recovered","proof":"power-off","instance":null,"by":"a","at_unix_s":0}"#;

fn path(key: &str) -> String {
    vm_key(1, key)
}

fn guest(on: &str, what: Guest) -> Event {
    Event::Guest { vm: vm(1), node: node(on), what }
}

/// VM 1 is of node `a`, and its desired state is this.
fn desired(state: &str) -> History {
    let mut history = History::new(Truthful::default());
    history.on("a", 1).writes(&[
        (&format!("/domains/{}", vm(1)), "web"),
        (&path("state"), state),
        (&path("node"), "a"),
        (&path("claim"), "a"),
    ]);
    history
}

#[test]
fn off_is_said_of_what_has_no_process() {
    let answer = |history: &mut History| history.commit(daemon("a"), &[(&path("state"), "stop")]);
    let mut early = desired("shutdown");
    early.happens(guest("a", Guest::Executes));
    let event = answer(&mut early);
    early.violated_by(event, "there is a process of it on a");
    let mut right = desired("shutdown");
    right.happens(guest("a", Guest::Executes)).happens(guest("a", Guest::Gone));
    let event = answer(&mut right);
    right.happens(event);
    // What a failed migration left does not count, wherever it is, unless it has executed there, or the claim names its node alone.
    for (on, executed, claim, counts) in [
        ("a", false, "a b", false),
        ("a", false, "b", false),
        ("b", false, "a", false),
        ("a", false, "a", true),
        ("b", false, "b", true),
        ("a", true, "b", true),
        ("b", true, "a", true),
    ] {
        let mut left = desired("shutdown");
        left.writes(&[(&path("claim"), claim)]);
        left.on("b", 2).happens(guest(on, Guest::Held));
        if executed {
            left.happens(guest(on, Guest::Executes)).happens(guest(on, Guest::Halted));
        }
        let event = answer(&mut left);
        if counts {
            left.violated_by(event, &format!("there is a process of it on {on}"));
        } else {
            left.happens(event);
        }
    }
}

#[test]
fn running_is_said_of_what_executes_or_did_a_moment_ago() {
    let answer = |history: &mut History| history.commit(daemon("a"), &[(&path("state"), "start")]);
    let mut early = desired("restart");
    early.at_s(10).happens(guest("a", Guest::Held));
    let event = answer(&mut early);
    early.at_s(30).violated_by(event, "does not execute there");
    let mut crashed = desired("restart");
    crashed.happens(guest("a", Guest::Executes)).at_s(5).happens(guest("a", Guest::Gone));
    let event = answer(&mut crashed);
    crashed.at_s(7).happens(event);
    let mut nothing_to_migrate = desired("migrate");
    nothing_to_migrate.writes(&[(&path("claim"), "")]);
    let event = answer(&mut nothing_to_migrate);
    nothing_to_migrate.happens(event);
    let mut failed = desired("migrate");
    let keys = [(&*path("state"), "start"), (&*path("failedreason"), "not migrated to b: it is dead")];
    let event = failed.commit(daemon("a"), &keys);
    failed.happens(event);
}

/// Node `a` asks that VM 1 migrates, and then that it stays.
fn send_away_in_vain(history: &mut History) {
    let reason = (&*path("failedreason"), "not migrated to b: no route");
    history
        .daemon_writes("a", &[(&path("state"), "migrate"), (&path("node"), "b")])
        .daemon_writes("a", &[(&path("state"), "start"), (&path("node"), "a"), reason]);
}

#[test]
fn flushed_is_said_of_a_node_without_guests_but_for_those_that_must_stay() {
    let key = "/nodes/a/domainstate";
    let mut history = desired("start");
    history.happens(guest("a", Guest::Executes)).writes(&[
        (key, "flush"),
        (&path("migration_method"), "live"),
        (&path("xml"), &definition(1)),
    ]);
    says_that_it_stays(&mut history);
    history.daemon_writes("a", &[(key, "flushed")]).writes(&[
        (key, "flush"),
        (&path("migration_method"), "none"),
        (&path("xml"), "<domain"),
    ]);
    history.daemon_writes("a", &[(key, "flushed")]).writes(&[(key, "flush"), (&path("xml"), &definition(1))]);
    for _ in 1..ATTEMPTS {
        send_away_in_vain(&mut history);
    }
    let flushed = history.commit(daemon("a"), &[(key, "flushed")]);
    history.violated_by(flushed.clone(), "executes there");
    send_away_in_vain(&mut history);
    history.happens(flushed);
    let again = history.writes(&[(key, "flush")]).commit(daemon("a"), &[(key, "flushed")]);
    history.violated_by(again, "executes there");
}

fn says_that_it_stays(history: &mut History) {
    let stuck = format!(
        r#"{{"total":1,"left":1,"moving":0,"stuck":[{{"vm":"{}","reason":"it stays"}}],"at_unix_s":0}}"#,
        vm(1)
    );
    history.daemon_writes("a", &[("/pvc/flush/a", &stuck)]);
}

#[test]
fn what_stays_since_nobody_can_read_its_claim_is_named_and_does_not_stay_once_it_can_be_read() {
    let key = "/nodes/a/domainstate";
    let flushed = |spoils: bool, named: bool, mended: bool, at_s| {
        let mut history = desired("start");
        history.happens(guest("a", Guest::Executes)).writes(&[(key, "flush")]);
        history.writes(&[(&path("xml"), &definition(1))]);
        let mut vandal = |text| {
            let event = history.commit(Author::Client(VANDAL), &[(&path("claim"), text)]);
            history.only_truth(event);
        };
        if spoils {
            vandal("what / is this?");
        }
        if mended {
            vandal("a");
        }
        if named {
            says_that_it_stays(&mut history);
        }
        let event = history.commit(daemon("a"), &[(key, "flushed")]);
        history.at_s(at_s);
        (history, event)
    };
    let (mut named, event) = flushed(true, true, false, 100);
    named.happens(event);
    let (mut silent, event) = flushed(true, false, false, 100);
    silent.violated_by(event, "does not say");
    let (mut just_mended, event) = flushed(true, true, true, 15);
    just_mended.happens(event);
    let (mut mended, event) = flushed(true, true, true, 16);
    mended.violated_by(event, "executes there");
    let (mut readable, event) = flushed(false, true, false, 100);
    readable.violated_by(event, "executes there");
}

#[test]
fn primary_is_said_by_who_has_the_addresses() {
    let address = |on: &str| Event::Address {
        node: node(on),
        address: [10, 0, 0, 254].into(),
        until: Some(Duration::from_secs(9)),
    };
    let mut history = desired("start");
    history.on("b", 1).happens(address("b"));
    let event = history.commit(daemon("a"), &[("/nodes/a/routerstate", "primary")]);
    let started = Event::Daemon { node: node("a"), what: event::Daemon::Started { run: 1 } };
    history.on("a", 1).happens(started).violated_by(event.clone(), "does not have 10.0.0.254");
    history.daemon_writes("b", &[("/nodes/b/routerstate", "primary")]);
    let mut last_word = desired("start");
    last_word.on("b", 1).happens(address("b"));
    last_word.happens(Event::Machine { node: node("a"), what: event::Machine::Off }).happens(event);
}

#[test]
fn what_was_dropped_while_the_word_was_on_its_way_was_there_and_what_was_dropped_long_ago_was_not() {
    let address = |until| Event::Address { node: node("a"), address: [10, 0, 0, 254].into(), until };
    let mut history = desired("start");
    history.on("a", 1).happens(address(Some(Duration::from_secs(9))));
    let elsewhere = Event::Address {
        node: node("b"),
        address: [10, 0, 0, 254].into(),
        until: Some(Duration::from_secs(99)),
    };
    history.on("b", 1).at_s(100).happens(address(None)).happens(elsewhere);
    let started = Event::Daemon { node: node("a"), what: event::Daemon::Started { run: 1 } };
    let event = history.happens(started).commit(daemon("a"), &[("/nodes/a/routerstate", "primary")]);
    history.at_s(116).violated_by(event.clone(), "does not have 10.0.0.254");
    history.at_s(117).happens(address(Some(Duration::from_secs(200)))).happens(address(None));
    history.at_s(120).happens(event);
}

#[test]
fn what_lapsed_while_the_word_was_on_its_way_was_there_and_what_lapsed_long_ago_was_not() {
    let until = Some(Duration::from_secs(9));
    let mut history = desired("start");
    history.on("a", 1).happens(Event::Address { node: node("a"), address: [10, 0, 0, 254].into(), until });
    let started = Event::Daemon { node: node("a"), what: event::Daemon::Started { run: 1 } };
    let event = history.happens(started).commit(daemon("a"), &[("/nodes/a/routerstate", "primary")]);
    history.at_s(23).happens(event.clone());
    history.at_s(25).violated_by(event, "does not have 10.0.0.254");
}

#[test]
fn the_end_of_a_fence_is_said_when_what_was_moved_has_run() {
    let moved = || {
        let mut history = desired("start");
        history.on("b", 1).writes(&[("/nodes/x/daemonstate", "dead"), ("/nodes/b/daemonstate", "run")]);
        history.at_s(60).daemon_writes("c", &[("/pvc/fence/x", RECOVERED)]);
        let keys = [(&*path("node"), "b"), (&*path("lastnode"), "x")];
        let event = history.commit_about(daemon("c"), &keys, "/pvc/fence/x");
        history.happens(event);
        history
    };
    let mut early = moved();
    let event = early.deletion(daemon("c"), "/pvc/fence/x");
    early.violated_by(event, "has not run on b since it was moved");
    let mut restarts = moved();
    restarts.writes(&[("/nodes/b/daemonstate", "init")]).writes(&[("/nodes/b/daemonstate", "run")]);
    let event = restarts.deletion(daemon("c"), "/pvc/fence/x");
    restarts.happens(event);
    let mut right = moved();
    right.happens(guest("b", Guest::Executes));
    let event = right.deletion(daemon("c"), "/pvc/fence/x");
    right.happens(event);
    let mut moved_on = moved();
    moved_on.writes(&[(&path("node"), "c")]);
    let event = moved_on.deletion(daemon("c"), "/pvc/fence/x");
    moved_on.happens(event);
    let mut sent_on = moved();
    sent_on.daemon_writes("b", &[(&path("node"), "c"), (&path("state"), "migrate")]);
    let event = sent_on.deletion(daemon("c"), "/pvc/fence/x");
    sent_on.happens(event);
    let mut kept = moved();
    kept.daemon_writes("b", &[(&path("failedreason"), "")]);
    let event = kept.deletion(daemon("c"), "/pvc/fence/x");
    kept.violated_by(event, "has not run on b since it was moved");
}

#[test]
fn a_password_in_a_log_or_another_key_is_a_violation() {
    let mut history = desired("start");
    history.daemon_writes("a", &[("/nodes/a/ipmipassword", "hunter2")]);
    let log = |text: &str| Event::Log { node: "a".into(), level: "WARN", text: text.into() };
    history.happens(log("HMAC is invalid"));
    history.violated_by(log("ipmitool -P hunter2: HMAC is invalid"), "logs a BMC's password");
    let event = history.commit(daemon("a"), &[("/pvc/explain/node/a", "tried hunter2")]);
    history.violated_by(event, "tells a BMC's password");
}
