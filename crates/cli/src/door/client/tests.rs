use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const TOKEN: &str = "a-secret-that-stays-here";

/// A server that answers each request with these bytes, and hears what was sent.
async fn answering(answer: Vec<u8>) -> (Client, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, sent) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap_or_default();
            let _ = heard.send(String::from_utf8_lossy(&request[..read]).into_owned());
            let _ = stream.write_all(&answer).await;
        }
    });
    (client(&format!("http://{address}")), sent)
}

fn client(url: &str) -> Client {
    Client::new(Endpoint::parse(url).unwrap(), Some(Token::new(TOKEN).unwrap()), None)
}

fn http(status: &str, kind: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

async fn failure(answer: Vec<u8>) -> Failure {
    let (client, _sent) = answering(answer).await;
    client.ask::<Vec<String>>(Call::get(&["vms"])).await.unwrap_err()
}

#[tokio::test]
async fn what_is_no_answer_of_an_api_is_told_as_such() {
    for (answer, code, why) in [
        (http("200 OK", "text/html", "<html>"), 1, "answered with what is not JSON"),
        (http("200 OK", "application/json", "[1]"), 1, "JSON of another form"),
        (http("200 OK", "application/json", "[\"a"), 1, "JSON of another form"),
        (http("200 OK", "application/json", "[\"\u{e4}"), 1, "JSON of another form"),
        (http("308 Permanent Redirect", "application/json", "[]"), 1, "it sends elsewhere"),
        (http("500 Oh", "text/plain", TOKEN), 1, "answered 500 and no reason"),
        (http("200 OK", TOKEN, "[]"), 1, "not JSON"),
        (http("200 OK", "application/json", &format!("\"{TOKEN}\"")), 1, "JSON of another form"),
        (http("200 OK", "application/json", &format!("[{{\"{TOKEN}\":1}}]")), 1, "JSON of another form"),
        (http("502 Bad Gateway", "text/html", "<html>"), 5, "answered 502 and no reason"),
        (http("504 Late", "application/problem+json", "{\"detail\":\"late\"}"), 5, "late"),
        (http("504 Late", "application/problem+json", "{\"detail\":\"off\",\"waiting\":\"x\"}"), 1, "off"),
        (http("403 Forbidden", "application/problem+json", &format!("{{\"detail\":\"{TOKEN}\"}}")), 3, "…"),
        (http("409 Conflict", "application/problem+json", "{}"), 1, "answered 409 and no reason"),
        (
            http("401 Unauthorized", "application/problem+json", "{\"detail\":\"x\"}"),
            3,
            "does not know this token",
        ),
        (
            http("403 Forbidden", "application/problem+json", "{\"detail\":\"the role admin\"}"),
            3,
            "the role admin",
        ),
        (http("503 Later", "application/problem+json", "{\"detail\":\"later\"}"), 5, "later"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), 5, "did not answer"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[".to_vec(),
            5,
            "did not answer",
        ),
        (Vec::new(), 5, "did not answer"),
    ] {
        let failure = failure(answer).await;
        let told = failure.with_causes();
        assert_eq!(failure.exit_code(), code, "{told}");
        assert!(told.contains(why), "{why}: {told}");
        assert!(!told.contains(TOKEN), "{told}");
    }
}

#[tokio::test]
async fn nobody_is_asked_where_a_redirect_sends() {
    let (elsewhere, mut heard) = answering(http("200 OK", "application/json", "[]")).await;
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let at = format!("{}/api/v2/vms", elsewhere.endpoint);
        let answer = format!("HTTP/1.1 {status}\r\nLocation: {at}\r\nContent-Length: 0\r\n\r\n");
        let failure = failure(answer.into_bytes()).await;
        assert!(failure.to_string().contains("it sends elsewhere, where the token is not sent"), "{failure}");
        assert_eq!(failure.exit_code(), 1);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn of_a_change_that_is_answered_without_a_reason_nobody_knows_whether_it_is_made() {
    for status in ["500 Oh", "502 Bad Gateway", "503 Later", "504 Late", "599 ?"] {
        let (client, _sent) = answering(http(status, "text/html", "")).await;
        let failure = client.ask::<Vec<String>>(Call::post(&["vms"])).await.unwrap_err();
        assert_eq!(failure.exit_code(), 5, "{failure}");
        assert!(failure.to_string().contains("may be done, or not"), "{failure}");
    }
}

#[tokio::test]
async fn a_refusal_has_the_words_and_the_code_that_it_has_without_the_api() {
    let problem = r#"{"detail":"all of it","what":"VM a is not started","why":"it is gone","todo":"look"}"#;
    for (status, code) in [("409 Conflict", 3), ("404 Not Found", 4)] {
        let failure = failure(http(status, "application/problem+json", problem)).await;
        let same = Failure::Cluster(
            Refusal {
                kind: RefusalKind::Refused,
                what: "VM a is not started".into(),
                why: "it is gone".into(),
                todo: "look".into(),
            }
            .into(),
        );
        assert_eq!((failure.exit_code(), failure.with_causes()), (code, same.with_causes()));
    }
}

#[tokio::test]
async fn more_than_any_answer_is_not_read() {
    let mut answer =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n".to_vec();
    answer.resize(answer.len() + MOST + 1, b' ');
    let told = failure(answer).await.with_causes();
    assert!(told.contains("did not answer") && told.contains("limit"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn who_takes_a_request_and_says_nothing_is_waited_for_so_long() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&format!("http://{}", listener.local_addr().unwrap()));
    let began = Instant::now();
    let told = client.ask::<Vec<String>>(Call::delete(&["vms", "a"])).await.unwrap_err().with_causes();
    assert!(began.elapsed() <= ANSWERED_WITHIN + TAKEN_WITHIN, "{:?}", began.elapsed());
    assert!(told.contains("not within 75 s") && told.contains("may be done, or not"), "{told}");
}

#[tokio::test]
async fn nobody_there_is_said_within_seconds() {
    // Bound, and nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&format!("http://{}", listener.local_addr().unwrap()));
    drop(listener);
    let began = Instant::now();
    let failure = client.ask::<Vec<String>>(Call::get(&["vms"])).await.unwrap_err();
    assert!(began.elapsed() < TAKEN_WITHIN * 2);
    assert_eq!(failure.exit_code(), 5);
    assert!(failure.to_string().contains("no API answers at http://127.0.0.1"), "{failure}");
}

#[tokio::test]
async fn what_is_named_stays_one_part_of_the_path() {
    let (client, mut sent) = answering(http("200 OK", "application/json", "[]")).await;
    for (name, path) in [
        ("web1", "/api/v2/vms/web1"),
        ("../nodes", "/api/v2/vms/..%2Fnodes"),
        ("..", "/api/v2/vms/%2E%2E"),
        ("a b?c=d#e\r\nX: y", "/api/v2/vms/a%20b%3Fc%3Dd%23e%0D%0AX%3A%20y"),
    ] {
        client.ask::<Vec<String>>(Call::get(&["vms", name])).await.unwrap();
        let request = sent.recv().await.unwrap();
        assert_eq!(request.split(' ').nth(1), Some(path));
        assert!(request.to_lowercase().contains(&format!("x-api-key: {TOKEN}\r\n")), "{request}");
    }
    for path in
        ["http://elsewhere/api/v2/x", "//elsewhere/api/v2/", "/api/v1/vm", "/api/v2/a b", "/api/v2/\r\n"]
    {
        assert!(Call::follow(path).is_err(), "{path}");
    }
}

mod speaking_tls {
    use pvc_api::{Api, Gate, Limits, Server, Tls};
    use pvc_config::TlsFiles;
    use pvc_operate::testing::Fake;
    use tempfile::TempDir;

    use super::*;
    use crate::door::{endpoint, testing::pair};

    async fn asked(host: &str, trusted: Option<&TlsFiles>) -> Result<(), Failure> {
        let (folder, fake) = (TempDir::new().unwrap(), Fake::with(&["hv1"]).await);
        let files = pair(folder.path(), host);
        let limits = Limits::default();
        let gate = Gate::new(None, true, limits).behind_tls();
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), Some(Tls::load(&files).await.unwrap()))
            .await
            .unwrap();
        let url = format!("https://{}", server.address().unwrap());
        let api = Arc::new(Api::new(fake.cluster, gate, limits));
        tokio::spawn(async move { server.serve(api).await });
        let roots = endpoint::roots(Some(&trusted.unwrap_or(&files).certificate))?;
        let client = Client::new(Endpoint::parse(&url)?, None, Some(tls(roots)?));
        client.send(Call::get(&["status"])).await.map(drop)
    }

    #[tokio::test]
    async fn only_whom_somebody_vouches_for_is_believed() {
        let folder = TempDir::new().unwrap();
        let other = pair(folder.path(), "127.0.0.1");
        asked("127.0.0.1", None).await.unwrap();
        let told = asked("127.0.0.1", Some(&other)).await.unwrap_err();
        assert_eq!(told.exit_code(), 5);
        assert!(told.to_string().contains("invalid peer certificate"), "{told}");
        let told = asked("127.0.0.2", None).await.unwrap_err().to_string();
        assert!(told.contains("invalid peer certificate"), "another host's: {told}");
        std::fs::write(&other.certificate, "rubbish").unwrap();
        let told = asked("127.0.0.1", Some(&other)).await.unwrap_err().with_causes();
        assert!(told.contains("none that can be used"), "{told}");
    }
}
