use std::{os::unix::fs::PermissionsExt as _, sync::Mutex};

use tempfile::TempDir;

use super::*;

const TWO: &str = "[clusters.home]\napi = \"https://home.example\"\n\n[clusters.work]\napi = \"http://10.0.0.1:80\"\nplain_http = true\n";

/// This machine's own `/etc/pvc/pvcd.yaml`, which tests must not see, is looked at only if nothing else is said.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn written(text: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let file = Clusters::file(folder.path());
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

fn environment(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
    move |name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

fn place(said: Said, pairs: &'static [(&'static str, &'static str)], folder: &TempDir) -> String {
    let _alone = ONE_AT_A_TIME.lock().unwrap();
    match find(said, environment(pairs), Some(folder.path())) {
        Ok(Place::ZooKeeper(addresses)) => addresses.connect,
        Ok(Place::Api(api)) => {
            format!("{} {}", api.endpoint, if api.token.is_some() { "token" } else { "none" })
        }
        Err(failure) => failure.to_string(),
    }
}

fn cluster(name: &str) -> Said {
    Said { cluster: Some(name.into()), ..Said::default() }
}

#[test]
fn what_is_said_on_the_command_line_counts_before_the_environment_and_that_before_the_file() {
    let folder = written(TWO);
    let zookeeper = Said { zookeeper: Some("zk:2181".into()), ..Said::default() };
    let api = |url: &str| Said { api: Some(url.into()), ..Said::default() };
    for (said, pairs, expected) in [
        (zookeeper, &[("PVC_API", "https://a")][..], "zk:2181"),
        (api("https://a"), &[("PVC_ZOOKEEPER", "zk:1")], "https://a:7370 none"),
        (cluster("home"), &[("PVC_API", "https://a")], "https://home.example:7370 none"),
        (Said::default(), &[("PVC_API", "https://a:8")], "https://a:8 none"),
        (Said::default(), &[("PVC_API", "https://[::1]"), ("PVC_TOKEN", "x")], "https://[::1]:7370 token"),
        (Said::default(), &[("PVC_ZOOKEEPER", "zk:1")], "zk:1"),
        (Said::default(), &[("PVC_CLUSTER", "work")], "http://10.0.0.1:80 none"),
    ] {
        assert_eq!(place(said, pairs, &folder), expected);
    }
    for (said, pairs, expected) in [
        // A token of the environment is for the address that is named.
        (cluster("home"), &[("PVC_TOKEN", "x")][..], "https://home.example:7370 none"),
        (Said::default(), &[("PVC_CLUSTER", "home"), ("PVC_TOKEN", "x")], "https://home.example:7370 none"),
        (api("https://home.example"), &[("PVC_TOKEN", "x")], "https://home.example:7370 token"),
    ] {
        assert_eq!(place(said, pairs, &folder), expected);
    }
    for (said, pairs, why) in [
        (Said::default(), &[("PVC_API", "https://a"), ("PVC_ZOOKEEPER", "zk:1")][..], "more than one is set"),
        (cluster("nowhere"), &[], "it has home, work"),
        (api("ftp://a"), &[], "does not begin with"),
        (api("https://a/api"), &[], "a path"),
        (api("https://me:secret@a"), &[], "a name or token"),
        (api("https://a"), &[("PVC_TOKEN", "a b")], "printable"),
    ] {
        let told = place(said, pairs, &folder);
        assert!(told.contains(why), "{why}: {told}");
    }
}

#[test]
fn a_file_that_makes_no_sense_or_that_others_can_write_is_refused() {
    for (text, why) in [
        ("[clusters.a]\napi = 7\n", "config.toml"),
        ("[clusters.a]\napi = \"https://a\"\ntoken = \"secret\"\n", "line 3: unknown field `token`"),
        ("[clusters.a]\napi = \"https://a\"\nplain_http = \"secret\"\n", "line 3: invalid type"),
        ("[clusters.a]\napi = \"https://me:secret@a\"\n", "a name or token stands in it"),
        ("rubbish", "config.toml"),
    ] {
        let told = place(cluster("a"), &[], &written(text));
        assert!(told.contains(why), "{told}");
        assert!(!told.contains("secret"), "{told}");
    }
    let folder = written(TWO);
    fs::set_permissions(Clusters::file(folder.path()), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(place(cluster("home"), &[], &folder).contains("others can write"));
}

#[test]
fn of_several_clusters_the_default_is_meant() {
    let meant = |text: &str| {
        let clusters: Clusters = toml::from_str(text).unwrap();
        clusters.meant(None).map(|meant| meant.map(|(name, _)| name.to_owned())).map_err(|e| e.to_string())
    };
    assert!(meant(TWO).unwrap_err().contains("home, work"));
    assert_eq!(meant(&format!("default = \"work\"\n{TWO}")).unwrap().as_deref(), Some("work"));
    assert_eq!(meant("[clusters.only]\napi = \"https://a\"\n").unwrap().as_deref(), Some("only"));
    assert_eq!(meant(""), Ok(None));
}

#[test]
fn a_token_is_kept_for_its_owner_only_and_what_is_in_the_file_stays() {
    let folder = written("# mine\ndefault = \"home\"\n[clusters.home]\napi = \"https://home.example\"\n");
    let login = |said: Said| Login::find(said, environment(&[]), folder.path().to_owned());
    let said =
        Said { api: Some("https://[fd00::1]:7".into()), cluster: Some("new".into()), ..Said::default() };
    let new = login(said).unwrap();
    new.keep(&Token::new("  abcdefgh\n").unwrap()).unwrap();
    let file = token_file(folder.path(), "new");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    assert_eq!(fs::read_to_string(&file).unwrap(), "abcdefgh\n");
    let text = fs::read_to_string(Clusters::file(folder.path())).unwrap();
    assert!(
        text.starts_with("# mine\n") && text.ends_with("[clusters.\"new\"]\napi = \"https://[fd00::1]:7\"\n"),
        "{text}"
    );
    assert_eq!(place(cluster("new"), &[], &folder), "https://[fd00::1]:7 token");
    // Again, by its name: nothing is added.
    login(cluster("new")).unwrap().keep(&Token::new("other").unwrap()).unwrap();
    assert_eq!(fs::read_to_string(Clusters::file(folder.path())).unwrap(), text);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(place(cluster("new"), &[], &folder).contains("others can read "));
    assert!(login(cluster("new")).unwrap().forget().unwrap());
    assert!(!login(cluster("new")).unwrap().forget().unwrap());
    for (said, why) in [
        (
            Said { api: Some("https://b".into()), cluster: Some("home".into()), ..Said::default() },
            "another address",
        ),
        (
            Said { api: Some("https://b".into()), cluster: Some("../x".into()), ..Said::default() },
            "cannot be a cluster's name",
        ),
        (cluster("nowhere"), "adds it"),
    ] {
        let told = login(said).err().unwrap().to_string();
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn a_token_leaves_this_machine_with_tls_only_unless_that_is_asked_for() {
    let client = |url: &str, plain_http| {
        let endpoint = Endpoint::parse(url).unwrap();
        let api =
            Api { endpoint, ca_file: None, plain_http, token: Some(Token::new("secret-token").unwrap()) };
        api.client().map(|client| format!("{client:?}")).map_err(|error| error.to_string())
    };
    for url in ["http://127.0.0.1", "http://[::1]", "http://localhost:80"] {
        let shown = client(url, false).unwrap();
        assert!(!shown.contains("secret"), "{shown}");
    }
    for url in ["http://10.0.0.1", "http://127.0.0.1.example", "http://localhost.example"] {
        assert!(client(url, false).unwrap_err().contains("without TLS"));
        assert!(client(url, true).is_ok());
    }
    assert!(!format!("{:?}", Token::new("secret-token").unwrap()).contains("secret"));
}

#[test]
fn a_token_that_you_keep_elsewhere_is_neither_written_nor_removed() {
    let folder = written("[clusters.ci]\napi = \"https://ci.example\"\ntoken_file = \"/run/secrets/ci\"\n");
    for said in [cluster("ci"), Said { api: Some("https://ci.example".into()), ..Said::default() }] {
        let told = Login::find(said, environment(&[]), folder.path().to_owned()).err().unwrap().to_string();
        assert!(told.contains("/run/secrets/ci"), "{told}");
    }
}

#[test]
fn only_a_regular_file_in_a_folder_that_nobody_else_writes_is_read() {
    let folder = written(TWO);
    let chmod = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
    chmod(0o777);
    let told = place(cluster("home"), &[], &folder);
    assert!(told.contains("others can write") && told.contains("chmod 700"), "{told}");
    chmod(0o755);
    assert_eq!(place(cluster("home"), &[], &folder), "https://home.example:7370 none");
    // Nobody writes to it: who opens it waits, unless he takes care not to.
    let tokens = folder.path().join("tokens");
    fs::create_dir(&tokens).unwrap();
    let fifo = tokens.join("home");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let told = place(cluster("home"), &[], &folder);
    assert!(told.contains("is no regular file"), "{told}");
}
