//! What is allowed, what is refused, and that nothing else reaches `nft`.

use fastrand::Rng;

use super::*;

fn read(text: &str) -> String {
    text.parse::<Body>().map_or_else(|e| panic!("{text:?}: {e}"), |body| body.to_string())
}

#[test]
fn what_operators_write_is_allowed() {
    for text in [
        "accept",
        "tcp dport 22 accept",
        "tcp dport { 80 , 443 } accept",
        "ip saddr 10.0.0.0/8 drop",
        "ip saddr 10.0.0.1-10.0.0.9 udp dport 1000-2000 drop",
        "ip6 daddr fd00::1 icmpv6 type echo-request accept",
        "ct state { established , related } accept",
        "meta l4proto tcp reject with tcp reset",
        "ip protocol icmp reject with icmp type host-unreachable",
        "icmp type echo-request limit rate 10/second burst 5 packets accept",
        "tcp flags != syn drop",
        "ip saddr != 10.0.0.0/8",
        "return",
    ] {
        assert_eq!(read(text), text);
    }
    assert_eq!(read(" tcp  dport {80,443} counter accept "), "tcp dport { 80 , 443 } accept");
}

#[test]
fn the_verdict_stands_apart_so_that_a_counter_counts_what_matched() {
    let body: Body = "tcp dport 22 reject with tcp reset".parse().unwrap();
    assert_eq!((body.matches(), body.verdict()), ("tcp dport 22", "reject with tcp reset"));
}

#[test]
fn injections_are_refused() {
    for text in [
        "",
        " ",
        "accept; add rule inet pvc input accept",
        "accept\nflush ruleset",
        "accept\rflush ruleset",
        "accept\0",
        "accept\tdrop",
        "include \"/etc/shadow\"",
        "include '/etc/shadow'",
        "include /etc/nftables.conf",
        "accept # comment",
        "accept \\",
        "define x = 1",
        "ip saddr $x accept",
        "ip saddr @ends4 accept",
        "jump n200_in",
        "goto input",
        "queue num 0",
        "accept } chain x { type filter hook input priority 0",
        "accept } } table inet other { chain x {",
        "tcp dport { 1, { 2 } } accept",
        "tcp dport { 1, 2 accept",
        "tcp dport 1 } accept",
        "accept drop",
        "drop accept",
        "accept tcp dport 22",
        "accept { 1 }",
        "log prefix x accept",
        "log accept",
        "meta mark set 1 accept",
        "ip daddr set 10.0.0.1",
        "tcp dport ssh accept",
        "ip saddr example.com accept",
        "iifname vmbr100 accept",
        "meta skuid 0 accept",
        "dup to 10.0.0.1",
        "fwd to eth0",
        "dnat to 10.0.0.1",
        "snat to 10.0.0.1",
        "masquerade",
        "redirect to :22",
        "notrack",
        "ct helper set x",
        "tproxy to :80",
        "flow add @f",
        "add @ends4 { ip saddr }",
        "update @ends4 { ip saddr }",
        "ip saddr vmap { 10.0.0.1 : accept }",
        "ip saddr map { 10.0.0.1 : 1 }",
        "comment x",
        "numgen random mod 2 0",
        "socket transparent 1",
        "fib daddr type local accept",
        "@th,0,16 22 accept",
        "@nh,0,16 22 accept",
        "tcp dport 4294967296 accept",
        "tcp dport 00000000022 accept",
        "ip saddr 10.0.0.0/33 accept",
        "ip saddr 999.1.1.1 accept",
        "ip saddr 10.0.0.1-fd00: accept",
        "tcp dport 0x16 accept",
        "tcp dport 22 & 1 accept",
        "tcp dport 22 | 1 accept",
        "(tcp dport 22) accept",
        "tcp dport [22] accept",
        "tcp dport 22* accept",
        "tcp dport 22 accept\u{2028}drop",
        "tсp dport 22 accept",
        "`id`",
        "%s",
        "~",
    ] {
        assert!(text.parse::<Body>().is_err(), "{text:?}");
    }
    assert!("1 ".repeat(300).parse::<Body>().is_err());
}

#[test]
fn of_a_refused_rule_is_known_whether_it_could_only_have_accepted() {
    let rule = |text: &str| Rule {
        name: "x".into(),
        direction: Direction::In,
        order: Some(0),
        text: text.into(),
        body: text.parse(),
    };
    assert!(rule("log accept").only_accepts());
    for text in
        ["", "log", "log drop", "drop; accept", "jump x accept", "tcp vmap {1:drop} accept", "acceptx"]
    {
        assert!(!rule(text).only_accepts(), "{text}");
    }
}

/// A text close to what is allowed, or a bit further off.
fn any_text(rng: &mut Rng) -> String {
    const WORDS: [&str; 24] = [
        "ip",
        "tcp",
        "saddr",
        "dport",
        "accept",
        "drop",
        "reject",
        "with",
        "{",
        "}",
        ",",
        "22",
        "10.0.0.1",
        "10.0.0.0/8",
        "ct",
        "state",
        "new",
        "counter",
        "icmp",
        "type",
        "reset",
        "1-2",
        "10/second",
        "!=",
    ];
    let mut text = String::new();
    for _ in 0..rng.usize(..12) {
        match rng.u8(..8) {
            0 => text.push(char::from(rng.u8(b' '..=b'~'))),
            1 => text.push(rng.char(..)),
            _ => text.push_str(rng.choice(WORDS).unwrap()),
        }
        if rng.u8(..10) > 0 {
            text.push(' ');
        }
    }
    text
}

#[test]
fn what_is_handed_on_is_one_line_of_known_words() {
    // A hundred thousand texts take a second.
    let (mut rng, mut accepted) = (Rng::with_seed(0x51c3_1e55), 0);
    for _ in 0..100_000 {
        let text = any_text(&mut rng);
        let Ok(body) = text.parse::<Body>() else { continue };
        accepted += 1;
        let said = body.to_string();
        for word in said.split(' ').filter(|word| !word.is_empty()) {
            let known = ["{", "}"].contains(&word)
                || words::is_allowed(word)
                || words::is_verdict(word)
                || words::is_reason(word)
                || is_value(word);
            assert!(known, "{word:?} of {text:?}");
        }
        assert!(said.len() <= 3 * Body::LONGEST && said.is_ascii() && !said.contains('\n'));
        assert!(said.split(' ').filter(|word| words::is_verdict(word)).count() <= 1, "{text:?}");
        if (1..=Body::LONGEST).contains(&said.len()) {
            assert_eq!(said.parse::<Body>().map(|again| again.to_string()), Ok(said));
        }
    }
    assert!(accepted > 1000, "{accepted} of them mean something");
}
