//! The rows of `/api/v2`, each with what the description of the API says of it.

use axum::{
    http::Method,
    routing::{delete, get, patch, post, put},
};

use pvc_config::Role;

use super::{
    Route,
    about::{About, Gives, Query},
    change, listen, openapi, operate, public, read, reads, talk,
};
use crate::v2::{
    self, Nothing, console, events, network, node, outcome, plan, read as shown, screen, storage, token, vm,
};

const LIMIT: Query =
    Query::text("limit", "A regular expression of at most 256 bytes: what contains a match.");
const COUNT: Query =
    Query::number("count", "A page of so many, 1 to 1000; the header Link has where the next one is.");
const AFTER: Query = Query::text("after", "Those after the one with this mark, in the order of the marks.");
const AFTER_NUMBER: Query = Query::number("after", "Those after the one with this number.");
const SELECTOR: Query =
    Query::text("selector", "What the chosen node shall have least of: mem, vcpus, vms or load.");
const INSIDE: &str = "A browser shows its page no answer but the WebSocket: a refusal comes in it, as a problem in a text frame, and it is closed with 4000 and the refusal's status.";
const POOL: Query = Query::text("pool", "Of this pool only.");

const WHOLE: Query = Query::switch(
    openapi::WHOLE,
    "An object: the list, and what there is to say beside it, such as keys that cannot be read. It has no pages.",
);

const fn call(summary: &'static str, gives: Gives) -> About {
    About::call(summary, gives)
}

/// All of them.
pub(super) const ROUTES: &[Route] = &[
    public(Method::GET, "/api/v2/openapi.json", || get(openapi::serve))
        .about(call("This description.", Gives::Object)),
    listen("/api/v2/events", || get(events::events))
        .about(call("What changes, as server-sent events.", Gives::Text("text/event-stream"))),
    read("/api/v2/status", || get(shown::status)).about(call("The cluster on one screen.", Gives::Object)),
    read("/api/v2/top", || get(shown::top)).about(
        call("The cluster for who watches it: nodes, VMs by state, and which VMs are not as asked, and why.", Gives::Object)
            .query(&[Query::number("most", "So many VMs that wait at most; 100 unless given, no more than 1000.")]),
    ),
    read("/api/v2/strays", || get(shown::beside)).about(call(
        "What there is to say beside the list of VMs: keys that are no VM's, nodes that are not heard of, maintenance.",
        Gives::Object,
    )),
    read("/api/v2/overlay", || get(shown::overlay))
        .about(call("What carries frames between nodes in managed networks.", Gives::Object)),
    change(Method::PUT, "/api/v2/overlay", || put(network::set_overlay))
        .about(call("Changes that, for all nodes.", Gives::Done).takes::<network::Carries>()),
    read("/api/v2/maintenance", || get(shown::maintenance))
        .about(call("Whether maintenance is on.", Gives::Object)),
    change(Method::PUT, "/api/v2/maintenance", || put(v2::set_maintenance))
        .about(call("Turns maintenance on or off.", Gives::Done).takes::<v2::Maintenance>()),
    reads("/api/v2/audit", Role::Admin, || get(shown::changes)).about(
        call("Who has changed what over this API, the newest first.", Gives::List)
            .query(&[Query::number("lines", "So many at most; 100 unless given, 512 are kept."), WHOLE]),
    ),
    reads("/api/v2/tokens", Role::Admin, || get(token::list))
        .about(call("The tokens of the state tree.", Gives::List).query(&[COUNT, AFTER, WHOLE])),
    change(Method::POST, "/api/v2/tokens", || post(token::add))
        .about(call("Makes a token, and answers it this once.", Gives::Token).takes::<token::New>()),
    reads("/api/v2/tokens/{token}", Role::Admin, || get(token::info))
        .about(call("One token, without what is sent.", Gives::Object)),
    change(Method::DELETE, "/api/v2/tokens/{token}", || delete(token::remove))
        .about(call("Removes a token: nobody gets in with it any more.", Gives::Done)),
    read("/api/v2/session", || get(shown::session))
        .about(call("Who asks, and with which role.", Gives::Object)),
    read("/api/v2/plan/flush/{node}", || get(plan::flush))
        .about(call("What would become of a node's VMs if it were flushed.", Gives::List).query(&[SELECTOR])),
    read("/api/v2/plan/death/{node}", || get(plan::death))
        .about(call("What would become of a node's VMs if it died.", Gives::List).query(&[SELECTOR])),
    read("/api/v2/plan/vm/{vm}", || get(plan::vm))
        .about(call("What each node says to a VM that asks for a place.", Gives::List).query(&[SELECTOR])),
    read("/api/v2/metrics", || get(shown::metrics)).about(call(
        "Figures of the nodes, the VMs and this service, for Prometheus.",
        Gives::Text("text/plain"),
    )),
    read("/api/v2/history", || get(shown::history)).about(call(
        "Figures of some hours, as far as this service has seen them: load and memory of the nodes, and how soon ZooKeeper answered.",
        Gives::Object,
    )),
    read("/api/v2/failovers", || get(shown::failovers))
        .about(call("The course of the last fences, as this service has seen it, the newest first.", Gives::List)),
    read("/api/v2/fences", || get(shown::fences))
        .about(call("Which nodes are fenced, and how far that has come.", Gives::List)),
    read("/api/v2/nodes", || get(shown::nodes))
        .about(call("All nodes.", Gives::List).query(&[LIMIT, COUNT, AFTER, WHOLE])),
    read("/api/v2/nodes/{node}", || get(shown::node)).about(call("One node.", Gives::Object)),
    read("/api/v2/nodes/{node}/explanation", || get(shown::node_explanation))
        .about(call("Why a node is in the state it is in.", Gives::Object)),
    change(Method::DELETE, "/api/v2/nodes/{node}", || delete(node::remove)).about(
        call("Removes a node for good. Refused while it may execute anything, or a VM belongs to it.", Gives::Done).may_take::<node::Word>().asks(),
    ),
    read("/api/v2/nodes/{node}/outcome", || get(outcome::of_node)).about(
        call("Whether what was asked of a node is so: `done`, or what is waited for.", Gives::Object)
            .query(&[Query::text("of", "flush, ready, fence, primary or secondary.")]),
    ),
    change(Method::POST, "/api/v2/nodes/{node}/fence", || post(node::fence)).about(
        call("Has a node fenced now, heard of or not: its power is cut, its VMs are started elsewhere.", Gives::Asked)
            .may_take::<Nothing>().asks(),
    ),
    change(Method::DELETE, "/api/v2/nodes/{node}/fence", || delete(node::cancel_fence))
        .about(call("Ends a fence that has not proven the node's death yet.", Gives::Done)),
    change(Method::POST, "/api/v2/nodes/{node}/confirm-dead", || post(node::confirm_dead)).about(
        call("Takes somebody's word that a node is dead, after listening: its VMs are started elsewhere.", Gives::Asked)
            .may_take::<node::Word>().asks(),
    ),
    change(Method::POST, "/api/v2/nodes/{node}/replace", || post(node::replace)).about(
        call("Takes somebody's word that the machine with a node's name is gone for good, after listening.", Gives::Done)
            .may_take::<node::Word>().asks(),
    ),
    operate(Method::POST, "/api/v2/nodes/{node}/flush", || post(node::flush))
        .about(call("Sends a node's VMs away.", Gives::Asked).may_take::<Nothing>()),
    operate(Method::POST, "/api/v2/nodes/{node}/ready", || post(node::ready))
        .about(call("Has a node take VMs.", Gives::Asked).may_take::<Nothing>()),
    change(Method::POST, "/api/v2/nodes/{node}/primary", || post(node::primary))
        .about(call("Makes a coordinator primary.", Gives::Asked).may_take::<Nothing>()),
    change(Method::POST, "/api/v2/nodes/{node}/secondary", || post(node::secondary))
        .about(call("Has the primary step down.", Gives::Asked).may_take::<Nothing>()),
    read("/api/v2/vms", || get(shown::vms)).about(call("All VMs.", Gives::List).query(&[
        LIMIT,
        COUNT,
        AFTER,
        Query::text("node", "Of this node only."),
        Query::text("state", "In this state only."),
    ])),
    change(Method::POST, "/api/v2/vms", || post(vm::define))
        .about(call("Defines a VM; it is off.", Gives::Created).takes::<vm::New>()),
    read("/api/v2/vms/{vm}", || get(shown::vm)).about(call("One VM, by its name or UUID.", Gives::Object)),
    change(Method::DELETE, "/api/v2/vms/{vm}", || delete(vm::undefine)).about(
        call("Undefines a VM that is off.", Gives::Done)
            .query(&[
                Query::switch("stop", "Power it off first."),
                Query::number("within", "So many seconds is waited for it to be off; 30 unless given, no more than that."),
            ]),
    ),
    read("/api/v2/vms/{vm}/explanation", || get(shown::vm_explanation))
        .about(call("Why a VM is in the state it is in.", Gives::Object)),
    read("/api/v2/vms/{vm}/outcome", || get(outcome::of_vm)).about(
        call("Whether what was asked of a VM is so: `done`, or what is waited for.", Gives::Object).query(&[
            Query::text("of", "start, stop, shutdown, restart or move."),
            Query::text("from", "Of a move: where it came from."),
            Query::text("to", "Of a move: where it is to be."),
        ]),
    ),
    read("/api/v2/vms/{vm}/strain", || get(vm::strain))
        .about(call("What a start of it would take from the cluster, in words.", Gives::List)),
    operate(Method::POST, "/api/v2/vms/{vm}/flush-locks", || post(storage::flush_locks)).about(
        call("Shuts out whoever wrote for a VM that is off, and takes the locks of its disks.", Gives::Task)
            .may_take::<Nothing>(),
    ),
    read("/api/v2/vms/{vm}/log", || get(vm::log)).about(
        call("The end of a VM's serial console.", Gives::Text("text/plain"))
            .query(&[Query::number("lines", "So many lines; 200 unless given.")]),
    ),
    talk("/api/v2/vms/{vm}/console", || get(console::console)).about(
        call("A VM's serial console, which is followed when the VM moves: bytes both ways as binary frames, lines about it as text frames.", Gives::Socket)
            .query(&[
                Query::switch("force", "Take it from whoever has it open: one at a time can."),
                Query::switch("inside", INSIDE),
                Query::switch("events", "For programs: the WebSocket comes before the console, and what happens to that comes in text frames as JSON objects of one value each: a line in `opened`, `said` or `ended`, or a problem in `failed`."),
                Query::switch("wait", "With events: while the VM is off, wait until it starts, rather than end."),
                Query::switch("again", "With events: this client has had it open and lost its way to the service, so whoever has it may be itself still."),
            ]),
    ),
    talk("/api/v2/vms/{vm}/screen", || get(screen::screen)).about(
        call("A VM's screen, on whatever node it is: RFB (RFC 6143) both ways as binary frames, of the subprotocol `binary` if it is asked for. After a move it is closed with 4001, and can be opened again.", Gives::Socket)
            .query(&[Query::switch("inside", INSIDE)]),
    ),
    read("/api/v2/vms/{vm}/definition", || get(vm::definition))
        .about(call("A VM's definition, with its ETag.", Gives::Text("application/xml"))),
    change(Method::PUT, "/api/v2/vms/{vm}/definition", || put(vm::set_definition))
        .about(call("Replaces a definition; it counts from the next start.", Gives::Done).takes_definition()),
    operate(Method::PUT, "/api/v2/vms/{vm}/state", || put(vm::set_state))
        .about(call("Asks that a VM runs, is off, or is restarted.", Gives::Asked).takes::<vm::Wanted>()),
    operate(Method::POST, "/api/v2/vms/{vm}/migrate", || post(vm::migrate))
        .about(call("Gives a VM another node, with a way back.", Gives::Asked).may_take::<vm::Where>()),
    operate(Method::POST, "/api/v2/vms/{vm}/unmigrate", || post(vm::unmigrate))
        .about(call("The way back.", Gives::Asked).may_take::<vm::Back>()),
    operate(Method::POST, "/api/v2/vms/{vm}/move", || post(vm::move_to))
        .about(call("Gives a VM another node, for good.", Gives::Asked).may_take::<vm::Where>()),
    read("/api/v2/networks", || get(shown::networks)).about(call("All networks.", Gives::List).query(&[
        LIMIT,
        COUNT,
        AFTER_NUMBER,
        WHOLE,
    ])),
    change(Method::POST, "/api/v2/networks", || post(network::add))
        .about(call("Adds a network.", Gives::Created).takes::<network::New>()),
    read("/api/v2/networks/{network}", || get(shown::network))
        .about(call("One network, by its number or description.", Gives::Object)),
    change(Method::PATCH, "/api/v2/networks/{network}", || patch(network::modify))
        .about(call("Changes what is sent of a network.", Gives::Done).may_take::<network::Change>()),
    change(Method::DELETE, "/api/v2/networks/{network}", || delete(network::remove))
        .about(call("Removes a network that no VM has a card in.", Gives::Done)),
    read("/api/v2/networks/{network}/explanation", || get(shown::network_explanation))
        .about(call("Why a network is not as desired.", Gives::Object)),
    read("/api/v2/networks/{network}/leases", || get(shown::leases))
        .about(call("Who has which address.", Gives::Object)),
    change(Method::POST, "/api/v2/networks/{network}/leases", || post(network::reserve))
        .about(call("Reserves an address for a card.", Gives::Done).takes::<network::Reservation>()),
    change(Method::DELETE, "/api/v2/networks/{network}/leases/{mac}", || delete(network::free))
        .about(call("Removes a card's reservation.", Gives::Done)),
    read("/api/v2/networks/{network}/rules", || get(shown::rules))
        .about(call("The rules of a network's firewall, in their order.", Gives::List)),
    change(Method::POST, "/api/v2/networks/{network}/rules", || post(network::add_rule))
        .about(call("Adds a rule.", Gives::Done).takes::<network::NewRow>()),
    change(Method::DELETE, "/api/v2/networks/{network}/rules/{rule}", || delete(network::remove_rule))
        .about(call("Removes a rule.", Gives::Done)),
    read("/api/v2/storage", || get(storage::status)).about(call("What Ceph says of itself.", Gives::Object)),
    read("/api/v2/storage/osds", || get(storage::osds)).about(call("All OSDs.", Gives::List)),
    change(Method::POST, "/api/v2/storage/osds", || post(storage::add_osd))
        .about(call("Makes a device of a node an OSD.", Gives::Task).takes::<storage::NewOsd>()),
    change(Method::DELETE, "/api/v2/storage/osds/{osd}", || delete(storage::remove_osd)).about(
        call("Removes an OSD, when its data is elsewhere, and clears its device.", Gives::Task)
            .query(&[Query::switch("force", "Also if its node is dead: its device stays as it is.")]),
    ),
    change(Method::PUT, "/api/v2/storage/osds/{osd}/state", || put(storage::set_osd_state))
        .about(call("Takes an OSD into or out of use.", Gives::Task).takes::<storage::OsdState>()),
    change(Method::PUT, "/api/v2/storage/flags/{flag}", || put(storage::set_flag))
        .about(call("Sets a flag of all OSDs.", Gives::Task)),
    change(Method::DELETE, "/api/v2/storage/flags/{flag}", || delete(storage::clear_flag))
        .about(call("Clears a flag of all OSDs.", Gives::Task)),
    read("/api/v2/storage/pools", || get(storage::pools))
        .about(call("All pools.", Gives::List).query(&[LIMIT, COUNT, AFTER, WHOLE])),
    change(Method::POST, "/api/v2/storage/pools", || post(storage::add_pool))
        .about(call("Adds a pool.", Gives::Task).takes::<storage::NewPool>()),
    change(Method::DELETE, "/api/v2/storage/pools/{pool}", || delete(storage::remove_pool))
        .about(call("Removes a pool, with all that is in it.", Gives::Task)),
    read("/api/v2/storage/volumes", || get(storage::volumes))
        .about(call("All volumes.", Gives::List).query(&[LIMIT, COUNT, AFTER, POOL, WHOLE])),
    change(Method::POST, "/api/v2/storage/volumes", || post(storage::add_volume))
        .about(call("Adds a volume.", Gives::Task).takes::<storage::NewVolume>()),
    change(Method::PATCH, "/api/v2/storage/volumes/{pool}/{volume}", || patch(storage::change_volume)).about(
        call("Gives a volume another size, or another name.", Gives::Task).takes::<storage::VolumeChange>(),
    ),
    change(Method::DELETE, "/api/v2/storage/volumes/{pool}/{volume}", || delete(storage::remove_volume))
        .about(call("Removes a volume.", Gives::Task)),
    change(Method::POST, "/api/v2/storage/volumes/{pool}/{volume}/clone", || post(storage::clone_volume))
        .about(
            call("Makes a volume that holds what this one, or a snapshot of it, holds.", Gives::Task)
                .takes::<storage::NewClone>(),
        ),
    read("/api/v2/storage/snapshots", || get(storage::snapshots)).about(
        call("All snapshots.", Gives::List).query(&[
            LIMIT,
            COUNT,
            AFTER,
            POOL,
            WHOLE,
            Query::text("volume", "Of volumes with this name only."),
        ]),
    ),
    change(Method::POST, "/api/v2/storage/snapshots", || post(storage::add_snapshot))
        .about(call("Takes a snapshot.", Gives::Task).takes::<storage::NewSnapshot>()),
    change(Method::PATCH, "/api/v2/storage/snapshots/{pool}/{volume}/{snapshot}", || {
        patch(storage::change_snapshot)
    })
    .about(call("Gives a snapshot another name.", Gives::Task).takes::<storage::SnapshotChange>()),
    change(Method::DELETE, "/api/v2/storage/snapshots/{pool}/{volume}/{snapshot}", || {
        delete(storage::remove_snapshot)
    })
    .about(call("Removes a snapshot.", Gives::Task)),
    change(Method::POST, "/api/v2/storage/snapshots/{pool}/{volume}/{snapshot}/rollback", || {
        post(storage::roll_back)
    })
    .about(call("Makes a volume hold what it held then; what was written since is lost.", Gives::Task)),
    change(Method::POST, "/api/v2/storage/locks", || post(storage::look_at_locks)).about(
        call("Looks who holds the locks of volumes; the task says what was found.", Gives::Task)
            .takes::<storage::LocksOf>(),
    ),
    change(Method::POST, "/api/v2/storage/shut-out", || post(storage::look_at_shut_out)).about(
        call("Looks which clients are shut out of the storage; the task says what was found.", Gives::Task)
            .takes::<storage::ShutOutOf>(),
    ),
    change(Method::POST, "/api/v2/storage/shut-out/lift", || post(storage::lift)).about(
        call("Lets clients in again whose processes are proven dead.", Gives::Task)
            .takes::<storage::Lifted>(),
    ),
    read("/api/v2/tasks", || get(storage::tasks))
        .about(call("All tasks, the oldest first.", Gives::List).query(&[AFTER_NUMBER, COUNT, WHOLE])),
    read("/api/v2/tasks/{task}/outcome", || get(outcome::of_task)).about(
        call("Whether a task is over: `done`, or what is waited for.", Gives::Object)
            .query(&[Query::text("of", "done or cancel.")]),
    ),
    read("/api/v2/tasks/{task}", || get(storage::task)).about(call("One task.", Gives::Object)),
    change(Method::DELETE, "/api/v2/tasks/{task}", || delete(storage::cancel))
        .about(call("Has a task end before it is done: at once if nobody has begun it, otherwise as soon as that is safe; the task says what came of it.", Gives::Asked)),
];
