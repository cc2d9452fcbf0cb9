//! The rows of `/api/v2`, each with what the description of the API says of it.

use axum::{
    http::Method,
    routing::{delete, get, patch, post, put},
};

use pvc_config::Role;

use super::{
    Route,
    about::{About, Gives, Query},
    change, listen, openapi, operate, public, read, reads,
};
use crate::v2::{self, Nothing, events, network, node, read as shown, storage, vm};

const LIMIT: Query =
    Query::text("limit", "A regular expression of at most 256 bytes: what contains a match.");
const POOL: Query = Query::text("pool", "Of this pool only.");

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
    read("/api/v2/maintenance", || get(shown::maintenance))
        .about(call("Whether maintenance is on.", Gives::Object)),
    change(Method::PUT, "/api/v2/maintenance", || put(v2::set_maintenance))
        .about(call("Turns maintenance on or off.", Gives::Done).takes::<v2::Maintenance>()),
    reads("/api/v2/audit", Role::Admin, || get(shown::changes)).about(
        call("Who has changed what over this API, the newest first.", Gives::List)
            .query(&[Query::number("lines", "So many at most; 100 unless given, 512 are kept.")]),
    ),
    read("/api/v2/session", || get(shown::session))
        .about(call("Who asks, and with which role.", Gives::Object)),
    read("/api/v2/fences", || get(shown::fences))
        .about(call("Which nodes are fenced, and how far that has come.", Gives::List)),
    read("/api/v2/nodes", || get(shown::nodes)).about(call("All nodes.", Gives::List).query(&[LIMIT])),
    read("/api/v2/nodes/{node}", || get(shown::node)).about(call("One node.", Gives::Object)),
    read("/api/v2/nodes/{node}/explanation", || get(shown::node_explanation))
        .about(call("Why a node is in the state it is in.", Gives::Object)),
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
        Query::text("node", "Of this node only."),
        Query::text("state", "In this state only."),
    ])),
    change(Method::POST, "/api/v2/vms", || post(vm::define))
        .about(call("Defines a VM; it is off.", Gives::Created).takes::<vm::New>()),
    read("/api/v2/vms/{vm}", || get(shown::vm)).about(call("One VM, by its name or UUID.", Gives::Object)),
    change(Method::DELETE, "/api/v2/vms/{vm}", || delete(vm::undefine)).about(
        call("Undefines a VM that is off.", Gives::Done)
            .query(&[Query::switch("stop", "Power it off first.")]),
    ),
    read("/api/v2/vms/{vm}/explanation", || get(shown::vm_explanation))
        .about(call("Why a VM is in the state it is in.", Gives::Object)),
    read("/api/v2/vms/{vm}/log", || get(vm::log)).about(
        call("The end of a VM's serial console.", Gives::Text("text/plain"))
            .query(&[Query::number("lines", "So many lines; 200 unless given.")]),
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
        .about(call("The way back.", Gives::Asked).may_take::<Nothing>()),
    operate(Method::POST, "/api/v2/vms/{vm}/move", || post(vm::move_to))
        .about(call("Gives a VM another node, for good.", Gives::Asked).may_take::<vm::Where>()),
    read("/api/v2/networks", || get(shown::networks))
        .about(call("All networks.", Gives::List).query(&[LIMIT])),
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
    change(Method::PUT, "/api/v2/storage/osds/{osd}/state", || put(storage::set_osd_state))
        .about(call("Takes an OSD into or out of use.", Gives::Task).takes::<storage::OsdState>()),
    change(Method::PUT, "/api/v2/storage/flags/{flag}", || put(storage::set_flag))
        .about(call("Sets a flag of all OSDs.", Gives::Task)),
    change(Method::DELETE, "/api/v2/storage/flags/{flag}", || delete(storage::clear_flag))
        .about(call("Clears a flag of all OSDs.", Gives::Task)),
    read("/api/v2/storage/pools", || get(storage::pools))
        .about(call("All pools.", Gives::List).query(&[LIMIT])),
    change(Method::POST, "/api/v2/storage/pools", || post(storage::add_pool))
        .about(call("Adds a pool.", Gives::Task).takes::<storage::NewPool>()),
    change(Method::DELETE, "/api/v2/storage/pools/{pool}", || delete(storage::remove_pool))
        .about(call("Removes a pool, with all that is in it.", Gives::Task)),
    read("/api/v2/storage/volumes", || get(storage::volumes))
        .about(call("All volumes.", Gives::List).query(&[LIMIT, POOL])),
    change(Method::POST, "/api/v2/storage/volumes", || post(storage::add_volume))
        .about(call("Adds a volume.", Gives::Task).takes::<storage::NewVolume>()),
    change(Method::PATCH, "/api/v2/storage/volumes/{pool}/{volume}", || patch(storage::change_volume)).about(
        call("Gives a volume another size, or another name.", Gives::Task).takes::<storage::VolumeChange>(),
    ),
    change(Method::DELETE, "/api/v2/storage/volumes/{pool}/{volume}", || delete(storage::remove_volume))
        .about(call("Removes a volume.", Gives::Task)),
    read("/api/v2/storage/snapshots", || get(storage::snapshots)).about(
        call("All snapshots.", Gives::List).query(&[
            LIMIT,
            POOL,
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
    read("/api/v2/tasks", || get(storage::tasks)).about(call("All tasks, the oldest first.", Gives::List)),
    read("/api/v2/tasks/{task}", || get(storage::task)).about(call("One task.", Gives::Object)),
    change(Method::DELETE, "/api/v2/tasks/{task}", || delete(storage::cancel))
        .about(call("Takes back a task that nobody has begun.", Gives::Done)),
];
