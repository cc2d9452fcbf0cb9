//! A WebSocket's client, down to its frames.

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Answer, Served, parse};

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

pub(crate) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

/// A client that speaks as it is told to.
pub(crate) struct Socket {
    pub(crate) stream: Box<dyn Stream>,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Socket {
    /// Or what was answered instead.
    pub(crate) async fn open(served: &Served, path: &str, headers: &str) -> Result<Self, Answer> {
        Self::over(TcpStream::connect(served.address).await.unwrap(), path, headers).await
    }

    pub(crate) async fn over(
        mut stream: impl Stream + 'static,
        path: &str,
        headers: &str,
    ) -> Result<Self, Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: api\r\n{UPGRADE}{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer"));
        }
        let mut answer = parse(&String::from_utf8(head).unwrap());
        if answer.status == 101 {
            return Ok(Self { stream: Box::new(stream) });
        }
        let length = answer.header("content-length").unwrap_or("0").parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        answer.body = String::from_utf8(body).unwrap();
        Err(answer)
    }

    /// A client's frames are masked; nothing says with what.
    pub(crate) async fn send(&mut self, kind: u8, bytes: &[u8]) {
        let mut frame = vec![0x80 | kind];
        match u16::try_from(bytes.len()).unwrap() {
            short @ 0..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
            long => {
                frame.push(0xfe);
                frame.extend(long.to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(bytes);
        self.stream.write_all(&frame).await.unwrap();
    }

    pub(crate) async fn receive(&mut self) -> (u8, Vec<u8>) {
        let kind = self.stream.read_u8().await.expect("a frame");
        let length = match self.stream.read_u8().await.unwrap() {
            126 => usize::from(self.stream.read_u16().await.unwrap()),
            127 => usize::try_from(self.stream.read_u64().await.unwrap()).unwrap(),
            short => usize::from(short),
        };
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await.unwrap();
        (kind & 0x0f, bytes)
    }

    /// The next line that is said.
    pub(crate) async fn said(&mut self) -> String {
        loop {
            let (kind, bytes) = self.receive().await;
            assert_ne!(kind, CLOSE, "it is closed");
            if kind == TEXT {
                return String::from_utf8(bytes).unwrap();
            }
        }
    }

    pub(crate) async fn echoes(&mut self, typed: &str) {
        self.send(BINARY, typed.as_bytes()).await;
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(&typed.to_uppercase()) {
            let (kind, bytes) = self.receive().await;
            assert!([TEXT, BINARY].contains(&kind), "{kind} {bytes:?}");
            if kind == BINARY {
                seen.extend(bytes);
            }
        }
    }

    /// The code that it is closed with.
    pub(crate) async fn closed(&mut self) -> u16 {
        self.closed_for().await.0
    }

    /// The same, and the reason.
    pub(crate) async fn closed_for(&mut self) -> (u16, String) {
        loop {
            let (kind, bytes) = self.receive().await;
            if kind == CLOSE {
                let reason = String::from_utf8(bytes[2..].to_vec()).unwrap();
                return (u16::from_be_bytes([bytes[0], bytes[1]]), reason);
            }
        }
    }
}
