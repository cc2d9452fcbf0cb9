//! The web page as a browser gets it. What it does is `crates/lab/tests/page.rs`'s business.

use pvc_operate::testing::Fake;

use crate::support::Served;

#[tokio::test]
async fn a_browser_gets_the_page_without_a_token_keeps_its_files_and_runs_nothing_else() {
    let fake = Fake::with(&["hv1"]).await;
    let served = Served::guarded(&fake).await;
    let document = served.send("GET", "/", "", "").await;
    assert_eq!((document.status, document.header("cache-control")), (200, Some("no-cache")));
    let files: Vec<_> = document.body.split('"').filter(|word| word.starts_with("/page/")).collect();
    assert_eq!(files.len(), 3, "{document:?}");
    for path in files {
        let file = served.send("GET", path, "", "").await;
        assert_eq!(file.status, 200, "{path}");
        let kept = file.header("cache-control").unwrap();
        assert!(kept.contains("immutable") && kept.contains("max-age=31536000"), "{path}: {kept}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    let policy = document.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");

    // What guests print is shown by a document of its own, which has no origin and reaches nothing.
    let folder = document.body.split('"').find_map(|word| word.strip_suffix("app.js")).unwrap().to_owned();
    let screen = served.send("GET", &format!("{folder}terminal.html"), "Origin: null\r\n", "").await;
    let policy = screen.header("content-security-policy").unwrap();
    assert!(policy.starts_with("sandbox allow-scripts; default-src 'none'"), "{policy}");
    assert!(policy.contains("frame-ancestors 'self'") && !policy.contains("connect-src"), "{policy}");
    assert!(!policy.contains("allow-same-origin"), "{policy}");

    let tag = document.header("etag").unwrap();
    let again = served.send("GET", "/", &format!("If-None-Match: {tag}\r\n"), "").await;
    assert_eq!((again.status, again.body.as_str(), again.header("etag")), (304, "", Some(tag)));
    let other = served.send("GET", "/", "If-None-Match: \"other\"\r\n", "").await;
    assert_eq!(other.status, 200);
}

#[tokio::test]
async fn no_other_file_is_served() {
    let fake = Fake::with(&["hv1"]).await;
    let served = Served::guarded(&fake).await;
    let document = served.send("GET", "/", "", "").await;
    let folder = document.body.split('"').find_map(|word| word.strip_suffix("app.js")).unwrap().to_owned();
    assert_eq!(served.send("GET", &format!("{folder}views/vms.js"), "", "").await.status, 200);
    for path in [
        format!("{folder}../../etc/passwd"),
        format!("{folder}..%2f..%2fetc%2fpasswd"),
        format!("{folder}/etc/passwd"),
        format!("{folder}index.html"),
        format!("{folder}views"),
        "/page/0000000000000000/app.js".to_owned(),
        "/page/app.js".to_owned(),
        "/index.html".to_owned(),
    ] {
        let answer = served.send("GET", &path, "", "").await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
}
