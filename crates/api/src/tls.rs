//! TLS: a certificate and its key from files, and again when these are others.

use std::{convert::Infallible, fmt, io, path::Path, sync::Arc, time::Duration};

use pvc_config::TlsFiles;
use sha2::{Digest as _, Sha256};
use tokio::{fs::File, io::AsyncReadExt as _, sync::watch, time::sleep};
use tokio_rustls::rustls::{
    self, ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};
use tracing::{info, warn};
use x509_cert::{Certificate, der::Decode as _};

use crate::{clock::now_unix_s, session::Hash};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A chain of a certificate is some kilobytes.
const MOST_BYTES: u64 = 256 * 1024;

/// It is said so long before a certificate ends, days, and then once a day.
const SAID_BEFORE_DAYS: u64 = 14;

const DAY_S: u64 = 24 * 3600;

/// Why a pair cannot be served. Says nothing of what is in the key's file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not read.
    #[error("{file} cannot be read: {why}")]
    Unreadable {
        /// Which.
        file: String,
        /// Why not.
        why: io::Error,
    },
    /// A file is not what it is said to be.
    #[error("{file}: {why}")]
    Wrong {
        /// Which.
        file: String,
        /// In what respect.
        why: &'static str,
    },
    /// The two do not fit, or cannot be used.
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(rustls::Error),
}

/// What is served; displayed, it says until when that is good.
pub struct Tls {
    files: TlsFiles,
    served: watch::Sender<Served>,
}

#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) config: Arc<ServerConfig>,
    /// When the certificate begins and ends, Unix time.
    from_s: u64,
    until_s: u64,
    /// Of both files.
    hash: Hash,
}

impl Tls {
    /// What these files have. What has ended, or not begun, is served, too: clients decide, and who must can say so.
    pub async fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let served = Pair::read(files).await?.served(files)?;
        Ok(Self { files: files.clone(), served: watch::Sender::new(served) })
    }

    /// What is served now.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.served.borrow().config)
    }

    /// Serves what the files have whenever that is another pair, and says when the end comes near; does not end.
    pub(crate) async fn keep_fresh(&self) -> Infallible {
        let mut refused = None;
        let mut said_on_day = None;
        loop {
            let (now, ends) = (now_unix_s(), self.served.borrow().until_s);
            if ends < now.saturating_add(SAID_BEFORE_DAYS * DAY_S) && said_on_day != Some(now / DAY_S) {
                said_on_day = Some(now / DAY_S);
                warn!("TLS: {}", Validity(&self.served.borrow(), now));
            }
            sleep(LOOK_EVERY).await;
            self.look(&mut refused).await;
        }
    }

    /// A pair that cannot be used changes nothing; it is said once of each.
    async fn look(&self, refused: &mut Option<Hash>) {
        let (hash, outcome) = match Pair::read(&self.files).await {
            Ok(pair) if pair.hash == self.served.borrow().hash => {
                *refused = None;
                return;
            }
            Ok(pair) => (pair.hash, pair.served(&self.files)),
            Err(error) => (Hash::default(), Err(error)),
        };
        match outcome {
            Ok(served) => {
                info!("TLS: another pair is served: {}", Validity(&served, now_unix_s()));
                self.served.send_replace(served);
                *refused = None;
            }
            Err(error) if *refused != Some(hash) => {
                warn!("TLS: the pair is as before, since the files have no other: {error}");
                *refused = Some(hash);
            }
            Err(_) => {}
        }
    }
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Validity(&self.served.borrow(), now_unix_s()).fmt(f)
    }
}

/// What is in both files.
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
    hash: Hash,
}

impl Pair {
    async fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let (certificate, key) = (read(&files.certificate).await?, read(&files.key).await?);
        let mut hash = Sha256::new_with_prefix(Sha256::digest(&certificate));
        hash.update(&key);
        Ok(Self { certificate, key, hash: hash.finalize().into() })
    }

    fn served(&self, files: &TlsFiles) -> Result<Served, TlsError> {
        let wrong = |file: &Path, why| TlsError::Wrong { file: file.display().to_string(), why };
        let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.map_err(|_| wrong(&files.certificate, "is no PEM"))?;
        let first = chain.first().ok_or_else(|| wrong(&files.certificate, "has no certificate"))?;
        let first = Certificate::from_der(first)
            .map_err(|_| wrong(&files.certificate, "has no X.509 certificate"))?;
        let validity = first.tbs_certificate.validity;
        // The error would quote what is in the file.
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| wrong(&files.key, "has no private key in PEM, or one with a passphrase"))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(TlsError::Unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Served {
            config: Arc::new(config),
            from_s: validity.not_before.to_unix_duration().as_secs(),
            until_s: validity.not_after.to_unix_duration().as_secs(),
            hash: self.hash,
        })
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |why| TlsError::Unreadable { file: path.display().to_string(), why };
    let mut bytes = Vec::new();
    let file = File::open(path).await.map_err(unreadable)?;
    if !file.metadata().await.map_err(unreadable)?.is_file() {
        return Err(TlsError::Wrong { file: path.display().to_string(), why: "is no file" });
    }
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).await.map_err(unreadable)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(TlsError::Wrong { file: path.display().to_string(), why: "is too large" });
    }
    Ok(bytes)
}

/// Since when or until when a certificate is good, at a time.
struct Validity<'a>(&'a Served, u64);

impl fmt::Display for Validity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(served, now) = self;
        if *now < served.from_s {
            return write!(f, "the certificate is not valid yet: it begins in {} s", served.from_s - now);
        }
        match served.until_s.checked_sub(*now) {
            None => write!(f, "the certificate has ended: browsers and clients refuse it"),
            Some(left) => write!(f, "the certificate ends in {} days", left / DAY_S),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::generate_simple_self_signed;

    use super::*;

    fn write(files: &TlsFiles) {
        let pair = generate_simple_self_signed(["api".to_owned()]).unwrap();
        fs::write(&files.certificate, pair.cert.pem()).unwrap();
        fs::write(&files.key, pair.signing_key.serialize_pem()).unwrap();
    }

    #[tokio::test]
    async fn files_that_have_no_pair_change_nothing_until_they_have_one() {
        let folder = tempfile::TempDir::new().unwrap();
        let files = TlsFiles { certificate: folder.path().join("cert"), key: folder.path().join("key") };
        write(&files);
        let tls = Tls::load(&files).await.unwrap();
        let first = tls.config();
        let half = fs::read(&files.key).unwrap();
        write(&files);
        let whole = fs::read(&files.key).unwrap();
        let mut refused = None;
        for (key, is_new) in [(half.as_slice(), false), (b"no key", false), (&whole, true)] {
            fs::write(&files.key, key).unwrap();
            tls.look(&mut refused).await;
            assert_eq!(!Arc::ptr_eq(&tls.config(), &first), is_new);
            assert_eq!(refused.is_none(), is_new, "it is said");
        }
        fs::remove_file(&files.certificate).unwrap();
        tls.look(&mut refused).await;
        assert!(!Arc::ptr_eq(&tls.config(), &first));
    }
}
