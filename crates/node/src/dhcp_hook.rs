//! The program that dnsmasq starts when it begins and whenever a lease changes: passes on to the daemon what it is told. It is this same program under another
//! name, since dnsmasq gives its script no arguments of ours.
//!
//! Never opens the state tree: the daemon's session is the node's only one.

use std::{
    env,
    ffi::OsString,
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::ExitCode,
    time::Duration,
};

/// The name by which this program is the hook.
pub const HOOK: &str = "pvcd-dhcp-hook";

/// What holds the socket's path in its environment.
pub(crate) const SOCKET: &str = "PVC_DHCP_SOCKET";

/// What holds the network's number there.
pub(crate) const NETWORK: &str = "PVC_DHCP_NETWORK";

/// The last line of an answer that is complete.
pub(crate) const DONE: &str = "done";

/// How long an answer may take.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The longest request, in bytes.
pub(crate) const LONGEST: u64 = 2048;

/// The longest answer that is read: 65536 leases with long names.
const LONGEST_ANSWER: u64 = 64 * 1024 * 1024;

/// Whether this program was started as the hook.
pub fn is_asked_for() -> bool {
    let own = env::args_os().next();
    own.is_some_and(|own| Path::new(&own).file_name() == Some(HOOK.as_ref()))
}

/// Does it. For `init` failure is told: dnsmasq ends then, and is started again, instead of giving out addresses that others have.
/// Otherwise it has nothing to tell dnsmasq that would do any good.
pub fn run() -> ExitCode {
    let words: Vec<String> = env::args_os().skip(1).map(word).collect();
    let is_init = words.first().is_some_and(|word| word == "init");
    match ask(&words) {
        Ok(leases) if is_init => match io::stdout().lock().write_all(leases.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{HOOK}: {error}");
            if is_init { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}

fn ask(words: &[String]) -> io::Result<String> {
    let variable = |name| env::var_os(name).map_or_else(|| "*".to_owned(), word);
    let mut request = vec![variable(NETWORK)];
    match words {
        [action, mac, address, rest @ ..] if action == "add" || action == "old" => {
            let name = rest.first().cloned().unwrap_or_else(|| "*".to_owned());
            let expires = variable("DNSMASQ_LEASE_EXPIRES");
            request.extend(
                [action, mac, address, &expires, &name, &variable("DNSMASQ_CLIENT_ID")].map(String::from),
            );
        }
        [action, mac, address, ..] if action == "del" => {
            request.extend([action, mac, address].map(String::from));
        }
        [action] if action == "init" => request.push(action.clone()),
        // DHCPv6, TFTP, relays: nothing of that is recorded.
        _ => return Ok(String::new()),
    }
    let socket = env::var_os(SOCKET).ok_or_else(|| io::Error::other("not started by pvcd"))?;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(format!("{}\n", request.join(" ")).as_bytes())?;
    let mut answer = String::new();
    stream.take(LONGEST_ANSWER).read_to_string(&mut answer)?;
    let leases = answer.strip_suffix(&format!("{DONE}\n"));
    leases.map(str::to_owned).ok_or_else(|| io::Error::other("pvcd has not recorded it"))
}

/// One word of a request: what would be more, or none, is nothing.
fn word(text: OsString) -> String {
    let fine =
        |text: &String| !text.is_empty() && text.len() < 1024 && text.chars().all(|c| c.is_ascii_graphic());
    text.into_string().ok().filter(fine).unwrap_or_else(|| "*".to_owned())
}
