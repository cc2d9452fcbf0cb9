//! Rubbish in, diagnostics out: never a panic, never a hang, never a configuration.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use pvc_config::{Severity, check, coordinators_of};

use crate::common::EXAMPLE;

/// Far beyond what any of these takes; a loop or a bomb takes for ever.
const PATIENCE: Duration = Duration::from_mins(2);

/// Reads it every way there is, and checks what must hold for any input.
fn digest(text: &str) -> usize {
    let begin = Instant::now();
    let report = check(text, "rubbish.yaml");
    let errors = report.count(Severity::Error);
    assert_eq!(report.config.is_none(), errors > 0, "{:?}", report.diagnostics);
    let lines = text.split('\n').count();
    let mut rendered = 0;
    for diagnostic in &report.diagnostics {
        rendered += diagnostic.render(true).len() + diagnostic.render(false).len();
        assert!(diagnostic.line.is_none_or(|line| line >= 1 && line <= lines + 1), "{diagnostic:?}");
        let plain = diagnostic.render(false);
        assert!(!plain.contains(|c: char| c.is_control() && c != '\n'), "{plain:?}");
    }
    assert!(rendered < 1_000_000, "nobody reads {rendered} bytes");
    let _ = coordinators_of(text, "rubbish.yaml");
    assert!(begin.elapsed() < PATIENCE, "took {:?}", begin.elapsed());
    errors
}

#[test]
fn deep_nesting_is_refused_at_once() {
    for text in [
        "[".repeat(200_000),
        "{".repeat(200_000),
        "{a: ".repeat(60_000),
        "- ".repeat(100_000),
        "? ".repeat(20_000),
        "a: ".repeat(80_000),
        (0..400).map(|n| format!("{}a:\n", " ".repeat(n))).collect(),
        format!("pvc: {}", "[".repeat(200_000)),
    ] {
        assert!(digest(&text) > 0);
    }
}

#[test]
fn alias_bombs_do_not_explode() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..60 {
        let below = format!("*a{}, ", n - 1).repeat(9);
        bomb.push_str(&format!("a{n}: &a{n} [{}]\n", below.trim_end_matches(", ")));
    }
    digest(&format!("{bomb}pvc: *a59\n"));
    digest(&bomb.replace("a59:", "pass:"));
    let mut merges = "m0: &m0 { a: 1, b: 2 }\n".to_owned();
    for n in 1..200 {
        merges.push_str(&format!("m{n}: &m{n} {{ <<: [*m{0}, *m{0}, *m{0}], k{n}: 1 }}\n", n - 1));
    }
    digest(&merges);
    for circle in [
        "&a [*a]",
        "pvc: &a { cluster: *a, functions: *a, system: *a }",
        "&a { <<: *a }",
        "pvc: &a {pass: *a}",
    ] {
        assert!(digest(circle) > 0, "{circle}");
    }
}

#[test]
fn long_lines_and_many_keys_are_read_in_good_time() {
    let wide: String = (0..10_000).map(|n| format!("  key{n}: {n}\n")).collect();
    assert!(digest(&format!("pvc:\n{wide}")) > 0);
    let hosts: String = (0..12_000).map(|n| format!("      - host{n}\n")).collect();
    assert!(digest(&format!("pvc:\n  cluster:\n    coordinators:\n{hosts}")) > 0);
    let passwords: String = (0..1000).map(|n| format!("pass{n}: secret{n}x\n")).collect();
    assert!(digest(&passwords) > 0);
    assert!(digest(&"x".repeat(250_000)) > 0);
    assert!(digest(&format!("pvc: \"{}", "pass: ".repeat(40_000))) > 0);
    assert!(digest(&"pass:\n".repeat(10_000)) > 0);
    assert!(digest(&format!("pvc:\n  node: {}", "\u{1f600}".repeat(50_000))) > 0);
    assert!(digest(&" ".repeat(250_000)) > 0);
    assert!(digest(&"#\n".repeat(120_000)) > 0);
    assert!(digest(&"\n".repeat(250_000)) > 0);
    assert!(digest(&"&a ".repeat(80_000)) > 0);
    assert!(digest(&"'".repeat(250_001)) > 0);
    assert!(digest(&"a:\t\u{0}\u{7f}\u{85}\u{2028}\u{feff}\r".repeat(5_000)) > 0);
}

/// Each of these cost seconds or gigabytes once. 256 KiB is the largest file that is read.
#[test]
fn bombs_of_a_quarter_mebibyte_go_off_quietly() {
    let fill = |piece: &dyn Fn(usize) -> String| {
        let mut text = String::new();
        for n in 0.. {
            let piece = piece(n);
            if text.len() + piece.len() > 250_000 {
                return text;
            }
            text.push_str(&piece);
        }
        text
    };
    let one_line = format!("pvc: {{{}}}", fill(&|n| format!("k{n}: 1, ")));
    let list = format!("a: &a [{}]\n", fill(&|_| "xyz,".to_owned()).split_at(120_000).0);
    let aliases = list + fill(&|n| format!("pass{n}: *a\n")).split_at(120_000).0;
    let long_keys = format!("{0}: {{{0}: {{{0}: [{1}]}}}}", "k".repeat(3000), fill(&|_| "!x a,".to_owned()));
    let doubled = format!("{}:\n{}", "k".repeat(3000), fill(&|_| "  a: 1\n".to_owned()));
    let passwords = fill(&|n| format!("pass: s{n}\nx{n}: 1\n"));
    let unknown = format!("pvc:\n{}", fill(&|n| format!("  unknown_{n}: {n}\n")));
    let map = format!(
        "m: &m {{{}}}\n",
        fill(&|n| format!("k{n}: 1,")).split_at(120_000).0.trim_end_matches(|c| c != ',')
    );
    let merges = map + fill(&|n| format!("n{n}: {{<<: *m}}\n")).split_at(120_000).0;
    for text in [one_line, aliases, long_keys, doubled, passwords, unknown, merges] {
        digest(&text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_at_all(text in any::<String>()) {
        digest(&text);
    }

    #[test]
    fn any_text_of_the_characters_yaml_is_made_of(text in "([ \n\t:,{}\\[\\]\"'#&*!|>%@`?~<-]|\n  |pvc|pass|: |- |a|1){0,80}") {
        digest(&text);
        digest(&format!("pvc:\n  node: x\n  {text}"));
    }

    #[test]
    fn the_example_with_pieces_torn_out_doubled_and_moved(
        cuts in prop::collection::vec((0..EXAMPLE.len(), 0..80_usize, 0..EXAMPLE.len(), 0..4_u8), 1..6),
    ) {
        let mut text = EXAMPLE.to_owned();
        for (at, len, to, how) in cuts {
            let at = at.min(text.len());
            let end = (at + len).min(text.len());
            let piece = text[at..end].to_owned();
            if how != 0 {
                text.replace_range(at..end, "");
            }
            if how != 1 {
                let to = to.min(text.len());
                text.insert_str(to, &piece);
            }
        }
        digest(&text);
    }

    #[test]
    fn the_example_with_values_replaced(
        line in 0..EXAMPLE.lines().count(),
        value in "(-?[0-9]{1,25}|0x[0-9a-f]+|[0-9.]{1,12}/?[0-9]{0,3}|\\PC{0,12}|[\\[{]\\PC{0,8}|~|None|\"\\PC{0,6}\")",
    ) {
        let text: String = EXAMPLE
            .lines()
            .enumerate()
            .map(|(n, old)| match old.split_once(": ") {
                Some((key, _)) if n == line => format!("{key}: {value}\n"),
                _ => format!("{old}\n"),
            })
            .collect();
        digest(&text);
    }
}
