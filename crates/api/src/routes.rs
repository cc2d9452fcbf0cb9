//! The table of all routes. A handler is reached through it only, and each row says who may: tests ask every row without a token.

mod about;
mod carried;
mod guard;
mod openapi;
mod v2;

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
    routing::{MethodRouter, delete, get, post, put},
};
use pvc_config::Role;

use self::about::About;
pub use self::openapi::openapi;
use crate::{
    api::Shared,
    limits::MostBytes,
    page,
    reply::message,
    v1::{self, acl, auth, lease, network, node, storage, vm},
    v2::refuse as problem,
};

/// Who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// Who has a token of this role; nothing is changed.
    Read(Role),
    /// The same, and what is answered does not end.
    Listen(Role),
    /// Who has a token of this role; each call is written to the log.
    Change(Role),
    /// The same, of what goes both ways until somebody ends it.
    Talk(Role),
}

impl Access {
    fn kind(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Read(_) => "read",
            Self::Listen(_) => "listen",
            Self::Change(_) => "change",
            Self::Talk(_) => "console",
        }
    }
}

/// A method of a path.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, its variable parts in braces.
    pub path: &'static str,
    /// Who may.
    pub access: Access,
    handler: Handler,
    /// What the description of the API says of it.
    about: Option<About>,
}

type Handler = fn() -> MethodRouter<Shared>;

/// What a route is about, for tokens that are limited to some VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The VM that its path names.
    OneVm,
    /// Its handler shows to each what it may see.
    OfWhoAsks,
    /// More than some VMs.
    Whole,
}

/// What stands before a route's handler.
#[derive(Clone)]
struct Before {
    api: Shared,
    role: Role,
    reach: Reach,
    /// How it is tried without being done, where it can be.
    trial: Option<MethodRouter>,
    /// The largest body.
    most: MostBytes,
    answer_is_kept: bool,
}

impl Route {
    const fn of(method: Method, path: &'static str, access: Access, handler: Handler) -> Self {
        Self { method, path, access, handler, about: None }
    }

    /// Whether its answer may be kept for who asks again: not if that is a secret.
    fn answer_is_kept(&self) -> bool {
        self.path.starts_with("/api/v2") && self.about.as_ref().is_some_and(|about| !about.gives_a_secret())
    }

    /// What of it a token is good for that is limited to some VMs.
    fn reach(&self) -> Reach {
        match self.path {
            path if path.starts_with("/api/v2/vms/{vm}") => Reach::OneVm,
            "/api/v2/vms" | "/api/v2/session" if self.method == Method::GET => Reach::OfWhoAsks,
            _ => Reach::Whole,
        }
    }

    /// The only bodies that are large.
    fn takes_a_definition(&self) -> bool {
        const PATHS: [&str; 4] =
            ["/api/v1/vm", "/api/v1/vm/{vm}", "/api/v2/vms", "/api/v2/vms/{vm}/definition"];
        PATHS.contains(&self.path) && self.method != Method::GET
    }

    const fn about(mut self, about: About) -> Self {
        self.about = Some(about);
        self
    }
}

const fn public(method: Method, path: &'static str, handler: Handler) -> Route {
    Route::of(method, path, Access::Public, handler)
}

const fn read(path: &'static str, handler: Handler) -> Route {
    Route::of(Method::GET, path, Access::Read(Role::Read), handler)
}

/// Reads what not everybody may.
const fn reads(path: &'static str, role: Role, handler: Handler) -> Route {
    Route::of(Method::GET, path, Access::Read(role), handler)
}

const fn listen(path: &'static str, handler: Handler) -> Route {
    Route::of(Method::GET, path, Access::Listen(Role::Read), handler)
}

/// Has what there is run, or somewhere else.
const fn operate(method: Method, path: &'static str, handler: Handler) -> Route {
    Route::of(method, path, Access::Change(Role::Operate), handler)
}

/// Talks with a guest, which may do anything then.
const fn talk(path: &'static str, handler: Handler) -> Route {
    Route::of(Method::GET, path, Access::Talk(Role::Operate), handler)
}

/// Defines, changes or removes.
const fn change(method: Method, path: &'static str, handler: Handler) -> Route {
    Route::of(method, path, Access::Change(Role::Admin), handler)
}

/// All routes.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    OLD_API.iter().chain(v2::ROUTES)
}

/// Those of the old API.
const OLD_API: &[Route] = &[
    public(Method::GET, "/", || get(page::document)),
    public(Method::GET, "/page/{build}/{*file}", || get(page::file)),
    public(Method::GET, "/api/v1", || get(v1::greeting)),
    public(Method::GET, "/api/v1/", || get(v1::greeting)),
    public(Method::GET, "/api/v1/auth/login", || get(auth::form)),
    public(Method::POST, "/api/v1/auth/login", || post(auth::login)),
    public(Method::GET, "/api/v1/auth/logout", || get(auth::logout)),
    public(Method::POST, "/api/v1/auth/logout", || post(auth::logout)),
    read("/api/v1/node", || get(node::list)),
    read("/api/v1/node/{node}", || get(node::item)),
    read("/api/v1/node/{node}/daemon-state", || get(node::daemon_state)),
    read("/api/v1/node/{node}/coordinator-state", || get(node::coordinator_state)),
    change(Method::POST, "/api/v1/node/{node}/coordinator-state", || post(node::set_coordinator_state)),
    read("/api/v1/node/{node}/domain-state", || get(node::domain_state)),
    operate(Method::POST, "/api/v1/node/{node}/domain-state", || post(node::set_domain_state)),
    read("/api/v1/vm", || get(vm::list)),
    change(Method::POST, "/api/v1/vm", || post(vm::define)),
    read("/api/v1/vm/{vm}", || get(vm::item)),
    change(Method::PUT, "/api/v1/vm/{vm}", || put(vm::modify)),
    change(Method::DELETE, "/api/v1/vm/{vm}", || delete(vm::undefine)),
    read("/api/v1/vm/{vm}/state", || get(vm::state)),
    operate(Method::POST, "/api/v1/vm/{vm}/state", || post(vm::set_state)),
    read("/api/v1/vm/{vm}/node", || get(vm::node)),
    operate(Method::POST, "/api/v1/vm/{vm}/node", || post(vm::relocate)),
    read("/api/v1/vm/{vm}/locks", || get(vm::locks)),
    operate(Method::POST, "/api/v1/vm/{vm}/locks", || post(vm::flush_locks)),
    read("/api/v1/network", || get(network::list)),
    change(Method::POST, "/api/v1/network", || post(network::add)),
    read("/api/v1/network/{network}", || get(network::item)),
    change(Method::PUT, "/api/v1/network/{network}", || put(network::modify)),
    change(Method::DELETE, "/api/v1/network/{network}", || delete(network::remove)),
    read("/api/v1/network/{network}/lease", || get(lease::list)),
    change(Method::POST, "/api/v1/network/{network}/lease", || post(lease::add)),
    read("/api/v1/network/{network}/lease/{mac}", || get(lease::item)),
    change(Method::DELETE, "/api/v1/network/{network}/lease/{mac}", || delete(lease::remove)),
    read("/api/v1/network/{network}/dhcp", || get(lease::list)),
    change(Method::POST, "/api/v1/network/{network}/dhcp", || post(lease::add)),
    read("/api/v1/network/{network}/dhcp/{mac}", || get(lease::item)),
    change(Method::DELETE, "/api/v1/network/{network}/dhcp/{mac}", || delete(lease::remove)),
    read("/api/v1/network/{network}/acl", || get(acl::list)),
    change(Method::POST, "/api/v1/network/{network}/acl", || post(acl::add)),
    read("/api/v1/network/{network}/acl/{acl}", || get(acl::item)),
    change(Method::DELETE, "/api/v1/network/{network}/acl/{acl}", || delete(acl::remove)),
    public(Method::GET, "/api/v1/storage", || get(storage::greeting)),
    read("/api/v1/storage/ceph", || get(storage::status)),
    read("/api/v1/storage/ceph/status", || get(storage::status)),
    read("/api/v1/storage/ceph/df", || get(storage::df)),
    read("/api/v1/storage/ceph/osd", || get(storage::osds)),
    read("/api/v1/storage/ceph/osd/{osd}", || get(storage::osd)),
    read("/api/v1/storage/ceph/osd/{osd}/state", || get(storage::osd_state)),
    read("/api/v1/storage/ceph/pool", || get(storage::pools)),
    read("/api/v1/storage/ceph/pool/{pool}", || get(storage::pool)),
    read("/api/v1/storage/ceph/volume", || get(storage::volumes)),
    read("/api/v1/storage/ceph/volume/{pool}/{volume}", || get(storage::volume)),
    read("/api/v1/storage/ceph/volume/snapshot", || get(storage::snapshots)),
    read("/api/v1/storage/ceph/volume/snapshot/{pool}/{volume}/{snapshot}", || get(storage::snapshot)),
    change(Method::POST, "/api/v1/storage/ceph/cluster-option", || post(storage::set_option)),
    change(Method::POST, "/api/v1/storage/ceph/osd", || post(storage::add_osd)),
    change(Method::DELETE, "/api/v1/storage/ceph/osd/{osd}", || delete(storage::remove_osd)),
    change(Method::POST, "/api/v1/storage/ceph/osd/{osd}/state", || post(storage::set_osd_state)),
    change(Method::POST, "/api/v1/storage/ceph/pool", || post(storage::add_pool)),
    change(Method::DELETE, "/api/v1/storage/ceph/pool/{pool}", || delete(storage::remove_pool)),
    change(Method::POST, "/api/v1/storage/ceph/volume", || post(storage::add_volume)),
    change(Method::PUT, "/api/v1/storage/ceph/volume/{pool}/{volume}", || put(storage::change_volume)),
    change(Method::DELETE, "/api/v1/storage/ceph/volume/{pool}/{volume}", || delete(storage::remove_volume)),
    change(Method::POST, "/api/v1/storage/ceph/volume/snapshot", || post(storage::add_snapshot)),
    change(Method::PUT, "/api/v1/storage/ceph/volume/snapshot/{pool}/{volume}/{snapshot}", || {
        put(storage::rename_snapshot)
    }),
    change(Method::DELETE, "/api/v1/storage/ceph/volume/snapshot/{pool}/{volume}/{snapshot}", || {
        delete(storage::remove_snapshot)
    }),
];

/// All of it.
pub fn router(api: Shared) -> Router {
    let mut router = Router::new();
    let trial = Arc::new(api.trial());
    for route in routes() {
        let handler = || {
            let handler = (route.handler)();
            if route.takes_a_definition() { handler } else { handler.layer(from_fn(of_values)) }
        };
        let most =
            if route.takes_a_definition() { MostBytes(api.limits.body_bytes) } else { MostBytes::OF_VALUES };
        let is_tried = matches!(route.access, Access::Change(_)) && route.path.starts_with("/api/v2");
        let before = |role| Before {
            api: api.clone(),
            role,
            reach: route.reach(),
            trial: is_tried.then(|| handler().with_state(Arc::clone(&trial))),
            most,
            answer_is_kept: route.answer_is_kept(),
        };
        let handler = handler();
        let guarded = match route.access {
            Access::Public => handler.layer(from_fn(strangers)),
            Access::Read(role) => handler.layer(from_fn_with_state(before(role), guard::reading)),
            Access::Listen(role) => handler.layer(from_fn_with_state(before(role), guard::listening)),
            Access::Change(role) => handler.layer(from_fn_with_state(before(role), guard::changing)),
            Access::Talk(role) => handler.layer(from_fn_with_state(before(role), guard::talking)),
        };
        let counted = from_fn_with_state((Arc::clone(&api), route), counted);
        router = router.route(route.path, guarded.layer(counted));
    }
    let nothing = async |path: Uri| refuse(&path, StatusCode::NOT_FOUND, "there is no such path");
    let not_so = async |path: Uri| {
        refuse(&path, StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
    };
    router.fallback(nothing).method_not_allowed_fallback(not_so).with_state(api)
}

/// Takes note of each answer, for who asks for figures.
async fn counted(
    State((api, route)): State<(Shared, &'static Route)>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let response = next.run(request).await;
    let (method, kind) = (route.method.as_str(), route.access.kind());
    api.metrics.answered(method, route.path, kind, response.status().as_u16(), began.elapsed());
    response
}

/// In the manner of the API that was asked.
fn refuse(path: &Uri, status: StatusCode, why: &str) -> Response {
    if is_old(path) { message(status, why) } else { problem(status, why) }
}

/// The answer to who has to come back.
fn later(uri: &Uri, why: &str) -> Response {
    let mut refused = refuse(uri, StatusCode::SERVICE_UNAVAILABLE, why);
    refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    refused
}

fn is_old(path: &Uri) -> bool {
    path.path().starts_with("/api/v1")
}

async fn of_values(mut request: Request, next: Next) -> Response {
    request.extensions_mut().get_or_insert(MostBytes::OF_VALUES);
    next.run(request).await
}

async fn strangers(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(MostBytes::OF_STRANGERS);
    next.run(request).await
}
