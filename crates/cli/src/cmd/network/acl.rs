//! `pvc network acl …`: the rules of a network's firewall.

use pvc_core::{command::network::acl::NewRule, model::rule::Direction};
use pvc_operate::network::acl::{Hits, RuleRow};

use crate::{
    args::{Acl, AclDirection},
    door::Door,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look, table},
    },
};

pub(super) async fn run(command: Acl, door: &Door, out: &Out) -> Result<(), Failure> {
    match command {
        Acl::Add { direction, description, rule, order, network } => {
            let direction = direction.given().unwrap_or(Direction::In);
            let new = NewRule { name: &description, direction, order, text: &rule };
            out.answer(&door.add_rule(&network, &new).await?)
        }
        Acl::Remove { network, rule } => out.answer(&door.remove_rule(&network, &rule).await?),
        Acl::List { direction, network, limit } => {
            let mut rules = door.rules(&network, direction.given()).await?;
            rules.retain(|rule| limit.as_ref().is_none_or(|limit| limit.is_match(&rule.description)));
            list(&rules, out)
        }
    }
}

impl AclDirection {
    fn given(&self) -> Option<Direction> {
        match (self.inbound, self.outbound) {
            (true, _) => Some(Direction::In),
            (_, true) => Some(Direction::Out),
            _ => None,
        }
    }
}

const HEADER: [&str; 7] = ["direction", "order", "description", "packets", "bytes", "rule", "problem"];

fn list(rules: &[RuleRow], out: &Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&rules);
    }
    let row = |rule: &RuleRow| -> Vec<Cell> {
        let count = |of: fn(&Hits) -> u64| -> Cell {
            rule.hits.as_ref().map_or_else(|| "".into(), |hits| of(hits).to_string().into())
        };
        vec![
            rule.direction.to_string().into(),
            rule.order.map_or_else(|| Cell::state("?"), |order| order.to_string().into()),
            Cell::from(&rule.description),
            count(|hits| hits.packets),
            count(|hits| hits.bytes),
            Cell::from(&rule.rule),
            rule.problem.as_ref().map_or_else(|| "".into(), |problem| Cell::new(problem, Look::Bad)),
        ]
    };
    let rows: Vec<Vec<Cell>> = rules.iter().map(row).collect();
    out.write(&table(&HEADER, &rows, out.colour()))
}
