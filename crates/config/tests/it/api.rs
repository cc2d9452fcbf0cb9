//! `pvc-api.yaml`: the manual's example, what is refused, and that no token is ever shown.

use pvc_config::{ApiReport, Role, Severity, Token, check_api};

const EXAMPLE: &str = include_str!("../../../../packaging/pvc-api.yaml");

fn check(text: &str) -> ApiReport {
    check_api(text, "pvc-api.yaml")
}

fn with(address: &str, authentication: &str) -> ApiReport {
    check(&format!(
        "pvc:\n  coordinators: [hv1]\n  api:\n    listen_address: '{address}'\n    listen_port: \"7370\"\n    authentication:\n{authentication}\n"
    ))
}

fn told(report: &ApiReport) -> String {
    report.diagnostics.iter().map(|d| d.render(false)).collect()
}

#[test]
fn the_example_is_refused_until_somebody_puts_a_token_in() {
    let report = check(EXAMPLE);
    assert_eq!(report.config, None);
    assert!(told(&report).contains("api.authentication.tokens[0].token is empty"), "{}", told(&report));
    let token = "6d0f2f2c1a9c4b7e8f1d3a5b7c9e0f12";
    let filled = EXAMPLE.replace("token: \"\"", &format!("token: \"{token}\""));
    let report = check(&filled);
    assert_eq!(told(&report), "");
    let config = report.config.unwrap();
    assert_eq!(config.listen.port(), 7370);
    let authentication = config.authentication.as_ref().unwrap();
    assert_eq!(authentication.secret_key, None);
    assert!(matches!(&authentication.tokens[0].token, Token::Plain(plain) if plain.reveal() == token));
    assert!(!format!("{config:?}").contains(token));
}

#[test]
fn the_file_of_the_last_generation_is_read() {
    let text = "pvc:\n  debug: True\n  coordinators:\n    - hv1\n    - hv2:2182\n  api:\n    listen_address: '127.0.0.1'\n    listen_port: '7370'\n    authentication:\n      enabled: False\n      secret_key: ''\n      tokens:\n        - description: testing\n          token: ''\n    ssl:\n      enabled: False\n      cert_file: ''\n      key_file: ''\n";
    let report = check(text);
    assert_eq!(told(&report), "");
    let config = report.config.unwrap();
    assert!(config.debug && config.authentication.is_none());
    assert_eq!(config.coordinators.len(), 2);
}

#[test]
fn a_token_has_the_role_that_is_written_and_every_one_if_none_is() {
    for (role, expected) in [
        ("", Some(Role::Admin)),
        (", role: read", Some(Role::Read)),
        (", role: operate", Some(Role::Operate)),
        (", role: admin", Some(Role::Admin)),
        (", role: ''", None),
        (", role: ", None),
        (", role: None", None),
        (", role: root", None),
        (", role: [read]", None),
    ] {
        let tokens =
            format!("      enabled: yes\n      tokens: [{{description: me, token: 0123456789abcdef{role}}}]");
        let report = with("127.0.0.1", &tokens);
        let found =
            report.config.as_ref().map(|config| config.authentication.as_ref().unwrap().tokens[0].role);
        assert_eq!(found, expected, "{role}: {}", told(&report));
    }
}

#[test]
fn without_authentication_only_this_machine_is_served_unless_somebody_says_so() {
    for (address, authentication, severity) in [
        ("127.0.0.1", "      enabled: no", None),
        ("::1", "      enabled: no", None),
        ("0.0.0.0", "      enabled: no", Some(Severity::Error)),
        ("10.0.0.254", "      enabled: no", Some(Severity::Error)),
        ("::", "      enabled: no\n      open: yes", Some(Severity::Warning)),
        ("0.0.0.0", "      enabled: yes\n      tokens: [{description: me, token: 0123456789abcdef}]", None),
    ] {
        let report = with(address, authentication);
        assert_eq!(report.diagnostics.first().map(|d| d.severity), severity, "{address}: {}", told(&report));
        assert_eq!(report.config.is_none(), severity == Some(Severity::Error), "{address}");
    }
}

#[test]
fn what_is_no_token_is_refused_and_a_short_one_is_warned_of() {
    let token = |token: &str| {
        with(
            "127.0.0.1",
            &format!(
                "      enabled: yes\n      tokens:\n        - description: me\n          token: {token}"
            ),
        )
    };
    for wrong in ["''", "", "'sha256:1234'", "' padded with spaces '"] {
        assert_eq!(token(wrong).config, None, "{wrong}");
    }
    let hash = "ab".repeat(32);
    let tokens = token(&format!("sha256:{hash}")).config.unwrap().authentication.unwrap().tokens;
    assert_eq!(tokens[0].token, Token::Sha256([0xab; 32]));
    let short = token("hunter2");
    assert!(short.config.is_some());
    assert!(told(&short).contains("so short that it can be guessed"), "{}", told(&short));
    assert!(!told(&short).contains("hunter2"), "{}", told(&short));
    assert_eq!(with("127.0.0.1", "      enabled: yes").config, None, "no tokens at all");
}

#[test]
fn tls_takes_the_paths_of_a_certificate_and_a_key() {
    let ssl = |ssl: &str| {
        check(&format!(
            "pvc:\n  coordinators: [hv1]\n  api:\n    listen_address: 127.0.0.1\n    authentication: {{enabled: no}}\n    ssl: {ssl}\n"
        ))
    };
    let tls = |report: ApiReport| report.config.expect("a configuration").tls;
    assert_eq!(tls(ssl("{enabled: no, cert_file: '', key_file: ''}")), None);
    let files = tls(ssl("{enabled: yes, cert_file: /a/cert.pem, key_file: /a/key.pem}")).unwrap();
    assert_eq!((files.certificate, files.key), ("/a/cert.pem".into(), "/a/key.pem".into()));
    for wrong in [
        "{enabled: yes}",
        "{enabled: yes, cert_file: /a, key_file: ''}",
        "{enabled: yes, cert_file: a, key_file: /b}",
    ] {
        assert_eq!(ssl(wrong).config, None, "{wrong}");
    }
}
