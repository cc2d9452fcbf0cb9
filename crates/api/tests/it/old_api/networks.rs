//! Networks, who has which address in them, and their rules.

use serde_json::json;

use super::{Fake, Served, expect, none};

#[tokio::test]
async fn a_network_is_added_shown_changed_and_removed() {
    let fake = Fake::with(&[]).await;
    let served = Served::guarded(&fake).await;
    expect(&served, &[
        ("GET", "/network", none(), 404, "message"),
        ("POST", "/network", none(), 520, "no vni specified"),
        ("POST", "/network", "vni=100".into(), 520, "no description specified"),
        ("POST", "/network", "vni=100&description=web".into(), 520, "no nettype specified"),
        ("POST", "/network", "vni=100&description=web&nettype=wild".into(), 400, "managed or bridged"),
        ("POST", "/network", "vni=x&description=web&nettype=bridged".into(), 400, "was not added"),
        (
            "POST",
            "/network?vni=100&description=web&nettype=managed",
            "ip4_network=10.1.0.0/24&ip4_gateway=10.1.0.1&dhcp4=True&dhcp4_start=10.1.0.100&dhcp4_end=10.1.0.199".into(),
            200,
            "network 100 (web) is added",
        ),
        ("POST", "/network", "vni=100&description=web&nettype=managed".into(), 400, "there is one with this number"),
        ("POST", "/network", "vni=200&description=office&nettype=bridged".into(), 200, "is added"),
    ]).await;
    let shown = served.ask("GET", "/api/v1/network/web", "").await.json();
    assert_eq!(
        shown,
        json!([{
            "vni": "100", "description": "web", "type": "managed", "domain": "web.local",
            "ip6": {"network": "None", "gateway": "None", "dhcp_flag": "False"},
            "ip4": {"network": "10.1.0.0/24", "gateway": "10.1.0.1", "dhcp_flag": "True", "dhcp_start": "10.1.0.100",
                    "dhcp_end": "10.1.0.199"},
        }])
    );
    expect(
        &served,
        &[
            ("GET", "/network?limit=^off", none(), 200, "office"),
            ("GET", "/network/200", none(), 200, "office"),
            ("GET", "/network/offi", none(), 200, "office"),
            ("GET", "/network/none", none(), 404, "there is no such network"),
            ("PUT", "/network/web", none(), 400, "nothing is to be changed"),
            ("PUT", "/network/web", "dhcp4=perhaps".into(), 400, "True or False"),
            ("PUT", "/network/web", "description=www&dhcp4=False".into(), 200, "is changed"),
            ("GET", "/network/www", none(), 200, r#""dhcp_flag":"False","dhcp_start""#),
            ("PUT", "/network/www", "domain=".into(), 200, "is changed"),
            ("GET", "/network/www", none(), 200, r#""domain":"None""#),
            ("DELETE", "/network/www", none(), 200, "is removed"),
            ("DELETE", "/network/www", none(), 404, "there is no network"),
        ],
    )
    .await;
    assert_eq!(fake.get("/networks/100").await, None);
}

async fn with_a_network(fake: &Fake) -> Served {
    let served = Served::guarded(fake).await;
    let form = "vni=100&description=web&nettype=managed&ip4_network=10.1.0.0/24&ip4_gateway=10.1.0.1&dhcp4=True&dhcp4_start=10.1.0.100&dhcp4_end=10.1.0.199";
    assert_eq!(served.ask("POST", "/api/v1/network", form).await.status, 200);
    served
}

#[tokio::test]
async fn an_address_is_reserved_shown_and_freed_by_either_path() {
    let fake = Fake::with(&[]).await;
    let served = with_a_network(&fake).await;
    let mac = "52:54:00:00:00:0a";
    for path in ["lease", "dhcp"] {
        let list = format!("/network/web/{path}");
        let item = format!("{list}/{mac}");
        expect(
            &served,
            &[
                ("GET", &list, none(), 404, "message"),
                ("POST", &list, "ipaddress=10.1.0.20".into(), 400, "no macaddress specified"),
                ("POST", &list, format!("macaddress={mac}"), 400, "no ipaddress specified"),
                ("POST", &list, format!("macaddress={mac}&ipaddress=10.9.0.20"), 400, "10.9.0.20"),
                (
                    "POST",
                    &list,
                    format!("macaddress={mac}&ipaddress=10.1.0.20&hostname=db"),
                    200,
                    "is reserved",
                ),
                ("GET", &format!("{list}?limit=db&static=1"), none(), 200, mac),
                ("GET", &format!("{list}?limit=mail"), none(), 404, "message"),
                ("GET", &format!("/network/none/{path}"), none(), 404, "there is no network"),
                ("GET", &format!("{list}/52:54:00:00:00:0b"), none(), 404, "no address"),
            ],
        )
        .await;
        let shown = served.ask("GET", &format!("/api/v1{item}"), "").await.json();
        let row =
            json!({"hostname": "db", "ip4_address": "10.1.0.20", "mac_address": mac, "timestamp": "static"});
        assert_eq!(shown, json!([row]));
        expect(
            &served,
            &[("DELETE", &item, none(), 200, "any more"), ("DELETE", &item, none(), 404, "message")],
        )
        .await;
    }
}

#[tokio::test]
async fn a_rule_is_added_shown_and_removed() {
    let fake = Fake::with(&[]).await;
    let served = with_a_network(&fake).await;
    let rule = "rule=tcp+dport+22+accept";
    expect(
        &served,
        &[
            ("GET", "/network/web/acl", none(), 404, "message"),
            ("POST", "/network/web/acl", format!("description=ssh&{rule}"), 400, "no direction specified"),
            ("POST", "/network/web/acl", format!("direction=in&{rule}"), 400, "no description specified"),
            ("POST", "/network/web/acl", "direction=in&description=ssh".into(), 400, "no rule specified"),
            ("POST", "/network/web/acl", format!("direction=up&description=ssh&{rule}"), 400, "in or out"),
            (
                "POST",
                "/network/web/acl",
                format!("direction=in&description=ssh&order=x&{rule}"),
                400,
                "whole number",
            ),
            (
                "POST",
                "/network/web/acl",
                "direction=in&description=ssh&rule=include+%22/etc/passwd%22".into(),
                400,
                "was not added",
            ),
            ("POST", "/network/web/acl", format!("direction=in&description=ssh&{rule}"), 200, "is added"),
            (
                "POST",
                "/network/web/acl",
                format!("direction=out&description=all&order=3&{rule}"),
                200,
                "at place 3",
            ),
            (
                "GET",
                "/network/web/acl?direction=out",
                none(),
                200,
                r#"[{"direction":"out","order":"3","description":"all","rule":"tcp dport 22 accept"}]"#,
            ),
            ("GET", "/network/web/acl?limit=ss", none(), 200, "ssh"),
            ("GET", "/network/web/acl/ssh", none(), 200, r#""order":"0""#),
            ("GET", "/network/web/acl/none", none(), 404, "there is no such rule"),
            ("DELETE", "/network/web/acl/ssh?direction=out", none(), 404, "of this direction"),
            ("DELETE", "/network/web/acl/ssh?direction=in", none(), 200, "is removed"),
            ("DELETE", "/network/web/acl/all", none(), 200, "is removed"),
            ("DELETE", "/network/web/acl/all", none(), 404, "message"),
        ],
    )
    .await;
}
