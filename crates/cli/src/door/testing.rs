//! A service that is told what to answer, for tests of what an API of another kind may do.

use std::path::Path;

use pvc_config::TlsFiles;
use rcgen::{CertificateParams, KeyPair};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use super::{
    Client,
    endpoint::{Endpoint, Token},
};

pub(crate) const TOKEN: &str = "a-secret-that-stays-here";

/// See the module's documentation.
pub(crate) struct Service(TcpListener);

/// A request, and the way back.
pub(crate) struct Request {
    pub(crate) head: String,
    stream: TcpStream,
}

impl Service {
    pub(crate) async fn begin() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn client(&self) -> Client {
        let url = format!("http://{}", self.0.local_addr().unwrap());
        Client::new(Endpoint::parse(&url).unwrap(), Some(Token::new(TOKEN).unwrap()), None)
    }

    /// The next request.
    pub(crate) async fn asked(&self) -> Request {
        let (mut stream, _) = self.0.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        Request { head: String::from_utf8(head).unwrap(), stream }
    }

    /// The next request, which is for a WebSocket, and that.
    pub(crate) async fn socket(&self) -> (String, WebSocketStream<TcpStream>) {
        let asked = self.asked().await;
        let head = asked.head.clone();
        (head, WebSocketStream::from_raw_socket(asked.upgrade().await, Role::Server, None).await)
    }
}

impl Request {
    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().filter_map(|line| line.split_once(": "));
        values.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn wants_a_socket(&self) -> bool {
        self.header("upgrade").is_some()
    }

    /// Answers so, and closes.
    pub(crate) async fn answer(mut self, status: &str, kind: &str, body: &str) {
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}");
        self.stream.write_all(answer.as_bytes()).await.unwrap();
    }

    /// Becomes a WebSocket, of which the frames are the caller's.
    pub(crate) async fn upgrade(self) -> TcpStream {
        let key = self.header("sec-websocket-key").unwrap();
        let accept = derive_accept_key(key.as_bytes());
        self.upgrade_with(&accept).await
    }

    pub(crate) async fn upgrade_with(mut self, accept: &str) -> TcpStream {
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.stream.write_all(answer.as_bytes()).await.unwrap();
        self.stream
    }
}

/// A certificate for that host, which vouches for itself, and its key.
pub(crate) fn pair(folder: &Path, host: &str) -> TlsFiles {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([host.to_owned()]).unwrap().self_signed(&key).unwrap();
    let files = TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.certificate, certificate.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}
