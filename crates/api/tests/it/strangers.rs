//! What is asked without a token, with a wrong one, and by pages of other sites. Made from the table of routes: a new route cannot be forgotten.

use std::time::Duration;

use pvc_api::{Access, Limits, Route, routes};
use pvc_config::Role;
use pvc_operate::testing::{Fake, id};
use pvc_store::{Op, Transaction};

use crate::support::{OPERATOR, READER, Served, TOKEN, again, authentication, definition};

/// The path of a route, its variable parts filled in.
fn path(route: &Route) -> String {
    route
        .path
        .split('/')
        .map(|part| if part.starts_with('{') { "x" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

#[tokio::test]
async fn every_route_but_the_public_ones_refuses_who_has_no_token() {
    let fake = Fake::with(&["hv1"]).await;
    // Nobody carries out what is asked for, and some calls wait for that.
    let limits =
        Limits { answer_within: Duration::from_secs(1), wrong_tokens: u32::MAX, ..Limits::default() };
    let served = Served::of(again(&fake), Some(authentication()), limits).await;
    let wrong = [
        String::new(),
        "X-Api-Key: \r\n".to_owned(),
        "X-Api-Key: wrong\r\n".to_owned(),
        format!("X-Api-Key: {}\r\n", &TOKEN[1..]),
        format!("X-Api-Key: {TOKEN}{TOKEN}\r\n"),
        format!("X-Api-Key: {TOKEN}\r\nX-Api-Key: {TOKEN}\r\n"),
        format!("Authorization: Bearer {TOKEN}\r\n"),
        format!("Cookie: pvc_session={TOKEN}\r\n"),
        format!("Cookie: pvc_session=99999999999.{0}{0}.{0}{0}\r\n", "0".repeat(32)),
    ];
    for route in routes().filter(|route| route.access != Access::Public) {
        for headers in &wrong {
            for query in [String::new(), format!("?token={TOKEN}&x-api-key={TOKEN}")] {
                let path = path(route) + &query;
                let answer = served.send(route.method.as_str(), &path, headers, "").await;
                assert_eq!(answer.status, 401, "{} {path} {headers}: {answer:?}", route.method);
                assert!(!answer.body.contains(TOKEN));
            }
        }
        if route.method == "GET" {
            assert_eq!(served.send("HEAD", &path(route), "", "").await.status, 401, "HEAD {}", route.path);
        }
        // An answer that never ends is another test's.
        if route.path.ends_with("/events") {
            continue;
        }
        let answer = served.ask(route.method.as_str(), &path(route), "").await;
        assert!(![401, 405].contains(&answer.status), "{} {}: {answer:?}", route.method, route.path);
    }
}

#[tokio::test]
async fn no_route_does_more_than_the_role_of_the_token_allows() {
    let fake = Fake::with(&["hv1"]).await;
    let limits = Limits { answer_within: Duration::from_secs(1), ..Limits::default() };
    let served = Served::of(again(&fake), Some(authentication()), limits).await;
    let before = fake.tree.dump();
    for route in routes() {
        let needed = match route.access {
            Access::Public => continue,
            Access::Read(role) | Access::Listen(role) | Access::Change(role) | Access::Talk(role) => role,
        };
        assert!(
            route.method == "GET" || needed > Role::Read,
            "{} {} changes something, and everybody may",
            route.method,
            route.path
        );
        for (token, role) in [(READER, Role::Read), (OPERATOR, Role::Operate)] {
            let headers = format!("X-Api-Key: {token}\r\n");
            if role < needed {
                let answer = served.send(route.method.as_str(), &path(route), &headers, "").await;
                assert_eq!(answer.status, 403, "{} {} by {role:?}: {answer:?}", route.method, route.path);
            } else if route.method != "GET" {
                let answer = served.send(route.method.as_str(), &path(route), &headers, "").await;
                assert!(
                    ![401, 403, 405].contains(&answer.status),
                    "{} {}: {answer:?}",
                    route.method,
                    route.path
                );
            }
        }
    }
    assert_eq!(fake.tree.dump(), before, "nothing of what is refused was written");
    for (token, state, status) in [(READER, "stop", 403), (OPERATOR, "stop", 404)] {
        let headers = format!("X-Api-Key: {token}\r\nContent-Type: application/json\r\n");
        let body = format!(r#"{{"state":"{state}"}}"#);
        assert_eq!(served.send("PUT", "/api/v2/vms/x/state", &headers, &body).await.status, status);
    }
}

/// Of what is looked at nothing names the password of a guest's display: a new route cannot forget it either. Events are of the view, which has no definitions.
#[tokio::test]
async fn who_may_only_look_is_told_no_password_of_a_display() {
    const SECRET: &str = "s3cret-of-a-display";
    let fake = Fake::with(&["hv1"]).await;
    fake.define(1, "web1", "hv1").await;
    fake.define(2, "web2", "hv1").await;
    let display = format!("<graphics type='vnc' passwd='{SECRET}'/></devices>");
    let whole = definition("web1", 1).replace("</devices>", &display);
    // Of what cannot be read nobody knows where a password ends.
    let unreadable = whole.replace("</domain>", "");
    for (number, xml) in [(1, whole), (2, unreadable)] {
        let mut set = Transaction::default();
        let path = format!("/domains/{}/xml", id(number));
        set.ops.push(Op::Set { path, data: xml.into_bytes(), version: None });
        fake.cluster.store.commit(set).await.unwrap();
    }
    let served = Served::guarded(&fake).await;
    let get = async |token: &str, path: &str| {
        served.send("GET", path, &format!("X-Api-Key: {token}\r\n"), "").await
    };
    let mut unanswered = Vec::new();
    for route in routes().filter(|route| matches!(route.access, Access::Public | Access::Read(Role::Read))) {
        for (vm, query) in [("web1", ""), ("web2", ""), ("web1", "?whole=true"), ("web1", "?limit=web")] {
            let path = route.path.replace("{vm}", vm).replace("{node}", "hv1") + query;
            let answer = get(READER, &path).await;
            assert!(!format!("{answer:?}").contains(SECRET), "{path}: {answer:?}");
            if route.path.contains("{vm}") && (vm, query) == ("web1", "") && answer.status != 200 {
                unanswered.push((route.path, answer.status));
            }
        }
    }
    // Nothing is proven by an answer that says nothing.
    assert_eq!(unanswered, [("/api/v1/vm/{vm}/locks", 501), ("/api/v2/vms/{vm}/outcome", 400)]);
    let shown = get(READER, "/api/v2/vms/web1/definition").await;
    assert!(shown.status == 200 && shown.body.contains("<graphics type='vnc' passwd='***'/>"), "{shown:?}");
    let old = get(READER, "/api/v1/vm/web1").await;
    assert!(old.status == 200 && old.body.contains("passwd='***'"), "{old:?}");
    assert_eq!(get(READER, "/api/v2/vms/web2/definition").await.status, 403);
    for path in
        ["/api/v2/vms/web1/definition", "/api/v2/vms/web2/definition", "/api/v1/vm", "/api/v1/vm/web2"]
    {
        let all = get(OPERATOR, path).await;
        assert!(all.status == 200 && all.body.contains(SECRET), "{path}: {all:?}");
    }
    let tag = get(OPERATOR, "/api/v2/vms/web1/definition").await.header("etag").map(str::to_owned);
    assert_ne!(shown.header("etag"), tag.as_deref(), "it would tell whether a guess is right");
}

#[tokio::test]
async fn who_guesses_tokens_is_not_listened_to_with_a_short_one() {
    let fake = Fake::with(&["hv1"]).await;
    let limits = Limits { wrong_tokens: 3, ..Limits::default() };
    let served = Served::of(again(&fake), Some(authentication()), limits).await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let login =
        async |token: &str| served.send("POST", "/api/v1/auth/login", form, &format!("token={token}")).await;
    let session = login(TOKEN).await.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let ask = async |headers: &str| served.send("GET", "/api/v2/nodes", headers, "").await.status;
    assert_eq!(ask("X-Api-Key: a\r\n").await, 401);
    assert_eq!(login("b").await.status, 401);
    assert_eq!(ask("").await, 401, "no token is no guess");
    assert_eq!(ask(&format!("X-Api-Key: {TOKEN}\r\n")).await, 200);
    assert_eq!(ask("X-Api-Key: c\r\n").await, 401);
    assert_eq!(ask("X-Api-Key: d\r\n").await, 429);
    assert_eq!(login("d").await.status, 429);
    assert_eq!(ask(&format!("X-Api-Key: {TOKEN}\r\n")).await, 200, "nobody guesses a long one");
    assert_eq!(ask(&format!("Cookie: {session}\r\n")).await, 200, "sessions go on");
}

#[tokio::test]
async fn a_path_that_is_spelt_otherwise_opens_nothing() {
    let fake = Fake::with(&["hv1"]).await;
    let served = Served::guarded(&fake).await;
    for path in [
        "//api/v1/node",
        "/api/v1//node",
        "/api/v1/node/",
        "/API/v1/node",
        "/api/v1/node/..",
        "/api/v1/auth/../node",
        "/api/v1/auth/%2e%2e/node",
        "/api/v1/auth/login/../../node",
        "/api/v1/node;x",
        "/api/v1/node%00",
        "/api/v1/%6eode",
        "/api/v1/node%2fhv1",
        "/%61pi/v1/node",
        "/api/v1/node/hv1%2fdaemon-state",
    ] {
        let answer = served.send("GET", path, "", "").await;
        assert!([400, 401, 404].contains(&answer.status), "{path}: {answer:?}");
        assert!(!answer.body.contains("daemon_state"), "{path}: {answer:?}");
    }
    let absolute = "GET http://other/api/v1/node HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n";
    assert!(served.raw(absolute.as_bytes()).await.starts_with("HTTP/1.1 401"));
}

#[tokio::test]
async fn a_request_that_two_readers_would_cut_differently_is_refused() {
    let fake = Fake::with(&["hv1"]).await;
    let served = Served::guarded(&fake).await;
    let hidden =
        format!("GET /api/v1/node HTTP/1.1\r\nHost: api\r\nX-Api-Key: {TOKEN}\r\nConnection: close\r\n\r\n");
    for head in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length : 5\r\n",
    ] {
        let answer = served
            .raw(format!("POST /api/v1/auth/login HTTP/1.1\r\nHost: api\r\n{head}\r\n{hidden}").as_bytes())
            .await;
        assert!(!answer.contains("daemon_state"), "{head}: {answer}");
    }
}

#[tokio::test]
async fn a_session_is_opened_by_a_token_only_and_serves_no_other_sites_page() {
    let fake = Fake::with(&["hv1"]).await;
    let served = Served::guarded(&fake).await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let login =
        async |token: &str| served.send("POST", "/api/v1/auth/login", form, &format!("token={token}")).await;
    assert_eq!((login("wrong").await.status, login("").await.status), (401, 400));
    let answer = login(TOKEN).await;
    assert_eq!((answer.status, answer.header("location")), (302, Some("/api/v1")));
    let set = answer.header("set-cookie").unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict") && !set.contains(TOKEN), "{set}");
    let cookie = format!("Cookie: {}\r\n", set.split(';').next().unwrap());
    assert_eq!(served.send("GET", "/api/v1/node", &cookie, "").await.status, 200);
    let change = "/api/v1/node/hv1/domain-state?domain-state=flush";
    let foreign = format!("{cookie}Origin: http://evil.example\r\n");
    assert_eq!(served.send("POST", change, &foreign, "").await.status, 403);
    assert_eq!(fake.get("/nodes/hv1/domainstate").await.as_deref(), Some("ready"));
    assert_eq!(served.send("POST", change, &format!("{cookie}Origin: http://api\r\n"), "").await.status, 200);
    let logout = served.send("GET", "/api/v1/auth/logout", &cookie, "").await;
    assert!(logout.status == 302 && logout.header("set-cookie").unwrap().contains("Max-Age=0"));
}

#[tokio::test]
async fn with_authentication_off_all_is_open_and_login_says_so() {
    let fake = Fake::with(&["hv1"]).await;
    let served = Served::of(again(&fake), None, Limits::default()).await;
    assert_eq!(served.send("GET", "/api/v1/node", "", "").await.status, 200);
    for (method, path) in [("GET", "login"), ("POST", "login"), ("GET", "logout")] {
        let answer = served.send(method, &format!("/api/v1/auth/{path}"), "", "").await;
        assert_eq!((answer.status, answer.message().as_str()), (200, "Authentication is disabled."));
    }
}

#[tokio::test]
async fn everybody_is_told_its_own_role() {
    let served = Served::guarded(&Fake::with(&["hv1"]).await).await;
    for (token, name, role) in
        [(TOKEN, "tests", "admin"), (OPERATOR, "operator", "operate"), (READER, "reader", "read")]
    {
        let answer = served.send("GET", "/api/v2/session", &format!("X-Api-Key: {token}\r\n"), "").await;
        assert_eq!(answer.json(), serde_json::json!({ "name": name, "role": role }));
    }
    let [first, second] = [TOKEN, READER].map(|token| format!("X-Api-Key: {token}\r\n"));
    let (first, second) = tokio::join!(
        served.send("GET", "/api/v2/session", &first, ""),
        served.send("GET", "/api/v2/session", &second, "")
    );
    assert_ne!(first.body, second.body, "whoever asks at the same time");
}
