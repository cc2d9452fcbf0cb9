//! No password is ever shown, whatever is wrong with the file around it.

use proptest::prelude::*;
use pvc_config::check;

use crate::common::EXAMPLE;

/// All that could reach an operator's terminal or a log.
fn shown(text: &str) -> String {
    let mut report = check(text, "pvcd.yaml");
    // Names are shown: who is called as their password is (some BMCs come with ADMIN, ADMIN) has told it.
    if let Some(config) = &mut report.config {
        if config.ipmi.user == config.ipmi.pass.reveal() {
            config.ipmi.user.clear();
        }
        if let Some(database) = config.dns_database.as_mut().filter(|of| of.user == of.pass.reveal()) {
            database.user.clear();
        }
    }
    let mut shown: String =
        report.diagnostics.iter().map(|d| format!("{}{}{d:?}\n", d.render(false), d.render(true))).collect();
    shown.push_str(&format!("{:?}", report.config));
    shown
}

/// A password that occurs nowhere else in the file.
fn password() -> impl Strategy<Value = String> {
    "[qxzQXZ][a-zA-Z0-9!%&*+/=?@^_|~.-]{5,14}[qxz]"
}

/// Ways of writing it, some of them wrong.
fn line(password: &str, style: usize) -> String {
    match style {
        0 => format!("        pass: {password}"),
        1 => format!("        pass: \"{password}\""),
        2 => format!("        pass: '{password}'   # {password}"),
        3 => format!("        pass: >\n          {password}"),
        4 => format!("        pass: |-\n          {password}\n          {password}"),
        5 => format!("        pass: &p {password}\n        user2: *p"),
        6 => format!("        pass:\n          {password}"),
        7 => format!("        pass: [{password}, {password}]"),
        8 => format!("        pass: {{ a: {password} }}"),
        9 => format!("        password: {password}"),
        10 => format!("        pas: {password}"),
        11 => format!("        Pass: {password}"),
        12 => format!("        pass : {password}"),
        13 => format!("        pass:{password}"),
        14 => format!("        pass = {password}"),
        15 => format!("        pass: \"{password}"),
        16 => format!("        pass: '{password}"),
        17 => format!("\tpass: {password}"),
        18 => format!("     pass: {password}"),
        19 => format!("            pass: {password}"),
        20 => format!("        pass: {password}: {password}"),
        21 => format!("        pass: [{password}"),
        22 => format!("        pass: !!python/object {password}"),
        23 => format!("        pass: {password}\n        pass: {password}2"),
        24 => format!("        # pass: {password}"),
        25 => format!("        ? pass\n        : {password}"),
        26 => format!("        \"pass\": {password}"),
        27 => format!("        - pass: {password}"),
        28 => format!("        {{ pass: {password}, user: 5 }}"),
        _ => format!("        user: &u {password}\n        pass: *u"),
    }
}

const STYLES: usize = 30;

#[test]
fn a_name_that_is_its_password_is_valid_and_shown_as_a_name_only() {
    let called_alike = EXAMPLE.replace(
        "        user: admin\n        pass: Passw0rd",
        "        user: &u q7hunter22x\n        pass: *u",
    );
    assert_ne!(called_alike, EXAMPLE);
    assert!(check(&called_alike, "pvcd.yaml").config.is_some());
    assert!(!shown(&called_alike).contains("q7hunter22x"));
}

#[test]
fn every_way_of_writing_a_password_hides_it_in_every_place_of_the_file() {
    let password = "q7hunter22x";
    for style in 0..STYLES {
        for (index, _) in EXAMPLE.lines().enumerate() {
            let mut lines: Vec<String> = EXAMPLE.lines().map(str::to_owned).collect();
            lines[index] = line(password, style);
            let shown = shown(&lines.join("\n"));
            assert!(!shown.contains(password), "style {style} for line {}:\n{shown}", index + 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_password_stays_hidden_while_the_rest_of_the_file_is_mangled(
        password in password(),
        style in 0..STYLES,
        edits in prop::collection::vec((0..EXAMPLE.lines().count(), 0..8_usize, 0..60_usize, "[ \t:,{}\\[\\]\"'#&*!|>%@a-z0-9-]{0,6}"), 0..6),
        ipmi in any::<bool>(),
    ) {
        let own = if ipmi { "        pass: Passw0rd" } else { "        pass: pvcdns" };
        let mut lines: Vec<String> = EXAMPLE.lines().map(str::to_owned).collect();
        for (index, how, at, text) in edits {
            let old = lines[index].clone();
            let at = at.min(old.len());
            if old == own {
                continue;
            }
            lines[index] = match how {
                0 => String::new(),
                1 => format!("{}{text}{}", &old[..at], &old[at..]),
                2 => format!("{}{text}", &old[..at]),
                3 => format!("  {old}"),
                4 => old.trim_start().to_owned(),
                5 => format!("{old}\n{old}"),
                6 => text,
                _ => format!("{old}{text}"),
            };
        }
        let text = lines.join("\n").replace(own, &line(&password, style));
        let shown = shown(&text);
        prop_assert!(!shown.contains(&password), "{}\n----\n{}", text, shown);
    }
}
