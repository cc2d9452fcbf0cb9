//! TLS, asked by curl.

use std::{path::Path, time::Duration};

use pvc_api::{Api, Gate, Limits, Tls};
use pvc_config::TlsFiles;
use pvc_operate::testing::Fake;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, net::TcpStream, process::Command};

use crate::support::{Served, TOKEN, again, authentication};

/// Writes a pair for 127.0.0.1 that is good until that year, and its certificate under another name for who shall trust it.
pub(crate) fn pair(folder: &Path, until: i32, trusted_as: &str) -> TlsFiles {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let certificate = params.self_signed(&key).unwrap().pem();
    let files = TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.certificate, &certificate).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    std::fs::write(folder.join(trusted_as), certificate).unwrap();
    files
}

async fn served(files: &TlsFiles, limits: Limits) -> Served {
    let fake = Fake::with(&["hv1"]).await;
    let gate = Gate::new(Some(&authentication()), false, limits).behind_tls();
    Served::speaking(Some(Tls::load(files).await.unwrap()), Api::new(again(&fake), gate, limits)).await
}

/// What curl gets, or its exit code.
#[allow(clippy::disallowed_methods, reason = "a client that is not ours")]
async fn curl(served: &Served, trust: &Path, more: &[&str], path: &str) -> Result<String, i32> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--max-time", "20", "--include", "--cacert"]).arg(trust).args(more);
    let output = curl.arg(format!("https://{}{path}", served.address)).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    if output.status.success() { Ok(text) } else { Err(output.status.code().unwrap()) }
}

#[tokio::test]
async fn who_trusts_the_certificate_is_served_and_another_pair_is_served_without_a_restart() {
    let folder = TempDir::new().unwrap();
    let files = pair(folder.path(), 2200, "old.pem");
    let (old, new) = (folder.path().join("old.pem"), folder.path().join("new.pem"));
    let served = served(&files, Limits::default()).await;
    let key = format!("X-Api-Key: {TOKEN}");
    for version in [["--tls-max", "1.2"], ["--tlsv1.3", "--include"]] {
        let more = [version.as_slice(), &["--header", key.as_str()]].concat();
        let answer = curl(&served, &old, &more, "/api/v2/nodes").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("hv1"), "{answer}");
    }
    let form = format!("token={TOKEN}");
    let login = curl(&served, &old, &["--data", &form], "/api/v1/auth/login").await.unwrap();
    assert!(login.contains("; Secure"), "{login}");
    assert_ne!(served.send("GET", "/api/v1", "", "").await.status, 209, "nothing without TLS");

    pair(folder.path(), 2200, "new.pem");
    while curl(&served, &new, &[], "/api/v1").await.is_err() {}
    assert!(curl(&served, &old, &[], "/api/v1").await.is_err(), "nobody has the old one any more");
}

#[tokio::test]
async fn an_expired_certificate_is_served_and_refused_by_who_looks() {
    let folder = TempDir::new().unwrap();
    let files = pair(folder.path(), 2001, "trusted.pem");
    assert!(Tls::load(&files).await.unwrap().to_string().contains("has ended"));
    let (served, trust) = (served(&files, Limits::default()).await, folder.path().join("trusted.pem"));
    assert_eq!(curl(&served, &trust, &[], "/api/v1").await, Err(60), "curl: the certificate is not good");
    assert!(curl(&served, &trust, &["--insecure"], "/api/v1").await.is_ok());
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_is_refused_without_what_is_in_the_key() {
    let folder = TempDir::new().unwrap();
    let files = pair(folder.path(), 2200, "x.pem");
    let key = std::fs::read_to_string(&files.key).unwrap();
    let other = KeyPair::generate().unwrap().serialize_pem();
    let broken = key.replace("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY----");
    for (content, why) in [
        (other.as_str(), "cannot be used"),
        ("", "no private key"),
        (&broken, "no private key"),
        (&"x".repeat(300_000), "too large"),
    ] {
        std::fs::write(&files.key, content).unwrap();
        let error = Tls::load(&files).await.err().unwrap().to_string();
        assert!(error.contains(why), "{error}");
        assert!(!key.lines().skip(1).take(1).any(|secret| error.contains(&secret[..20])), "{error}");
    }
    std::fs::write(&files.key, &key).unwrap();
    std::fs::write(&files.certificate, &key).unwrap();
    assert!(Tls::load(&files).await.err().unwrap().to_string().contains("has no certificate"));
    std::fs::remove_file(&files.certificate).unwrap();
    assert!(Tls::load(&files).await.err().unwrap().to_string().contains("cannot be read"));
}

#[tokio::test]
async fn who_does_not_agree_on_tls_is_cut_off_and_keeps_nobody_out() {
    let folder = TempDir::new().unwrap();
    let files = pair(folder.path(), 2200, "trusted.pem");
    let limits = Limits { connections: 4, head_within: Duration::from_secs(2), ..Limits::default() };
    let served = served(&files, limits).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    assert!(curl(&served, &folder.path().join("trusted.pem"), &[], "/api/v1").await.is_ok());
    let mut rest = Vec::new();
    // That this ends is what is tested.
    let _ = silent.pop().unwrap().read_to_end(&mut rest).await;
}
