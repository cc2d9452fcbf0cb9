//! Certificates and their keys, as files, for a person who asks what is wrong with them. Shows none to anybody, and tells nothing of what is in a key's file.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use tokio_rustls::rustls::{
    Error, InconsistentKeys,
    crypto::ring::sign::any_supported_type,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    sign::CertifiedKey,
};
use x509_cert::{Certificate, der::Decode as _};

/// A chain of certificates is some kilobytes.
const MOST_BYTES: u64 = 256 * 1024;

/// What somebody shows to others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The certificate, with its chain, in PEM.
    pub certificate: PathBuf,
    /// Its key; `None`: it is one that others' certificates are judged by.
    pub key: Option<PathBuf>,
}

/// Since and until when a certificate is good, Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the two ends")]
pub struct Validity {
    pub from_s: u64,
    pub until_s: u64,
}

/// Why nobody can show it, whenever that is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A file is not read.
    #[error("{file} cannot be read: {why}")]
    Unreadable {
        /// Which.
        file: String,
        /// Why not.
        why: String,
    },
    /// A file is not what it is taken for.
    #[error("{file} {why}")]
    Wrong {
        /// Which.
        file: String,
        /// In what respect.
        why: &'static str,
    },
    /// It may be good; this program's TLS does not know its kind.
    #[error("{key} is of a kind that this program's TLS does not know")]
    Unknown {
        /// The key's file.
        key: String,
    },
    /// The two are of different pairs.
    #[error("{key} is not the key of {certificate}")]
    Mismatch {
        /// The certificate's file.
        certificate: String,
        /// The key's.
        key: String,
    },
}

impl Pair {
    /// Until when it is good, if its files are. Blocks.
    pub fn look(&self) -> Result<Validity, CertificateError> {
        let wrong = |file: &Path, why| CertificateError::Wrong { file: file.display().to_string(), why };
        let chain: Result<Vec<_>, pem::Error> =
            CertificateDer::pem_slice_iter(&read(&self.certificate)?).collect();
        let chain = chain.map_err(|_| wrong(&self.certificate, "is no PEM"))?;
        let all: Result<Vec<Validity>, CertificateError> = chain
            .iter()
            .map(|one| {
                let one = Certificate::from_der(one)
                    .map_err(|_| wrong(&self.certificate, "has no X.509 certificate"))?;
                let its = one.tbs_certificate.validity;
                Ok(Validity {
                    from_s: its.not_before.to_unix_duration().as_secs(),
                    until_s: its.not_after.to_unix_duration().as_secs(),
                })
            })
            .collect();
        // A chain is good while all of it is; of authorities beside one another, one is enough.
        let both = |one: Validity, other: Validity| match self.key {
            Some(_) => {
                Validity { from_s: one.from_s.max(other.from_s), until_s: one.until_s.min(other.until_s) }
            }
            None => {
                Validity { from_s: one.from_s.min(other.from_s), until_s: one.until_s.max(other.until_s) }
            }
        };
        let validity =
            all?.into_iter().reduce(both).ok_or_else(|| wrong(&self.certificate, "has no certificate"))?;
        if let Some(file) = &self.key {
            // The error would quote what is in the file.
            let key = PrivateKeyDer::from_pem_slice(&read(file)?)
                .map_err(|_| wrong(file, "has no private key in PEM, or one with a passphrase"))?;
            let unknown = || CertificateError::Unknown { key: file.display().to_string() };
            let key = any_supported_type(&key).map_err(|_| unknown())?;
            CertifiedKey::new(chain, key).keys_match().map_err(|error| match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => CertificateError::Mismatch {
                    certificate: self.certificate.display().to_string(),
                    key: file.display().to_string(),
                },
                _ => unknown(),
            })?;
        }
        Ok(validity)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let file = || path.display().to_string();
    let unreadable = |why: io::Error| CertificateError::Unreadable { file: file(), why: why.to_string() };
    let wrong = |why| CertificateError::Wrong { file: file(), why };
    // What is no file, a pipe for example, might keep whoever opens it.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err(wrong("is no file"));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(unreadable)?.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(wrong("is too large"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm, date_time_ymd,
    };

    use super::*;

    /// 2026-01-02 and 2026-03-04.
    const TIMES: Validity = Validity { from_s: 1_767_312_000, until_s: 1_772_582_400 };

    fn make(folder: &Path, name: &str, kind: &'static SignatureAlgorithm) -> Pair {
        let mut params = CertificateParams::new(["api".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 2), date_time_ymd(2026, 3, 4));
        let key = KeyPair::generate_for(kind).unwrap();
        let pair = Pair {
            certificate: folder.join(format!("{name}.crt")),
            key: Some(folder.join(format!("{name}.key"))),
        };
        fs::write(&pair.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(pair.key.as_ref().unwrap(), key.serialize_pem()).unwrap();
        pair
    }

    #[test]
    fn a_pair_tells_until_when_it_is_good() {
        let folder = tempfile::tempdir().unwrap();
        for kind in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let pair = make(folder.path(), "one", kind);
            assert_eq!(pair.look(), Ok(TIMES));
            assert_eq!(Pair { key: None, ..pair }.look(), Ok(TIMES));
        }
    }

    #[test]
    fn a_chain_is_good_while_all_of_it_is_and_of_authorities_one_is_enough() {
        let folder = tempfile::tempdir().unwrap();
        let pair = make(folder.path(), "one", &PKCS_ED25519);
        let mut params = CertificateParams::new(["other".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2026, 2, 1), date_time_ymd(2026, 2, 2));
        let other = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let both = fs::read_to_string(&pair.certificate).unwrap() + &other;
        fs::write(&pair.certificate, both).unwrap();
        assert_eq!(pair.look(), Ok(Validity { from_s: 1_769_904_000, until_s: 1_769_990_400 }));
        assert_eq!(Pair { key: None, ..pair }.look(), Ok(TIMES));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_file_and_not_by_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) =
            (make(folder.path(), "one", &PKCS_ED25519), make(folder.path(), "other", &PKCS_ED25519));
        let file = |name: &str, content: &str| {
            fs::write(folder.path().join(name), content).unwrap();
            folder.path().join(name)
        };
        let secret = "-----BEGIN PRIVATE KEY-----\nsecret*\n-----END PRIVATE KEY-----\n";
        let large = "x".repeat(300 * 1024);
        let with_key = |key| Pair { key: Some(key), ..one.clone() };
        for (pair, words) in [
            (with_key(other.key.clone().unwrap()), "other.key is not the key of "),
            (with_key(folder.path().join("none")), "none cannot be read: No such file"),
            (with_key(folder.path().to_owned()), "is no file"),
            (with_key(file("spoilt.key", secret)), "spoilt.key has no private key in PEM"),
            (
                with_key(file("strange.key", &secret.replace('*', ""))),
                "strange.key is of a kind that this program's TLS does not know",
            ),
            (with_key(file("large.key", &large)), "large.key is too large"),
            (Pair { certificate: one.key.clone().unwrap(), key: None }, "one.key has no certificate"),
            (Pair { certificate: file("empty.crt", ""), key: None }, "empty.crt has no certificate"),
        ] {
            let said = pair.look().unwrap_err().to_string();
            assert!(said.contains(words) && !said.contains("secret"), "{said}");
        }
    }
}
