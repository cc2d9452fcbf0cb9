//! Where a network is filtered, by real frames: what a guest sends from another card's address, or from one that it was not given, reaches nobody.
//!
//! What must not arrive is sent before something that does: what arrives first tells.

use std::{
    net::UdpSocket,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use pvc_core::plan::firewall::{Port, Ruleset};
use pvc_host::firewall::Firewall as _;

use crate::{
    contract::sender,
    frames::{Node, arrived, at, node, send, walls},
    namespace::{Beside, alone},
};

const CARD: &str = "52:54:00:00:00:02";

/// `vnet0` is filtered; the other guest may send anything.
fn filtered() -> Ruleset {
    let mut walls = walls(&[]);
    walls.ports.insert("vnet0".to_owned(), Port::Filtered(sender()));
    walls.ports.insert("vnet1".to_owned(), Port::Open);
    walls.mutes_unknown = true;
    walls
}

async fn world() -> Node {
    let node = node();
    node.guest.ip(&format!("link set eth0 address {CARD}"));
    // What the kernel lost with the change.
    node.guest.ip("address replace fd00:100::2/64 dev eth0 nodad");
    node.firewall.load(&filtered()).await.unwrap();
    node
}

/// How much each rule of the chain has dropped.
async fn dropped(node: &Node) -> Vec<u64> {
    let counts = node.firewall.listing().await.unwrap().unwrap().counts;
    counts["filter"].iter().map(|count| count.packets).collect()
}

/// A frame as it is, from the guest's card.
fn frame(guest: &Beside, bytes: Vec<u8>) {
    guest.run(move || {
        // SAFETY: the calls are given what they say that they take, and the descriptor is this thread's alone.
        #[allow(unsafe_code, reason = "std has no packet sockets")]
        unsafe {
            let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
            assert!(socket >= 0);
            let socket = OwnedFd::from_raw_fd(socket);
            let mut to: libc::sockaddr_ll = std::mem::zeroed();
            to.sll_family = libc::AF_PACKET.cast_unsigned().try_into().unwrap_or(17);
            to.sll_ifindex = libc::if_nametoindex(c"eth0".as_ptr()).cast_signed();
            let sent = libc::sendto(
                socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>().try_into().unwrap(),
            );
            assert_eq!(sent, bytes.len().cast_signed());
        }
    });
}

fn bytes(text: &str) -> Vec<u8> {
    text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// An ARP request for 10.100.0.3, in a frame from `from`, that says of itself `is` at `address`.
fn arp(from: &str, is: &str, address: [u8; 4]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    [&[255; 6][..], &bytes(from), &[8, 6], &head, &bytes(is), &address, &[0; 6], &[10, 100, 0, 3]].concat()
}

/// A request for an address, in a frame from the guest's card, for a client of that hardware address.
fn dhcp(client: &str) -> Vec<u8> {
    let mut packet = [&[1, 1, 6, 0][..], &[7; 4], &[0; 20], &bytes(client)].concat();
    packet.resize(240, 0);
    let length = u16::try_from(packet.len()).unwrap();
    let udp = [&[0, 68, 0, 67][..], &(length + 8).to_be_bytes(), &[0, 0], &packet].concat();
    let mut ip =
        [&[69, 0][..], &(length + 28).to_be_bytes(), &[0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0], &[255; 4]]
            .concat();
    let sum: u32 = ip.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let check = u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    ip[10..12].copy_from_slice(&(!check).to_be_bytes());
    [&[255; 6][..], &bytes(CARD), &[8, 0], &ip, &udp].concat()
}

/// The first fragment of a packet, which ends before what is said in it.
fn beginning(mut frame: Vec<u8>) -> Vec<u8> {
    let (ethernet, headers) = (14, 20 + 8);
    frame.truncate(ethernet + headers);
    frame[ethernet + 2..ethernet + 4].copy_from_slice(&[0, 28]);
    // More fragments follow.
    frame[ethernet + 6..ethernet + 8].copy_from_slice(&[0x20, 0]);
    frame
}

fn says(node: &Node, from: &'static str, to: &UdpSocket, what: &str) {
    let to = to.local_addr().unwrap().to_string();
    send(&at(&node.guest, from), &to, what);
}

#[test]
fn a_filtered_guest_is_heard_from_the_addresses_that_it_was_given_and_from_no_other() {
    alone(async || {
        let node = world().await;
        for address in ["10.100.0.22/32", "10.100.0.77/32", "fd00:99::2/128"] {
            let nodad = if address.contains("::") { " nodad" } else { "" };
            node.guest.ip(&format!("address add {address} dev eth0{nodad}"));
        }
        node.guest.ip("route add default via fd00:100::1");
        let (v4, v6) = (at(&node.other, "10.100.0.3:10"), at(&node.other, "[fd00:100::3]:10"));
        says(&node, "10.100.0.77:0", &v4, "as somebody");
        says(&node, "10.100.0.2:0", &v4, "as itself");
        says(&node, "10.100.0.22:0", &v4, "by its other address");
        assert_eq!((arrived(&v4), arrived(&v4)), ("as itself".into(), "by its other address".into()));
        says(&node, "[fd00:99::2]:0", &v6, "from another network");
        says(&node, "[fd00:100::2]:0", &v6, "from an address of its own choice");
        assert_eq!(arrived(&v6), "from an address of its own choice");
        // From another card, with an address that is right.
        node.guest.ip("link set eth0 address 52:54:00:00:00:99");
        says(&node, "10.100.0.2:0", &v4, "from another card");
        node.guest.ip(&format!("link set eth0 address {CARD}"));
        says(&node, "10.100.0.2:0", &v4, "from its card");
        assert_eq!(arrived(&v4), "from its card");
        let dropped = dropped(&node).await;
        assert!(dropped[0] > 0 && dropped[5] > 0 && dropped[6] > 0, "{dropped:?}");
        // Without the filter all of it passes.
        let mut open = filtered();
        open.ports.insert("vnet0".to_owned(), Port::Guarded);
        node.firewall.change(&filtered(), &open).await.unwrap();
        says(&node, "10.100.0.77:0", &v4, "as somebody");
        assert_eq!(arrived(&v4), "as somebody");
    });
}

#[test]
fn a_filtered_guest_asks_for_an_address_for_its_own_card_alone_and_tells_of_no_others() {
    alone(async || {
        let node = world().await;
        let before = dropped(&node).await;
        frame(&node.guest, arp(CARD, "52:54:00:00:00:99", [10, 100, 0, 2]));
        frame(&node.guest, dhcp("52:54:00:00:00:99"));
        frame(&node.guest, beginning(dhcp("52:54:00:00:00:99")));
        frame(&node.guest, arp(CARD, CARD, [10, 100, 0, 1]));
        // Another protocol than guests need: IPX.
        frame(&node.guest, [&[255; 6][..], &bytes(CARD), &[0x81, 0x37], &[0; 60]].concat());
        let after = dropped(&node).await;
        let more: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        // Its card in ARP, the card that it asks for, whole and in fragments, its address in ARP, and the protocol.
        assert_eq!((more[1], more[2], more[3], more[4], more[7]), (1, 1, 1, 1, 1), "{more:?}");
        // What is as it should be is not dropped: an address is looked for, asked for, found.
        frame(&node.guest, arp(CARD, CARD, [0, 0, 0, 0]));
        frame(&node.guest, arp(CARD, CARD, [10, 100, 0, 22]));
        frame(&node.guest, dhcp(CARD));
        // QEMU tells where a guest is that has moved.
        frame(&node.guest, [&[255; 6][..], &bytes(CARD), &[0x80, 0x35], &[0; 46]].concat());
        assert_eq!(dropped(&node).await, after);
    });
}

#[test]
fn a_guest_whose_port_nobody_knows_yet_sends_nothing_where_a_network_is_filtered() {
    alone(async || {
        let node = world().await;
        let mut unknown = filtered();
        unknown.ports.remove("vnet0");
        let to = at(&node.other, "10.100.0.3:10");
        // It knows the other's card from now on: what it cannot ask for it would send later.
        says(&node, "10.100.0.2:0", &to, "first");
        assert_eq!(arrived(&to), "first");
        node.firewall.change(&filtered(), &unknown).await.unwrap();
        says(&node, "10.100.0.2:0", &to, "too early");
        node.firewall.change(&unknown, &filtered()).await.unwrap();
        says(&node, "10.100.0.2:0", &to, "known");
        assert_eq!(arrived(&to), "known");
    });
}
