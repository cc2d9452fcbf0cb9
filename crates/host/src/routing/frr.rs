//! The real one: `/etc/frr/frr.conf`, `vtysh`, and FRR's own script that finds out what differs.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    net::Ipv4Addr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use pvc_core::plan::routing::{Bfd, File, MARK, Routing, Speaking};
use serde::Deserialize;

use super::{ASK_WITHIN, RoutingDaemon, RoutingError, TELL_WITHIN};
use crate::run::{Ended, Program};

/// Where its files are.
const FOLDER: &str = "/etc/frr";

/// The script, of the package frr-pythontools.
const RELOAD: &str = "/usr/lib/frr/frr-reload.py";

/// A file that is longer is nobody's but an operator's.
const LONGEST: u64 = 1024 * 1024;

/// The longest reason of a refusal, characters.
const LONGEST_REASON: usize = 200;

/// What a daemon of it reads by itself where there is no file of all.
const SINGLE: [&str; 8] = [
    "zebra.conf",
    "bgpd.conf",
    "staticd.conf",
    "ospfd.conf",
    "ospf6d.conf",
    "isisd.conf",
    "ripd.conf",
    "ripngd.conf",
];

/// What `vtysh.conf` says if the file of all is nobody's.
const NOT_OF_ALL: &str = "no service integrated-vtysh-config";

/// What a file says that configures nothing.
const SAYS_NOTHING: [&str; 7] =
    ["!", "#", "frr version ", "frr defaults ", "hostname ", "log ", "service integrated-vtysh-config"];

/// FRR on this machine.
#[derive(Debug, Clone, Default)]
pub struct Frr {
    /// FRR's name for one of several on a machine; `None`: the machine's own.
    space: Option<String>,
}

impl Frr {
    /// The machine's own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another, which was started under that name (`-N`).
    pub fn named(space: &str) -> Self {
        Self { space: Some(space.to_owned()) }
    }

    fn folder(&self) -> PathBuf {
        let folder = Path::new(FOLDER);
        self.space.as_ref().map_or_else(|| folder.to_owned(), |space| folder.join(space))
    }

    fn path(&self) -> PathBuf {
        self.folder().join("frr.conf")
    }

    /// What a program of it is told: also whose it is.
    fn arguments<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let space = self.space.iter().flat_map(|space| ["-N", space]);
        arguments.iter().copied().chain(space).collect()
    }

    async fn ask(&self, doing: &'static str, question: &str) -> Result<Ended, RoutingError> {
        let run = |cause| RoutingError::Run { doing, cause };
        let vtysh = Program::find("vtysh").map_err(run)?;
        vtysh.run_on(&self.arguments(&["-c", question]), "", ASK_WITHIN).await.map_err(run)
    }
}

#[async_trait]
impl RoutingDaemon for Frr {
    async fn file(&self) -> Result<Option<File>, RoutingError> {
        if Program::find("vtysh").is_err() || !Path::new(RELOAD).is_file() {
            return Ok(None);
        }
        let found =
            read(&self.path()).map_err(|cause| RoutingError::File { doing: "read FRR's file", cause })?;
        Ok(Some(found))
    }

    async fn speaking(&self) -> Result<Speaking, RoutingError> {
        let doing = "ask FRR for its sessions";
        let ended = self.ask(doing, "show bgp summary json").await?;
        if !ended.is_success() {
            return Ok(Speaking::Gone(reason(&ended)));
        }
        summary(&ended.stdout).map_err(|error| RoutingError::Refused { doing, why: error.to_string() })
    }

    async fn bfd(&self) -> Result<Bfd, RoutingError> {
        let doing = "ask FRR for its sessions of BFD";
        let ended = self.ask(doing, "show bfd peers json").await?;
        if !ended.is_success() {
            return Ok(Bfd::Gone(reason(&ended)));
        }
        let peers: Vec<Watched> = serde_json::from_str(&ended.stdout)
            .map_err(|error| RoutingError::Refused { doing, why: error.to_string() })?;
        Ok(Bfd::Watches(peers.into_iter().map(|watched| (watched.peer, watched.status == "up")).collect()))
    }

    async fn load(&self, routing: &Routing) -> Result<(), RoutingError> {
        let (path, text) = (self.path(), routing.to_string());
        // An operator may have written it since somebody has looked.
        if self.file().await? == Some(File::Foreign) {
            return Err(RoutingError::Foreign);
        }
        write(&path, &text).map_err(|cause| RoutingError::File { doing: "write FRR's file", cause })?;
        if let Speaking::Gone(_) = self.speaking().await? {
            return Ok(());
        }
        let doing = "tell FRR what differs";
        let run = |cause| RoutingError::Run { doing, cause };
        let (path, folder) = (path.to_string_lossy(), self.folder());
        // Of a file in another folder than this it would make FRR write over its own.
        let confdir = folder.to_string_lossy();
        // Compared with zebra's, a file that says nothing of forwarding would switch it on in the kernel.
        let script = [RELOAD, "--reload", "--daemon", "bgpd", "--stdout", "--log-level", "error"];
        let script = [&script[..], &["--confdir", &confdir, &path]].concat();
        let python = Program::find("python3").map_err(run)?;
        let ended = python.run(&self.arguments(&script), &[], TELL_WITHIN).await.map_err(run)?;
        if ended.is_success() { Ok(()) } else { Err(RoutingError::Refused { doing, why: reason(&ended) }) }
    }
}

/// The last line that it said, in plain characters.
fn reason(ended: &Ended) -> String {
    let mut lines = ended.stdout.lines().chain(ended.stderr.lines());
    let last = lines.rfind(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
    last.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect()
}

/// What a file holds; `None`: it is none that this program reads.
fn bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut how = fs::OpenOptions::new();
    let file = match how.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        // A link, or a socket.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => return Ok(None),
        file => file?,
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let length = file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    Ok((length as u64 <= LONGEST).then_some(bytes))
}

/// The file of all daemons, with what stands beside it.
fn read(path: &Path) -> io::Result<File> {
    let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match bytes(&path.with_file_name("vtysh.conf")) {
        Ok(Some(text)) if !String::from_utf8_lossy(&text).lines().any(|line| line.trim() == NOT_OF_ALL) => {}
        Ok(_) => return Ok(File::Foreign),
        Err(error) if absent(&error) => {}
        Err(error) => return Err(error),
    }
    let bytes = match bytes(path) {
        Err(error) if absent(&error) => {
            let is_there = |name: &&str| fs::symlink_metadata(path.with_file_name(name)).is_ok();
            return Ok(if SINGLE.iter().any(is_there) { File::Foreign } else { File::Blank });
        }
        bytes => bytes?,
    };
    Ok(match bytes.map(String::from_utf8) {
        Some(Ok(text)) if text.lines().next() == Some(MARK) => File::Ours(text),
        Some(Ok(text)) if says_nothing(&text) => File::Blank,
        _ => File::Foreign,
    })
}

fn says_nothing(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .all(|line| line.is_empty() || SAYS_NOTHING.iter().any(|known| line.starts_with(known)))
}

/// At once, and as the folder's owner, which is the user that FRR becomes.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let new = path.with_extension("conf.pvcd");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let owner = fs::metadata(folder)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(&new)?;
    fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// What is read of its answer of one family.
#[derive(Deserialize)]
struct Summary {
    #[serde(rename = "as")]
    asn: u32,
    #[serde(rename = "routerId")]
    router: Ipv4Addr,
    #[serde(default)]
    peers: BTreeMap<String, Peer>,
}

#[derive(Deserialize)]
struct Peer {
    state: String,
}

/// One that BFD watches.
#[derive(Deserialize)]
struct Watched {
    peer: String,
    status: String,
}

fn summary(answer: &str) -> Result<Speaking, serde_json::Error> {
    // An entry for each family in which it speaks with somebody.
    let mut families: BTreeMap<String, serde_json::Value> = serde_json::from_str(answer)?;
    let mut family = |name| families.remove(name).map(serde_json::from_value::<Summary>).transpose();
    let (nodes, routers, routers6) = (family("l2VpnEvpn")?, family("ipv4Unicast")?, family("ipv6Unicast")?);
    let Some((asn, router)) = [&nodes, &routers, &routers6]
        .into_iter()
        .flatten()
        .next()
        .map(|summary| (summary.asn, summary.router))
    else {
        return Ok(Speaking::Silent);
    };
    let sessions = |summary: Option<Summary>| {
        let peers = summary.into_iter().flat_map(|summary| summary.peers);
        peers.map(|(end, peer)| (end, peer.state == "Established"))
    };
    Ok(Speaking::As {
        asn,
        router,
        neighbours: sessions(nodes).collect(),
        routers: sessions(routers).chain(sessions(routers6)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_configures_nothing_is_told_from_an_operators() {
        for blank in
            ["", "\n# x\n", "log syslog informational\n", "frr defaults traditional\nhostname a\n!\n"]
        {
            assert!(says_nothing(blank), "{blank:?}");
        }
        for theirs in ["router bgp 1\n", "!\n ip route 10.0.0.0/8 10.0.0.1\n", "interface eth0\n"] {
            assert!(!says_nothing(theirs), "{theirs:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frr.conf");
        assert_eq!(read(&path).unwrap(), File::Blank);
        write(&path, &Routing::default().to_string()).unwrap();
        assert_eq!(read(&path).unwrap(), File::Ours(Routing::default().to_string()));
        for theirs in [&b"\xff\xfe"[..], b"router bgp 1\n", &vec![b'!'; 1024 * 1024 + 1]] {
            fs::write(&path, theirs).unwrap();
            assert_eq!(read(&path).unwrap(), File::Foreign);
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert_eq!(read(&path).unwrap(), File::Foreign);
        fs::remove_file(&path).unwrap();
        // Nobody writes into it: to read it would wait for ever.
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(read(&path).unwrap(), File::Foreign);
    }

    #[test]
    fn what_stands_beside_the_file_says_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frr.conf");
        for name in SINGLE {
            fs::write(dir.path().join(name), "").unwrap();
            assert_eq!(read(&path).unwrap(), File::Foreign, "{name}");
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("bgpd.conf"), "router bgp 1\n").unwrap();
        write(&path, "!\n").unwrap();
        assert_eq!(read(&path).unwrap(), File::Blank, "nothing reads that of bgpd");
        let vtysh = dir.path().join("vtysh.conf");
        fs::write(&vtysh, "service integrated-vtysh-config\nusername x nopassword\n").unwrap();
        assert_eq!(read(&path).unwrap(), File::Blank);
        fs::write(&vtysh, "!\n no service integrated-vtysh-config \n").unwrap();
        for text in ["!\n", MARK] {
            write(&path, text).unwrap();
            assert_eq!(read(&path).unwrap(), File::Foreign, "{text}");
        }
    }

    #[test]
    fn answers_are_read_as_far_as_they_are_needed() {
        assert_eq!(summary("{}").unwrap(), Speaking::Silent);
        let nodes = r#"{"routerId":"10.255.1.1","as":65500,"more":{},"peers":{
            "10.255.1.2":{"state":"Established","pfxRcd":0},"eth0":{"state":"Active"}}}"#;
        let site = r#"{"routerId":"10.255.1.1","as":65500,"peers":{"192.0.2.1":{"state":"Established"}}}"#;
        let site6 = r#"{"routerId":"10.255.1.1","as":65500,"peers":{"2001:db8::1":{"state":"Connect"}}}"#;
        let router = "10.255.1.1".parse().unwrap();
        let of = |neighbours: &[(&str, bool)], routers: &[(&str, bool)]| {
            let all =
                |ends: &[(&str, bool)]| ends.iter().map(|(end, there)| ((*end).to_owned(), *there)).collect();
            Speaking::As { asn: 65500, router, neighbours: all(neighbours), routers: all(routers) }
        };
        let both = [("10.255.1.2", true), ("eth0", false)];
        let routers = [("192.0.2.1", true), ("2001:db8::1", false)];
        for (answer, expected) in [
            (format!(r#"{{"l2VpnEvpn":{nodes},"more":7}}"#), of(&both, &[])),
            (format!(r#"{{"ipv4Unicast":{site}}}"#), of(&[], &routers[..1])),
            (format!(r#"{{"ipv6Unicast":{site6}}}"#), of(&[], &routers[1..])),
            (
                format!(r#"{{"ipv4Unicast":{site},"ipv6Unicast":{site6},"l2VpnEvpn":{nodes}}}"#),
                of(&both, &routers),
            ),
        ] {
            assert_eq!(summary(&answer).unwrap(), expected, "{answer}");
        }
        for nonsense in [
            "",
            "[]",
            "% no",
            r#"{"l2VpnEvpn":{"as":"x"}}"#,
            r#"{"ipv4Unicast":{"peers":{"10.255.1.2":{}}}}"#,
        ] {
            assert!(summary(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_reason_is_one_line_of_plain_characters() {
        let ended =
            Ended { code: Some(1), stdout: "a\nb\u{1b}[91m\n\n".into(), stderr: "x".repeat(1000) + "\n" };
        assert_eq!(reason(&ended), "x".repeat(200));
        assert_eq!(reason(&Ended { stderr: String::new(), ..ended }), "b[91m");
    }
}
