//! The certificates that this node shows: the API's, and libvirt's where migrations use them. A machine that is moved elsewhere, and QEMU's
//! streams, which are never encrypted, have none.

use pvc_config::{Config, TlsFiles};
use pvc_core::command::checkup::Checkup;
use pvc_host::certificate::{CertificateError, Pair};

use super::Parts;

const DAY_S: u64 = 24 * 3600;
/// Who ends sooner is told of: time enough to have another one made.
const SOON_DAYS: u64 = 30;

/// What a certificate is for, and what is to be done about one that is not good.
struct Use<'a> {
    what: &'a str,
    /// What does not work without.
    loss: &'a str,
    todo: &'a str,
    /// Whether this program is what shows it. Another's TLS may know more kinds of keys.
    is_ours: bool,
}

pub(super) async fn look(config: &Config, parts: &Parts) -> Checkup {
    let mut found = Checkup::new(config.node.clone());
    match &parts.api_tls {
        None => {}
        Some(Ok(TlsFiles { certificate, key })) => {
            let of = Use {
                what: "the API's certificate",
                loss: "clients refuse the API",
                todo: "put a new pair into cert_file and key_file of pvc-api.yaml, then pvc-api --check-config",
                is_ours: true,
            };
            let pair = Pair { certificate: certificate.clone(), key: Some(key.clone()) };
            one(parts, &of, &pair, &mut found).await;
        }
        Some(Err(why)) => {
            found.wrong(format!("the API cannot be served from here: {why}"), "pvc-api --check-config");
        }
    }
    if config.functions.hypervisor {
        let of = Use {
            what: "libvirt's certificate",
            loss: "VMs are not migrated from or to this node",
            todo: "put another one there that the cluster's authority has signed, with its key, then systemctl restart libvirtd",
            is_ours: false,
        };
        for pair in parts.surroundings.migration_certificates() {
            one(parts, &of, &pair, &mut found).await;
        }
    }
    found
}

async fn one(parts: &Parts, of: &Use<'_>, pair: &Pair, found: &mut Checkup) {
    let Use { what, loss, todo, is_ours } = of;
    let file = pair.certificate.display();
    let good = match parts.surroundings.certificate(pair).await {
        Ok(good) => good,
        Err(CertificateError::Unknown { .. }) if !is_ours => return,
        // It names the file.
        Err(error) => {
            found.wrong(format!("{what} cannot be used, so {loss}: {error}"), *todo);
            return;
        }
    };
    let now = parts.machine.unix_s();
    let (begins_in, left) = (good.from_s.saturating_sub(now), good.until_s.saturating_sub(now));
    if begins_in > 0 {
        found.wrong(format!("{what} {file} begins in {begins_in} s: until then {loss}"), "timedatectl");
    } else if left == 0 {
        let ago = (now - good.until_s) / DAY_S;
        found.wrong(format!("{what} {file} has ended {ago} days ago: {loss}"), *todo);
    } else if left <= SOON_DAYS * DAY_S {
        found.notice(format!("{what} {file} ends in {} days: then {loss}", left / DAY_S), *todo);
    } else {
        found.fine(format!("{what} {file}"));
    }
}
