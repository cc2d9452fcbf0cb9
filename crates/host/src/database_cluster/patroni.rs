//! The real one: Patroni's REST API. What it says is bounded, and believed as far as it can be typed.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::{
    plan::database_leader::{Member, Servers},
    text::one_line,
};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{ASK_WITHIN, DatabaseCluster, DatabaseClusterError, MOVE_WITHIN};

/// Where it listens unless it is told otherwise.
pub const PORT: u16 = 8008;

/// A longer answer is none of it.
const LONGEST: u64 = 64 * 1024;

/// The longest reason that is passed on, characters.
const LONGEST_REASON: usize = 200;

/// More servers are no cluster of coordinators.
const MOST_MEMBERS: usize = 64;

/// The words for a server that works.
const WORKS: [&str; 2] = ["running", "streaming"];

/// Patroni on this node.
#[derive(Debug, Clone)]
pub struct Patroni {
    /// Where it may listen: Debian's listens at the node's address, others at all addresses.
    at: Vec<SocketAddr>,
}

impl Patroni {
    /// At one of these addresses, the first at which somebody answers as Patroni does.
    pub fn at(own: &[IpAddr], port: u16) -> Self {
        Self { at: own.iter().map(|own| SocketAddr::new(*own, port)).collect() }
    }

    /// Who knows the database's servers. What else listens at an address of this node is passed over.
    async fn found(&self) -> Result<(SocketAddr, Servers), DatabaseClusterError> {
        let request =
            Request { doing: "tell its members", within: ASK_WITHIN, line: "GET /cluster", body: "" };
        let mut first = None;
        for at in &self.at {
            match request.ask(*at).await.and_then(|answer| answer.servers(*at, request.doing)) {
                Ok(servers) => return Ok((*at, servers)),
                Err(DatabaseClusterError::Absent(_)) => {}
                // Another address of one that hangs hangs, too.
                Err(error @ DatabaseClusterError::Late { .. }) => return Err(first.unwrap_or(error)),
                Err(error) => first = first.or(Some(error)),
            }
        }
        let all = || self.at.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
        Err(first.unwrap_or_else(|| DatabaseClusterError::Absent(all())))
    }
}

#[async_trait]
impl DatabaseCluster for Patroni {
    async fn servers(&self) -> Result<Servers, DatabaseClusterError> {
        self.found().await.map(|(_, servers)| servers)
    }

    async fn lead(&self, leader: &str, candidate: &str) -> Result<(), DatabaseClusterError> {
        let doing = "change the leader";
        // Only one that has shown that it is Patroni is told to do something.
        let (at, _) = self.found().await?;
        let body = serde_json::json!({ "leader": leader, "candidate": candidate }).to_string();
        let request = Request { doing, within: MOVE_WITHIN, line: "POST /switchover", body: &body };
        let answer = request.ask(at).await?;
        match answer.code {
            200 => Ok(()),
            // It has looked at the request, and does nothing.
            400..=499 => Err(answer.refusal(at, doing)),
            // 202: it was booked, which is what is asked of it only with a time.
            code => {
                let cause = io::Error::other(format!("{code} {}", reason(&answer.body)));
                Err(DatabaseClusterError::Failed { at: at.to_string(), doing, cause })
            }
        }
    }
}

struct Request<'a> {
    doing: &'static str,
    within: Duration,
    line: &'static str,
    body: &'a str,
}

/// What came back.
struct Answer {
    code: u16,
    body: String,
}

impl Request<'_> {
    /// Sends it, and reads its answer.
    async fn ask(&self, at: SocketAddr) -> Result<Answer, DatabaseClusterError> {
        let (name, doing, within) = (at.to_string(), self.doing, self.within);
        match timeout(within, self.send(at)).await {
            Ok(Ok(answer)) => answer.map_err(|why| DatabaseClusterError::Rubbish { at: name, why }),
            // Nobody listens there.
            Ok(Err(cause))
                if matches!(cause.kind(), ErrorKind::ConnectionRefused | ErrorKind::AddrNotAvailable) =>
            {
                Err(DatabaseClusterError::Absent(name))
            }
            Ok(Err(cause)) => Err(DatabaseClusterError::Failed { at: name, doing, cause }),
            Err(_) => Err(DatabaseClusterError::Late { at: name, doing, within }),
        }
    }

    /// As HTTP/1.0, whose answers end with the connection.
    async fn send(&self, at: SocketAddr) -> io::Result<Result<Answer, String>> {
        let mut stream = TcpStream::connect(at).await?;
        let Self { line, body, .. } = self;
        let length = body.len();
        let head = format!(
            "{line} HTTP/1.0\r\nHost: {at}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.take(LONGEST + 1).read_to_end(&mut bytes).await?;
        Ok(answer(&bytes))
    }
}

/// An answer of HTTP, or what is wrong with it.
fn answer(bytes: &[u8]) -> Result<Answer, String> {
    if bytes.len() as u64 > LONGEST {
        return Err(format!("its answer is longer than {LONGEST} bytes"));
    }
    let text = str::from_utf8(bytes).map_err(|_| "its answer is no text")?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("its answer is not HTTP's, or is cut off")?;
    let mut lines = head.split("\r\n");
    let mut status = lines.next().unwrap_or_default().split(' ');
    let is_http = status.next().is_some_and(|version| version.starts_with("HTTP/1."));
    let code = status.next().and_then(|code| code.parse().ok()).filter(|_| is_http);
    let code = code.ok_or("its answer is not HTTP's")?;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match name.to_ascii_lowercase().as_str() {
            "transfer-encoding" => return Err("its answer is in pieces".to_owned()),
            "content-length" if value.trim().parse() != Ok(body.len()) => {
                return Err("its answer is cut off".to_owned());
            }
            _ => {}
        }
    }
    Ok(Answer { code, body: body.to_owned() })
}

impl Answer {
    fn servers(&self, at: SocketAddr, doing: &'static str) -> Result<Servers, DatabaseClusterError> {
        if self.code != 200 {
            return Err(self.refusal(at, doing));
        }
        let rubbish = |why: String| DatabaseClusterError::Rubbish { at: at.to_string(), why };
        let said: Cluster =
            serde_json::from_str(&self.body).map_err(|error| rubbish(reason(&error.to_string())))?;
        if said.members.len() > MOST_MEMBERS {
            return Err(rubbish(format!("it names {} members", said.members.len())));
        }
        Ok(Servers { is_paused: said.pause, members: said.members.into_iter().map(Said::member).collect() })
    }

    fn refusal(&self, at: SocketAddr, doing: &'static str) -> DatabaseClusterError {
        let why = match self.code {
            401 | 403 => {
                format!("{}: it wants a password (restapi.authentication), and is given none", self.code)
            }
            code => format!("{code} {}", reason(&self.body)),
        };
        DatabaseClusterError::Refused { at: at.to_string(), doing, why }
    }
}

fn reason(text: &str) -> String {
    one_line(&text.trim().chars().take(LONGEST_REASON).collect::<String>())
}

#[derive(Deserialize)]
struct Cluster {
    members: Vec<Said>,
    /// It is there while it is paused.
    #[serde(default)]
    pause: bool,
}

#[derive(Deserialize)]
struct Said {
    name: String,
    role: String,
    state: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    port: Option<u16>,
}

impl Said {
    fn member(self) -> Member {
        // Earlier versions say master.
        let leads = matches!(self.role.as_str(), "leader" | "master" | "primary");
        let works = WORKS.contains(&self.state.as_str());
        let (host, state) = (self.host.parse().ok(), reason(&self.state));
        Member { name: self.name, host, port: self.port, leads, works, state }
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error as _, net::Ipv4Addr};

    use tokio::net::TcpListener;

    use super::*;

    const CLUSTER: &str = r#"{"members": [
        {"name": "hv1", "role": "replica", "state": "running", "api_url": "http://10.0.0.1:8008/patroni", "host": "10.0.0.1", "port": 5432, "timeline": 3, "lag": 0},
        {"name": "hv2", "role": "leader", "state": "running", "host": "10.0.0.2", "port": 5432, "timeline": 3}], "scope": "pvcdns"}"#;

    fn http(code: u16, body: &str) -> Vec<u8> {
        format!("HTTP/1.0 {code} x\r\nServer: x\r\nContent-Type: y\r\n\r\n{body}").into_bytes()
    }

    /// One that says these to who asks, one after the other, and what it was asked last. It hangs after that if it is to.
    fn serve(listener: TcpListener, says: Vec<Vec<u8>>, hangs: bool) -> tokio::task::JoinHandle<String> {
        tokio::spawn(async move {
            let mut asked = Vec::new();
            for says in says {
                let (mut stream, _) = listener.accept().await.unwrap();
                asked.clear();
                let mut buffer = [0; 4096];
                while !ended(&asked) {
                    let count = stream.read(&mut buffer).await.unwrap();
                    asked.extend(&buffer[..count]);
                }
                // Who has had enough closes the connection.
                let _ = stream.write_all(&says).await;
                if hangs {
                    std::future::pending::<()>().await;
                }
            }
            String::from_utf8(asked).unwrap()
        })
    }

    async fn servers(says: Vec<Vec<u8>>, hangs: bool) -> (Patroni, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Nobody listens at the first.
        let patroni = Patroni::at(&["127.0.0.9", "127.0.0.1"].map(|own| own.parse().unwrap()), port);
        (patroni, serve(listener, says, hangs))
    }

    async fn server(says: Vec<u8>, hangs: bool) -> (Patroni, tokio::task::JoinHandle<String>) {
        servers(vec![says], hangs).await
    }

    /// One that tells its members, and then says this.
    async fn told(says: Vec<u8>) -> (Patroni, tokio::task::JoinHandle<String>) {
        servers(vec![http(200, CLUSTER), says], false).await
    }

    fn ended(asked: &[u8]) -> bool {
        let text = String::from_utf8_lossy(asked);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        body.len() == length.parse::<usize>().unwrap()
    }

    #[tokio::test]
    async fn members_are_told_and_a_leader_is_asked_for_by_name() {
        let (patroni, asked) = server(http(200, CLUSTER), false).await;
        let Servers { is_paused, members } = patroni.servers().await.unwrap();
        assert!(!is_paused);
        let seen: Vec<_> =
            members.iter().map(|m| (m.name.as_str(), m.leads, m.works, m.host, m.port)).collect();
        let at = |last| Some(IpAddr::from([10, 0, 0, last]));
        assert_eq!(seen, [("hv1", false, true, at(1), Some(5432)), ("hv2", true, true, at(2), Some(5432))]);
        assert!(asked.await.unwrap().starts_with("GET /cluster HTTP/1.0\r\n"));
        let (patroni, asked) = told(http(200, "Successfully switched over to \"hv1\"")).await;
        patroni.lead("hv\"2", "hv1").await.unwrap();
        let asked = asked.await.unwrap();
        let (head, body) = asked.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /switchover HTTP/1.0\r\n"), "{asked}");
        assert_eq!(body, r#"{"candidate":"hv1","leader":"hv\"2"}"#);
    }

    #[tokio::test]
    async fn what_is_refused_or_rubbish_is_said_and_bounded() {
        let long = format!("{CLUSTER}{}", " ".repeat(usize::try_from(LONGEST).unwrap()));
        let cut = format!("HTTP/1.0 200 OK\r\nContent-Length: 9999\r\n\r\n{CLUSTER}").into_bytes();
        let pieces = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec();
        let many = format!(
            "{{\"members\": [{}]}}",
            vec![r#"{"name": "a", "role": "replica", "state": "running"}"#; MOST_MEMBERS + 1].join(",")
        );
        for (says, expected) in [
            (http(503, "no\u{1b}[2J\nleader"), "refused to tell its members: 503 no·[2J·leader"),
            (http(401, ""), "it wants a password (restapi.authentication), and is given none"),
            (http(200, "<html>"), "expected value at line 1"),
            (http(200, r#"{"members": 7}"#), "invalid type"),
            (http(200, &many), "it names 65 members"),
            (http(200, &long), "longer than 65536 bytes"),
            (cut, "its answer is cut off"),
            (pieces, "its answer is in pieces"),
            (b"SSH-2.0-OpenSSH\r\n".to_vec(), "not HTTP's"),
            (b"SSH-2.0-OpenSSH 7\r\n\r\n".to_vec(), "not HTTP's"),
            (b"\xff\xfe\r\n\r\n".to_vec(), "no text"),
            (vec![], "cut off"),
        ] {
            let (patroni, _asked) = server(says, false).await;
            let error = patroni.servers().await.unwrap_err().to_string();
            assert!(error.contains(expected) && error.len() < 400, "{expected}: {error}");
        }
        let (patroni, _asked) = told(http(412, &"x".repeat(10_000))).await;
        let error = patroni.lead("a", "b").await.unwrap_err().to_string();
        assert!(error.contains("refused to change the leader: 412 xxx") && error.len() < 400, "{error}");
        let (patroni, _asked) = told(http(503, "Switchover failed")).await;
        let error = patroni.lead("a", "b").await.unwrap_err();
        assert!(matches!(error, DatabaseClusterError::Failed { .. }), "it may have been done: {error}");
    }

    #[tokio::test]
    async fn a_cluster_that_is_paused_says_so_and_an_old_one_no_port() {
        let paused = r#"{"members": [{"name": "a", "role": "replica", "state": "running"}], "pause": true}"#;
        let (patroni, _asked) = server(http(200, paused), false).await;
        let Servers { is_paused, members } = patroni.servers().await.unwrap();
        assert!(is_paused && members[0].port.is_none());
    }

    #[tokio::test]
    async fn what_is_not_patroni_at_one_address_is_passed_over_and_told_to_do_nothing() {
        for other in [http(200, "<html>"), http(404, ""), b"SSH-2.0-OpenSSH\r\n".to_vec()] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let first = TcpListener::bind(("127.0.0.8", port)).await.unwrap();
            let first = serve(first, vec![other.clone(); 2], false);
            let asked = serve(listener, vec![http(200, CLUSTER), http(200, CLUSTER), http(200, "")], false);
            let patroni = Patroni::at(&["127.0.0.8", "127.0.0.1"].map(|own| own.parse().unwrap()), port);
            assert_eq!(patroni.servers().await.unwrap().members.len(), 2);
            patroni.lead("hv2", "hv1").await.unwrap();
            assert!(asked.await.unwrap().starts_with("POST /switchover "));
            assert!(first.await.unwrap().starts_with("GET /cluster "));
        }
    }

    #[tokio::test]
    async fn one_that_is_slow_or_not_there_costs_no_more_than_its_deadline() {
        let (patroni, _asked) = server(b"HTTP/1.0 200 OK\r\n".to_vec(), true).await;
        let began = std::time::Instant::now();
        let error = patroni.servers().await.unwrap_err();
        assert!(matches!(error, DatabaseClusterError::Late { .. }), "{error}");
        assert!(began.elapsed() < ASK_WITHIN * 2, "{:?}", began.elapsed());
        let nobody = Patroni::at(&["127.0.0.9".parse().unwrap()], 9);
        let error = nobody.servers().await.unwrap_err();
        assert!(matches!(error, DatabaseClusterError::Absent(_)) && error.source().is_none(), "{error}");
        assert_eq!(error.to_string(), "Patroni does not run here: nobody listens at 127.0.0.9:9");
    }
}
