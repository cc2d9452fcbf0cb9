//! Whether a time server answers at an address of this machine, asked as clients ask (RFC 4330 and 5905).
//!
//! Takes no time from it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use tokio::{net::UdpSocket, time::timeout};

const PORT: u16 = 123;

/// It is on this machine: one that does not answer within this refuses to.
const WITHIN: Duration = Duration::from_millis(100);

const LENGTH: usize = 48;
/// Version 4, a client.
const ASKS: u8 = 0x23;
/// An answer has it where it says when it was asked: what comes from somebody else has not.
const MARK: [u8; 8] = *b"\xe0pvcd\0\x42\x01";

/// Whether guests can take the time from there.
pub(super) async fn is_kept_at(address: Ipv4Addr) -> bool {
    asked(SocketAddrV4::new(address, PORT)).await
}

async fn asked(server: SocketAddrV4) -> bool {
    let exchange = async {
        let socket = UdpSocket::bind((*server.ip(), 0)).await?;
        socket.connect(server).await?;
        let mut packet = [0; LENGTH];
        packet[0] = ASKS;
        packet[40..].copy_from_slice(&MARK);
        socket.send(&packet).await?;
        let mut answer = [0; LENGTH];
        let length = socket.recv(&mut answer).await?;
        io::Result::Ok(length == LENGTH && is_time(&answer))
    };
    matches!(timeout(WITHIN, exchange).await, Ok(Ok(true)))
}

/// An answer of a server that knows the time: its own clock is set, and from a source at most fifteen servers away.
fn is_time(answer: &[u8; LENGTH]) -> bool {
    let [flags, stratum, ..] = *answer;
    let (is_set, is_a_servers) = (flags >> 6 != 3, flags & 7 == 4);
    is_set && is_a_servers && (1..=15).contains(&stratum) && answer[24..32] == MARK
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes the answer another one; how long it is.
    type Answer = fn(&mut [u8; LENGTH]) -> usize;

    /// What is found of a server that answers so.
    async fn found(answer: Answer) -> bool {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let std::net::SocketAddr::V4(address) = server.local_addr().unwrap() else { unreachable!() };
        let serves = async {
            let mut packet = [0; LENGTH];
            let (length, from) = server.recv_from(&mut packet).await.unwrap();
            assert_eq!((length, packet[0]), (LENGTH, ASKS));
            packet.copy_within(40.., 24);
            (packet[0], packet[1]) = (0x24, 3);
            let length = answer(&mut packet);
            server.send_to(&packet[..length], from).await.unwrap();
        };
        tokio::join!(asked(address), serves).0
    }

    #[tokio::test]
    async fn a_server_that_knows_the_time_is_told_from_one_that_does_not() {
        assert!(found(|_| LENGTH).await);
        let bad: [(&str, Answer); 7] = [
            ("its clock is not set", |p| {
                p[0] |= 0xc0;
                LENGTH
            }),
            ("it is a client", |p| {
                p[0] = ASKS;
                LENGTH
            }),
            ("it refuses", |p| {
                p[1] = 0;
                LENGTH
            }),
            ("it has no source", |p| {
                p[1] = 16;
                LENGTH
            }),
            ("it answers somebody else", |p| {
                p[31] ^= 1;
                LENGTH
            }),
            ("it is cut off", |_| LENGTH - 1),
            ("it is nothing", |_| 0),
        ];
        for (what, answer) in bad {
            assert!(!found(answer).await, "{what}");
        }
    }

    #[tokio::test]
    async fn nobody_and_who_says_nothing_are_no_time_servers() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let std::net::SocketAddr::V4(address) = silent.local_addr().unwrap() else { unreachable!() };
        assert!(!asked(address).await);
        drop(silent);
        assert!(!asked(address).await);
        // Not an address of this machine.
        assert!(!is_kept_at(Ipv4Addr::new(192, 0, 2, 1)).await);
    }
}
