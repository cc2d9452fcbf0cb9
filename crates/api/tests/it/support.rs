//! A server in the test's process, and a client that sends exactly what it is told to.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use pvc_api::{Api, Gate, Limits, Server, Tls};
use pvc_config::{ApiToken, Authentication, Role, Secret, Token};
use pvc_operate::{Cluster, testing::Fake};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Of whoever may only have what there is run, and only look.
pub(crate) const OPERATOR: &str = "operator89abcdef0123456789abcdef";
pub(crate) const READER: &str = "reader6789abcdef0123456789abcdef";

/// Signs sessions.
pub(crate) const KEY: &str = "of the test";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A cookie that the service would have made, of a session that ends then.
pub(crate) fn session_until(end: SystemTime) -> String {
    let end = end.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let says = format!("{end}.{}", hex(&Sha256::digest(TOKEN)));
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(says.as_bytes());
    format!("pvc_session={says}.{}", hex(&mac.finalize().into_bytes()))
}

/// A server that is being asked; it ends with this.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    /// What it serves.
    pub(crate) api: Arc<Api>,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What was answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &'_ str| line.to_lowercase().starts_with(&format!("{name}:"));
        self.head.lines().find(|l| line(l)).and_then(|l| l.split_once(": ")).map(|(_, value)| value)
    }
}

pub(crate) fn authentication() -> Authentication {
    let token = |description: &str, role, token: &str| ApiToken {
        description: description.into(),
        role,
        token: Token::Plain(Secret::new(token)),
    };
    let tokens = vec![
        token("tests", Role::Admin, TOKEN),
        token("operator", Role::Operate, OPERATOR),
        token("reader", Role::Read, READER),
    ];
    Authentication { secret_key: None, tokens }
}

impl Served {
    pub(crate) async fn of(cluster: Cluster, authentication: Option<Authentication>, limits: Limits) -> Self {
        let gate = Gate::new(authentication.as_ref(), false, limits);
        Self::speaking(None, Api::new(cluster, gate, limits)).await
    }

    /// With TLS or without.
    pub(crate) async fn speaking(tls: Option<Tls>, api: Api) -> Self {
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), tls).await.unwrap();
        let address = server.address().unwrap();
        Self::serve(server, address, Arc::new(api))
    }

    fn serve(server: Server, address: SocketAddr, api: Arc<Api>) -> Self {
        let serves = Arc::clone(&api);
        let task = tokio::spawn(async move {
            server.serve(serves).await;
        });
        Self { address, api, task }
    }

    /// With authentication, and what it serves.
    pub(crate) async fn with_its_api(cluster: Cluster) -> (Self, Arc<Api>) {
        let limits = Limits::default();
        let api = Arc::new(Api::new(cluster, Gate::new(Some(&authentication()), false, limits), limits));
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let address = server.address().unwrap();
        (Self::serve(server, address, Arc::clone(&api)), api)
    }

    /// With authentication, over a cluster in memory.
    pub(crate) async fn guarded(fake: &Fake) -> Self {
        Self::of(again(fake), Some(authentication()), Limits::default()).await
    }

    /// Sends bytes and reads to the end.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // A server that refuses a body may reset the connection after its answer.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Sends a request with these header lines and reads the answer.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        parse(&self.raw(request.as_bytes()).await)
    }

    /// The same with the token, and a form.
    pub(crate) async fn ask(&self, method: &str, path: &str, form: &str) -> Answer {
        let headers = format!("X-Api-Key: {TOKEN}\r\nContent-Type: application/x-www-form-urlencoded\r\n");
        self.send(method, path, &headers, form).await
    }
}

/// The same cluster, for a server to own.
pub(crate) fn again(fake: &Fake) -> Cluster {
    Cluster::new(fake.cluster.store.clone(), fake.cluster.place.clone())
}

pub(crate) fn parse(answer: &str) -> Answer {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// A form's value.
pub(crate) fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

pub(crate) fn definition(name: &str, number: u8) -> String {
    format!(
        "<domain type='kvm'><name>{name}</name><uuid>{}</uuid><description>a test</description><memory unit='MiB'>64</memory>\
         <vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os><devices><interface type='bridge'>\
         <mac address='52:54:00:00:00:01'/><source bridge='vmbr100'/><model type='virtio'/></interface></devices></domain>",
        pvc_operate::testing::id(number)
    )
}
