use pvc_core::model::{Explanation, Subject, VmSet, VmState};
use pvc_operate::testing::{Fake, id};
use pvc_store::schema::explain;

use super::*;
use crate::print::screen::tests::Fake as FakeTerminal;

/// Who watches a cluster in memory on a terminal in memory.
struct Watching {
    live: Live<FakeTerminal>,
    keys: mpsc::Sender<u8>,
    terminal: FakeTerminal,
    door: Door,
    size: Signal,
}

impl Watching {
    fn of(fake: &Fake, columns: usize, rows: usize) -> Self {
        let watched = fake.cluster.watched();
        let terminal = FakeTerminal::of(columns, rows);
        let (pressed, keys) = mpsc::channel(16);
        let live = Live {
            views: Some(watched.its_mirror().unwrap().views()),
            session: Some(watched.store.session()),
            keys,
            screen: Screen::begin(terminal.clone()).unwrap(),
            colour: true,
            seen: None,
            trouble: None,
        };
        let (door, size) = (Door::Direct(watched), signal(SignalKind::window_change()).unwrap());
        Self { live, keys: pressed, terminal, door, size }
    }

    /// Whether it goes on.
    async fn turn(&mut self) -> bool {
        self.live.turn(&self.door, &mut self.size).await.unwrap()
    }

    fn text(&self) -> String {
        self.terminal.lines().join("\n")
    }
}

async fn cluster() -> Fake {
    let fake = Fake::with(&["hv1", "hv2"]).await;
    fake.define(1, "web1", "hv1").await;
    fake.define(2, "web2", "hv2").await;
    fake
}

async fn explain(fake: &Fake, n: u8, because: &str) {
    let said = Explanation {
        by: "hv2".into(),
        at_unix_s: 0,
        doing: "waiting".into(),
        because: because.into(),
        error: None,
    };
    explain::write(&*fake.cluster.store, &Subject::Vm(id(n)), Some(&said)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nodes_and_vms_are_shown_and_what_changes_is_seen_within_a_second() {
    let fake = cluster().await;
    let mut watching = Watching::of(&fake, 120, 30);
    assert!(watching.turn().await);
    let text = watching.text();
    for word in ["hv1", "hv2", "VMs: 2 stop", "maintenance is off"] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
    assert!(!text.contains("BECAUSE"), "nothing waits:\n{text}");
    fake.change(2, vec![VmSet::State(VmState::Start)]).await;
    explain(&fake, 2, "no node has memory").await;
    let began = Instant::now();
    assert!(watching.turn().await);
    let (text, took) = (watching.text(), began.elapsed());
    assert!(text.contains("VMs: 1 start, 1 stop"), "{text}");
    assert!(text.contains("web2") && text.contains("no node has memory"), "{text}");
    assert!(took <= AT_LEAST_EVERY, "{took:?}");
    // Another change while it waits.
    let change = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        fake.change(2, vec![VmSet::State(VmState::Stop)]).await;
    };
    let began = Instant::now();
    let (on, ()) = tokio::join!(watching.turn(), change);
    assert!(on && began.elapsed() <= AT_MOST_EVERY + Duration::from_millis(200), "{:?}", began.elapsed());
    watching.keys.send(b'q').await.unwrap();
    assert!(!watching.turn().await);
    let terminal = watching.terminal.clone();
    drop(watching);
    assert!(!terminal.is_ours(), "the shell has its terminal again");
}

#[tokio::test(start_paused = true)]
async fn however_much_changes_it_looks_once_a_second() {
    let fake = cluster().await;
    let mut watching = Watching::of(&fake, 80, 24);
    let turmoil = async {
        for n in 0..200 {
            let state = if n % 2 == 0 { VmState::Start } else { VmState::Stop };
            fake.change(1, vec![VmSet::State(state)]).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let began = Instant::now();
    let turns = async {
        let mut turns = 0;
        while began.elapsed() < Duration::from_secs(10) {
            assert!(watching.turn().await);
            turns += 1;
        }
        turns
    };
    let (turns, ()) = tokio::join!(turns, turmoil);
    assert!((5..=11).contains(&turns), "{turns}");
}

#[tokio::test(start_paused = true)]
async fn what_the_tree_holds_does_not_command_the_terminal() {
    let fake = cluster().await;
    fake.change(1, vec![VmSet::State(VmState::Start)]).await;
    explain(&fake, 1, "x\u{1b}]0;mine\u{7}\u{1b}[2J\u{9b}31m\r\nroot# \u{202e}").await;
    let mut watching = Watching::of(&fake, 200, 30);
    // A terminal that would obey anything else than what the screen sends ends the test.
    assert!(watching.turn().await);
    assert!(watching.text().contains("x·]0;mine··[2J·31m··root# ·"), "{}", watching.text());
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_it_says_so_and_how_old_that_is_and_keys_are_heard() {
    let fake = cluster().await;
    let mut watching = Watching::of(&fake, 120, 30);
    assert!(watching.turn().await);
    fake.client.suspend();
    let pressed = watching.keys.clone();
    let press = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        pressed.send(b'x').await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        pressed.send(3).await.unwrap();
    };
    let (on, ()) = tokio::join!(async { while watching.turn().await {} }, press);
    let () = on;
    let text = watching.text();
    assert!(text.contains("was so at") && text.contains("hv1"), "{text}");
}

#[tokio::test]
async fn it_fits_whatever_the_size_and_what_does_not_fit_is_counted() {
    let names: Vec<String> = (1..=30).map(|n| format!("hv{n:02}")).collect();
    let fake = Fake::with(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for n in 0..120 {
        fake.define(n, &format!("vm{n:03}"), "hv01").await;
        fake.change(n, vec![VmSet::State(VmState::Start)]).await;
    }
    let seen = pvc_operate::top::top(&fake.cluster, now_unix_s(), MOST).await.unwrap();
    assert_eq!((seen.waits.len(), seen.more_wait), (100, 20));
    for rows in 1..200 {
        for trouble in [None, Some("away")] {
            let lines = lines::fitting(&seen, 0, trouble, rows, false);
            assert!(lines.len() <= rows.max(3), "{rows}: {lines:#?}");
        }
    }
    let small = lines::fitting(&seen, 0, None, 24, false).join("\n");
    assert!(small.contains("more nodes") && small.contains("more VMs"), "{small}");
    let all = lines::all(&seen, 0, false).join("\n");
    assert!(all.contains("hv30") && all.contains("vm099") && all.contains("… and 20 more VMs"), "{all}");
}
