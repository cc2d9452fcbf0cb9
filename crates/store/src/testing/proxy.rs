//! The network between one client and its server, which can be cut and healed.

use std::{net::Ipv4Addr, net::SocketAddr};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What passes through the cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cable {
    Whole,
    /// Nothing passes and nobody is told, as when a switch dies.
    Silent,
    /// Connections are reset and refused, as when the server dies.
    Broken,
}

/// Forwards connections to a server on loopback. Dropping it breaks them.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    cable: watch::Sender<Cable>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `port`.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (cable, watched) = watch::channel(Cable::Whole);
        let task = pvc_process::spawn(serve(listener, port, watched));
        Self { address, cable, task }
    }

    /// `127.0.0.1:<port>`.
    pub fn connect_string(&self) -> String {
        self.address.to_string()
    }

    /// Breaks all connections and accepts no new ones.
    pub fn cut(&self) {
        self.cable.send_replace(Cable::Broken);
    }

    /// Lets nothing through, without a word.
    pub fn silence(&self) {
        self.cable.send_replace(Cable::Silent);
    }

    /// Forwards again. What was held back by [`Self::silence`] is lost with its connections.
    pub fn heal(&self) {
        self.cable.send_replace(Cable::Whole);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, port: u16, cable: watch::Receiver<Cable>) {
    while let Ok((client, _)) = listener.accept().await {
        pvc_process::spawn(forward(client, port, cable.clone()));
    }
}

async fn forward(mut client: TcpStream, port: u16, mut cable: watch::Receiver<Cable>) {
    // An error on either side is the end of the connection, which is what both are told by the drop.
    if *cable.borrow_and_update() == Cable::Whole {
        let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            _ = cable.changed() => {}
        }
        hold(&mut cable).await;
        drop(server);
    } else {
        hold(&mut cable).await;
    }
    drop(client);
}

/// While the cable is silent, connections stay open and nothing passes.
async fn hold(cable: &mut watch::Receiver<Cable>) {
    let _proxy_gone = cable.wait_for(|c| *c != Cable::Silent).await;
}
