//! Commands on the rules of a network's firewall.

use super::Refusal;
use crate::{
    model::{
        Network, NetworkKind,
        rule::{Body, Direction, Rule},
    },
    plan::firewall::MOST_RULES,
    text::is_plain,
};

/// The longest name of a rule, in characters.
const LONGEST: usize = 100;

/// A rule as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRule<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Which packets it sees.
    pub direction: Direction,
    /// Its place; `None`: the last.
    pub order: Option<u32>,
    /// What it says.
    pub text: &'a str,
}

/// Decides on a new rule beside those that are there; answers what it is, with its place.
pub fn add(network: &Network, new: &NewRule<'_>, there: &[Rule]) -> Result<Rule, Refusal> {
    let what = || format!("the rule {:?} was not added to network {}", new.name, network.vni);
    let refuse = |why: String, todo: &str| Refusal::refused(what(), why, todo);
    if network.kind == Some(NetworkKind::Bridged) {
        let why = "the network is bridged: its packets are routed outside".to_owned();
        return Err(refuse(why, "filter them there"));
    }
    if let Err(why) = name(new.name) {
        return Err(refuse(why, "give it a name of letters, digits, '-' and '_'"));
    }
    if let Some(other) = there.iter().find(|other| other.name == new.name) {
        let why = format!("there is one called so: {} {:?}", other.direction, other.text);
        return Err(refuse(why, "choose another name, or remove that one"));
    }
    let same: Vec<&Rule> = there.iter().filter(|other| other.direction == new.direction).collect();
    if same.len() >= MOST_RULES {
        return Err(refuse(format!("there are {} already", same.len()), "remove some"));
    }
    let body: Body = new.text.parse().map_err(|e: crate::model::rule::BodyError| {
        refuse(e.to_string(), "write it such as: tcp dport { 22, 80 } accept")
    })?;
    let last = same.iter().filter_map(|other| other.order).max().map_or(0, |last| last.saturating_add(1));
    let order = Some(new.order.unwrap_or(last));
    Ok(Rule {
        name: new.name.to_owned(),
        direction: new.direction,
        order,
        text: body.to_string(),
        body: Ok(body),
    })
}

/// The place among `there` of the rule that is called so.
pub fn find(network: &Network, name: &str, there: &[Rule]) -> Result<usize, Refusal> {
    there.iter().position(|rule| rule.name == name).ok_or_else(|| {
        Refusal::not_found(
            format!("network {} has no rule {name:?}", network.vni),
            "none is called so",
            format!("`pvc network acl list {}` shows all", network.vni),
        )
    })
}

fn name(name: &str) -> Result<(), String> {
    let is_allowed = |c: char| is_plain(c) && !c.is_whitespace() && c != '/';
    match name.chars().count() {
        0 => Err("it has no name".to_owned()),
        _ if name == "." || name == ".." => Err("this is no name".to_owned()),
        1..=LONGEST if name.chars().all(is_allowed) => Ok(()),
        1..=LONGEST => Err("its name has characters that a key cannot have".to_owned()),
        length => Err(format!("its name has {length} characters, {LONGEST} are possible")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(kind: NetworkKind) -> Network {
        Network { kind: Some(kind), ..Network::bare("100".parse().unwrap()) }
    }

    fn new<'a>(name: &'a str, text: &'a str) -> NewRule<'a> {
        NewRule { name, direction: Direction::In, order: None, text }
    }

    #[test]
    fn a_rule_comes_last_unless_it_is_given_a_place() {
        let managed = network(NetworkKind::Managed);
        let mut there = Vec::new();
        for (name, order) in [("a", 0), ("b", 1)] {
            let rule = add(&managed, &new(name, "drop"), &there).unwrap();
            assert_eq!(rule.order, Some(order));
            there.push(rule);
        }
        let first = NewRule { order: Some(0), ..new("c", "accept") };
        assert_eq!(add(&managed, &first, &there).unwrap().order, Some(0));
        let other = NewRule { direction: Direction::Out, ..new("d", "accept") };
        assert_eq!(add(&managed, &other, &there).unwrap().order, Some(0));
        assert_eq!(find(&managed, "b", &there), Ok(1));
        assert!(find(&managed, "x", &there).is_err());
    }

    #[test]
    fn what_is_refused_says_why() {
        let managed = network(NetworkKind::Managed);
        let there = [add(&managed, &new("a", "drop"), &[]).unwrap()];
        for (rule, why) in [
            (new("a", "drop"), "called so"),
            (new("b", "accept; drop"), "';'"),
            (new("b", "log accept"), "log"),
            (new("", "drop"), "no name"),
            (new("a b", "drop"), "characters"),
            (new("a/b", "drop"), "characters"),
            (new("..", "drop"), "no name"),
        ] {
            let refusal = add(&managed, &rule, &there).unwrap_err().to_string();
            assert!(refusal.contains(why), "{refusal}");
        }
        assert!(add(&network(NetworkKind::Bridged), &new("a", "drop"), &[]).is_err());
    }
}
