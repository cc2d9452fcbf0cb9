//! `/networks/<vni>/firewall_rules/{in,out}/<name>/{order,rule}`: the rules of a network's firewall.
//!
//! Written by clients, an old one in two transactions: a rule without both keys is not there yet.

use std::collections::BTreeMap;

use pvc_core::{
    model::{
        Vni,
        rule::{Body, Direction, Rule},
    },
    plan::firewall::MOST_RULES,
    text::one_line,
};

use super::path;
use crate::{Check, Store, StoreError, Transaction, Value};

/// The parent of a network's rules.
const RULES: &str = "firewall_rules";

/// Bounds a request.
const AT_ONCE: usize = 200;

/// The network whose rules a key is about.
pub fn network_of(key: &str) -> Option<Vni> {
    super::network_of(key, &[RULES])
}

/// The parent of a network's rules of a direction.
fn parent(vni: Vni, direction: Direction) -> String {
    format!("{}/{RULES}/{direction}", path(vni))
}

/// A rule, and the versions of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRule {
    /// The rule.
    pub rule: Rule,
    /// Of the key of its order.
    order_version: i32,
    /// Of the key of its body.
    rule_version: i32,
}

/// Reads the rules of networks.
///
/// # Errors
/// As every read.
pub async fn read(store: &dyn Store, vnis: &[Vni]) -> Result<BTreeMap<Vni, Vec<SeenRule>>, StoreError> {
    let parents: Vec<(Vni, Direction)> =
        vnis.iter().flat_map(|vni| Direction::ALL.map(|direction| (*vni, direction))).collect();
    let mut places = Vec::new();
    for some in parents.chunks(AT_ONCE) {
        let paths: Vec<String> = some.iter().map(|(vni, direction)| parent(*vni, *direction)).collect();
        for ((vni, direction), names) in some.iter().zip(store.children_many(&paths).await?) {
            let mut names: Vec<String> = names.into_iter().flatten().collect();
            names.sort_unstable();
            names.truncate(MOST_RULES);
            places.extend(names.into_iter().map(|name| (*vni, *direction, name)));
        }
    }
    let mut rules: BTreeMap<Vni, Vec<SeenRule>> = vnis.iter().map(|vni| (*vni, Vec::new())).collect();
    for some in places.chunks(AT_ONCE) {
        let keys = |(vni, direction, name): &(Vni, Direction, String)| {
            let own = format!("{}/{name}", parent(*vni, *direction));
            [format!("{own}/order"), format!("{own}/rule")]
        };
        let values = store.get_many(&some.iter().flat_map(keys).collect::<Vec<_>>()).await?;
        for ((vni, direction, name), values) in some.iter().zip(values.chunks(2)) {
            let [Some(order), Some(rule)] = values else { continue };
            let seen = SeenRule {
                rule: decode(*direction, name, order, rule),
                order_version: order.version,
                rule_version: rule.version,
            };
            rules.entry(*vni).or_default().push(seen);
        }
    }
    Ok(rules)
}

fn decode(direction: Direction, name: &str, order: &Value, rule: &Value) -> Rule {
    let order = std::str::from_utf8(&order.data).ok().and_then(|text| text.trim().parse().ok());
    // What is no text is refused as a body, for its characters.
    let text = String::from_utf8_lossy(&rule.data);
    let shown = text.trim().chars().take(2 * Body::LONGEST).collect::<String>();
    Rule { name: name.to_owned(), direction, order, body: text.trim().parse(), text: one_line(&shown) }
}

/// Creates a rule in its place; those from there on move by one. Fails if any of them has moved since it was seen, or the rule is there.
pub fn add(vni: Vni, rule: &Rule, order: u32, there: &[SeenRule]) -> Transaction {
    let mut txn = Transaction::default();
    let own = format!("{}/{}", parent(vni, rule.direction), rule.name);
    txn.create(own.clone(), "");
    txn.create(format!("{own}/order"), order.to_string());
    txn.create(format!("{own}/rule"), rule.text.clone());
    let is_taken = there.iter().any(|other| other.rule.order == Some(order));
    for other in there {
        let key = format!("{}/{}/order", parent(vni, rule.direction), other.rule.name);
        match other.rule.order {
            Some(place) if is_taken && place >= order => {
                txn.set(key, place.saturating_add(1).to_string(), Some(other.order_version));
            }
            _ => txn.check(key, Check::Version(other.order_version)),
        }
    }
    txn
}

/// Removes a rule that was seen, unless it has changed since.
pub fn remove(vni: Vni, seen: &SeenRule) -> Transaction {
    let mut txn = Transaction::default();
    let own = format!("{}/{}", parent(vni, seen.rule.direction), seen.rule.name);
    txn.delete(format!("{own}/order"), Some(seen.order_version));
    txn.delete(format!("{own}/rule"), Some(seen.rule_version));
    txn.delete(own, None);
    txn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CommitError, memory::MemoryTree, put};

    fn vni() -> Vni {
        "100".parse().unwrap()
    }

    fn rule(name: &str, text: &str) -> Rule {
        let body = text.parse();
        Rule { name: name.into(), direction: Direction::In, order: None, text: text.into(), body }
    }

    async fn rules(store: &dyn Store) -> Vec<SeenRule> {
        read(store, &[vni()]).await.unwrap().remove(&vni()).unwrap()
    }

    #[tokio::test]
    async fn a_rule_takes_its_place_and_the_others_move() {
        let store = MemoryTree::new().client();
        crate::schema::root::init(&*store).await.unwrap();
        let network = pvc_core::model::Network::bare(vni());
        store.commit(super::super::define(&network)).await.unwrap();
        for (name, order) in [("a", 0), ("b", 1), ("c", 1)] {
            let there = rules(&*store).await;
            store.commit(add(vni(), &rule(name, "tcp dport 22 accept"), order, &there)).await.unwrap();
        }
        let there = rules(&*store).await;
        let orders: Vec<_> = there.iter().map(|seen| (seen.rule.name.as_str(), seen.rule.order)).collect();
        assert_eq!(orders, [("a", Some(0)), ("b", Some(2)), ("c", Some(1))]);
        store.commit(remove(vni(), &there[1])).await.unwrap();
        let again = store.commit(remove(vni(), &there[1])).await;
        assert!(matches!(again, Err(CommitError::Conflict { .. })), "{again:?}");
        assert_eq!(rules(&*store).await.len(), 2);
    }

    #[tokio::test]
    async fn a_rule_without_both_keys_is_not_there_and_rubbish_is_refused() {
        let store = MemoryTree::new().client();
        crate::schema::root::init(&*store).await.unwrap();
        store.commit(super::super::define(&pvc_core::model::Network::bare(vni()))).await.unwrap();
        let own = "/networks/100/firewall_rules/in";
        for (key, value) in [
            ("half", &b""[..]),
            ("half/order", b"0"),
            ("rubbish", b""),
            ("rubbish/order", b"first"),
            ("rubbish/rule", b"\xff\x00; flush ruleset"),
        ] {
            put::put(&*store, &format!("{own}/{key}"), value.to_vec()).await.unwrap();
        }
        let there = rules(&*store).await;
        assert_eq!(there.len(), 1);
        let read = &there[0].rule;
        assert!(read.order.is_none() && read.body.is_err() && !read.text.contains('\0'), "{read:?}");
    }

    #[test]
    fn keys_of_rules_name_their_network() {
        assert_eq!(network_of("/networks/100/firewall_rules/in/x/rule"), Some(vni()));
        for other in
            ["/networks/100", "/networks/100/nettype", "/networks/x/firewall_rules", "/nodes/firewall_rules"]
        {
            assert_eq!(network_of(other), None, "{other}");
        }
    }
}
