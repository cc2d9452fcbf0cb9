//! The rules of a network's firewall: addition, removal, and what there is.

use pvc_core::{
    command::network::{self as command, acl::NewRule},
    model::{
        Vni,
        rule::{Direction, Rule},
    },
};
use pvc_store::schema::network::{
    counts,
    rules::{self, SeenRule},
};
use serde::{Deserialize, Serialize};

pub use pvc_store::schema::network::counts::Hits;

use super::read;
use crate::{
    Answer, Cluster, Failure,
    write::{ATTEMPTS, Tries},
};

/// A rule, with the words of the API.
#[derive(Debug, Serialize, Deserialize)]
pub struct RuleRow {
    pub direction: Direction,
    /// `None`: it cannot be read, and the rule stands last.
    pub order: Option<u32>,
    pub description: String,
    pub rule: String,
    /// What the primary's firewall has counted, up to a minute ago; `None`: nothing is known.
    #[serde(flatten)]
    pub hits: Option<Hits>,
    /// Why it does not stand as it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Adds a rule.
pub async fn add(cluster: &Cluster, reference: &str, new: &NewRule<'_>) -> Result<Answer, Failure> {
    let mut tries = Tries::of(ATTEMPTS);
    loop {
        let (_, all) = read(cluster).await?;
        let network = command::find(&all, reference)?;
        let seen = seen(cluster, network.vni).await?;
        let rule = command::acl::add(network, new, &plain(&seen))?;
        let order = rule.order.unwrap_or_default();
        let others: Vec<SeenRule> =
            seen.into_iter().filter(|seen| seen.rule.direction == rule.direction).collect();
        if tries.wrote(cluster.store.commit(rules::add(network.vni, &rule, order, &others)).await)? {
            let message = format!(
                "the {} rule {:?} is added to network {} at place {order}",
                rule.direction, rule.name, network.vni
            );
            return Ok(Answer::new(message));
        }
    }
}

/// Removes one.
pub async fn remove(cluster: &Cluster, reference: &str, name: &str) -> Result<Answer, Failure> {
    let mut tries = Tries::of(ATTEMPTS);
    loop {
        let (_, all) = read(cluster).await?;
        let network = command::find(&all, reference)?;
        let seen = seen(cluster, network.vni).await?;
        let at = command::acl::find(network, name, &plain(&seen))?;
        let Some(found) = seen.get(at) else { continue };
        if tries.wrote(cluster.store.commit(rules::remove(network.vni, found)).await)? {
            return Ok(Answer::new(format!("the rule {name:?} is removed from network {}", network.vni)));
        }
    }
}

/// A network's rules in the order in which they stand, those of one direction if one is given.
pub async fn list(
    cluster: &Cluster,
    reference: &str,
    direction: Option<Direction>,
) -> Result<Vec<RuleRow>, Failure> {
    let (all, _) = super::all(cluster).await?;
    let network = command::find(&all, reference)?;
    let mut rules = plain(&seen(cluster, network.vni).await?);
    rules.retain(|rule| direction.is_none_or(|wanted| wanted == rule.direction));
    rules.sort_by_key(|rule| (rule.direction, rule.place(), rule.name.clone()));
    let counts = counts::read(&*cluster.store, network.vni).await?.unwrap_or_default();
    let doubled = |rule: &Rule| {
        let same = |other: &&Rule| other.direction == rule.direction && other.order == rule.order;
        rule.order.is_some() && rules.iter().filter(same).count() > 1
    };
    let row = |rule: &Rule| RuleRow {
        direction: rule.direction,
        order: rule.order,
        description: rule.name.clone(),
        rule: rule.text.clone(),
        hits: counts.of(rule.direction).get(&rule.name).copied(),
        problem: match &rule.body {
            Err(why) => Some(format!("refused: {why}")),
            Ok(_) if rule.order.is_none() => Some("its order is no number: it stands last".to_owned()),
            Ok(_) if doubled(rule) => Some("another has the same order: they stand by name".to_owned()),
            Ok(_) => None,
        },
    };
    Ok(rules.iter().map(row).collect())
}

async fn seen(cluster: &Cluster, vni: Vni) -> Result<Vec<SeenRule>, Failure> {
    Ok(rules::read(&*cluster.store, &[vni]).await?.remove(&vni).unwrap_or_default())
}

fn plain(seen: &[SeenRule]) -> Vec<Rule> {
    seen.iter().map(|seen| seen.rule.clone()).collect()
}

#[cfg(test)]
mod tests {
    use pvc_core::{command::network::Settings, model::NetworkKind};

    use super::*;
    use crate::testing::Fake;

    #[tokio::test]
    async fn rules_are_added_shown_in_their_order_and_removed() {
        let cluster = Fake::with(&[]).await.cluster;
        let settings = Settings { description: Some("web".into()), ..Settings::default() };
        super::super::add(&cluster, "100", NetworkKind::Managed, &settings, &[]).await.unwrap();
        let new =
            |name, order| NewRule { name, direction: Direction::In, order, text: "tcp dport 22 accept" };
        for rule in [new("a", None), new("b", None), new("first", Some(0))] {
            add(&cluster, "web", &rule).await.unwrap();
        }
        let names = async || -> Vec<String> {
            list(&cluster, "web", None).await.unwrap().into_iter().map(|row| row.description).collect()
        };
        assert_eq!(names().await, ["first", "a", "b"]);
        assert!(add(&cluster, "web", &new("a", None)).await.is_err(), "it is there");
        remove(&cluster, "web", "a").await.unwrap();
        assert!(remove(&cluster, "web", "a").await.is_err());
        assert_eq!(names().await, ["first", "b"]);
        assert_eq!(list(&cluster, "web", Some(Direction::Out)).await.unwrap().len(), 0);
    }
}
