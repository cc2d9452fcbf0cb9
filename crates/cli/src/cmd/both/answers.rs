//! What comes of a yes that is given too late, is not given, or whose answer is lost on its way.

use std::sync::atomic::{AtomicUsize, Ordering};

use pvc_core::model::{DomainState, VmState};
use pvc_store::schema::node;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::failure::Failure;

/// A door to the API of that cluster, which loses the answer to the first change, and what it does then.
async fn losing<F>(
    fake: &Arc<Fake>,
    then: impl Fn(Arc<Fake>) -> F + Send + 'static,
) -> (Door, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send,
{
    let (server, listener) = (served(fake).await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    let (fake, changes) = (Arc::clone(fake), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&changes);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = vec![0; 16 * 1024];
            let read = client.read(&mut request).await.unwrap();
            let mut api = TcpStream::connect(server).await.unwrap();
            api.write_all(&request[..read]).await.unwrap();
            let mut answer = Vec::new();
            api.read_to_end(&mut answer).await.unwrap();
            if !request.starts_with(b"GET ") && counted.fetch_add(1, Ordering::SeqCst) == 0 {
                then(Arc::clone(&fake)).await;
                continue;
            }
            client.write_all(&answer).await.unwrap();
        }
    });
    (Door::Api(client(address, TOKEN)), changes)
}

/// Where nobody is there to be asked nothing is done, and it is said what to add.
#[tokio::test]
async fn what_nobody_says_yes_to_is_not_done() {
    let (fake, mut refused) = (Arc::new(fake().await), 0);
    for door in [Door::from(&*fake), Door::Api(client(served(&fake).await, TOKEN))] {
        for command in COMMANDS.iter().filter(|command| command.contains(YES)) {
            // It is a program that asks, and has decided already.
            if command.starts_with("vm undefine") {
                continue;
            }
            let before = fake.tree.dump();
            let said = said(&door, &command.replace(YES, " "), Format::Table, "").await;
            let end = said.lines().last().unwrap();
            assert!(
                end.starts_with("2: ") || end.starts_with("3: ") || end.starts_with("4: "),
                "{command}: {said}"
            );
            refused += usize::from(end.ends_with("There is nobody to ask: add --yes if you mean it"));
            assert_eq!(fake.tree.dump(), before, "{command}");
        }
    }
    assert!(refused >= 14, "{refused}");
}

#[tokio::test]
async fn a_yes_to_what_is_not_so_any_more_changes_nothing() {
    let fake = Arc::new(fake().await);
    let door = Door::Api(client(served(&fake).await, TOKEN));
    fake.daemon_ends("hv2").await;
    let ask = || door.confirm_dead("hv2", Duration::from_secs(1), &|_| ());
    let prepared = ask().await.unwrap();
    assert!(prepared.question.is_some());
    // While somebody thinks about it, somebody else sends the node's VMs away.
    let flush = node::set_domain_state(&name("hv2"), DomainState::Flush, None);
    fake.cluster.store.commit(flush).await.unwrap();
    let failure = prepared.carry_out().await.unwrap_err();
    assert!(matches!(&failure, Failure::Told { .. }), "{failure:?}");
    let end = ": it is not any more as it was when that was asked, so the yes does not count: ask again";
    let told = failure.with_causes();
    assert!(failure.exit_code() == 3 && told.contains("hv2") && told.ends_with(end), "{told}");
    assert_eq!(fake.get("/pvc/fence/hv2").await, None, "nothing was done");
    // A new question gets a new yes.
    ask().await.unwrap().carry_out().await.unwrap();
    assert!(fake.get("/pvc/fence/hv2").await.is_some());
}

#[tokio::test]
async fn an_undefinition_whose_answer_is_lost_is_asked_for_again_and_was_done() {
    let fake = Arc::new(fake().await);
    let (door, changes) = losing(&fake, |_| async {}).await;
    let said = said(&door, "vm undefine -y web1", Format::Table, "").await;
    assert!(said.starts_with("VM web1 (11111111-0000-") && said.ends_with(") is undefined\n\n0"), "{said}");
    assert_eq!(changes.load(Ordering::SeqCst), 2);
    assert!(fake.cluster.vm(id(1)).await.is_err());
}

#[tokio::test]
async fn what_somebody_has_started_since_is_neither_powered_off_nor_undefined() {
    let fake = Arc::new(fake().await);
    fake.change(1, vec![VmSet::State(VmState::Start), VmSet::Claim(Claim::only(&name("hv1")))]).await;
    let start = |fake: Arc<Fake>| async move {
        assert_eq!(fake.cluster.vm(id(1)).await.unwrap().state.value, VmState::Stop, "it has arrived");
        fake.change(1, vec![VmSet::State(VmState::Start)]).await;
    };
    let (door, changes) = losing(&fake, start).await;
    let said = said(&door, "vm undefine -y --wait 60 web1", Format::Table, "").await;
    assert_eq!(
        said,
        "\n1: VM web1 was not undefined: it is asked to run, since somebody has started it meanwhile or the first request has not arrived; `pvc vm info web1` says which state it has"
    );
    assert_eq!(changes.load(Ordering::SeqCst), 2);
    let vm = fake.cluster.vm(id(1)).await.unwrap();
    assert_eq!((vm.state.value, vm.claim.value), (VmState::Start, Claim::only(&name("hv1"))));
}

#[tokio::test]
async fn a_screen_is_shown_on_loopback_only_with_the_same_words_at_both_doors() {
    let fake = Arc::new(fake().await);
    let direct = Door::from(&*fake);
    let api = Door::Api(client(served(&fake).await, TOKEN));
    for (listen, end) in [
        ("0.0.0.0:5900", "2: --listen takes an address of loopback"),
        ("10.0.0.1:0", "2: --listen takes an address of loopback"),
        ("[::]:5900", "2: --listen takes an address of loopback"),
        ("[::ffff:127.0.0.1]:0", "2: --listen takes an address of loopback"),
        ("127.0.0.1:0", "4: "),
        ("127.255.0.9:0", "4: "),
        ("[::1]:0", "4: "),
    ] {
        let command = format!("vm vnc --listen {listen} nobody");
        let at_store = said(&direct, &command, Format::Table, "").await;
        assert!(at_store.lines().last().unwrap().starts_with(end), "{listen}: {at_store}");
        assert_eq!(said(&api, &command, Format::Table, "").await, at_store, "{listen}");
    }
    for listen in ["localhost:5900", "127.0.0.1", "127.0.0.1:65536"] {
        let parsed = Args::try_parse_from(["pvc", "vm", "vnc", "--listen", listen, "web1"]);
        assert!(parsed.is_err(), "{listen}");
    }
    let at_store = said(&direct, "vm vnc web1", Format::Table, "").await;
    assert!(at_store.starts_with("\n3: ") && at_store.contains("the VM is off"), "{at_store}");
    assert_eq!(said(&api, "vm vnc web1", Format::Table, "").await, at_store);
}

#[tokio::test]
async fn it_is_not_listened_for_longer_than_an_answer_may_take() {
    let fake = Arc::new(fake().await);
    let api = Door::Api(client(served(&fake).await, TOKEN));
    for command in ["confirm-dead", "replace", "remove"] {
        let said = said(&api, &format!("node {command} -y --listen 46 hv2"), Format::Table, "").await;
        let end = "\n2: --listen 46: over the API it is listened for 45 s at most, since an answer takes no longer than a minute; run it on a node to listen longer";
        assert_eq!(said, end, "{command}");
        // It is asked, and there is no such node.
        let said = self::said(&api, &format!("node {command} -y --listen 45 hv9"), Format::Table, "").await;
        assert!(said.contains("\n4: "), "{command}: {said}");
    }
}
