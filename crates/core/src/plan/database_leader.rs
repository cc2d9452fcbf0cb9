//! Whether the DNS database's leader should be asked to be on this node: what is written on the primary is written into the PostgreSQL beside it, and
//! Patroni lets one of its members at a time take writes.
//!
//! A wish, and no part of any hand-over: whoever leads, the primary is primary.

use std::net::IpAddr;

use crate::{
    model::NodeName,
    text::{is_plain, one_line},
};

/// The longest name that is taken for a member's.
const LONGEST_NAME: usize = 128;

/// The database's servers, as Patroni says of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Servers {
    /// Whether an operator has told Patroni to change nothing by itself.
    pub is_paused: bool,
    /// All of them.
    pub members: Vec<Member>,
}

/// One of the database's servers, as Patroni says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, which deployments take from the node.
    pub name: String,
    /// Where it listens, if that is an address.
    pub host: Option<IpAddr>,
    /// At which port, if it says so.
    pub port: Option<u16>,
    /// Whether it takes writes.
    pub leads: bool,
    /// Whether it follows or leads, as its own word for that says.
    pub works: bool,
    /// That word.
    pub state: String,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The leader is here.
    Here,
    /// Patroni is asked to make `candidate`, which is here, the leader in the place of `leader`.
    Ask {
        /// Who leads.
        leader: String,
        /// Who is to lead.
        candidate: String,
    },
    /// Not now, and why.
    Not(String),
}

/// What is known of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// This node.
    pub me: NodeName,
    /// Its addresses.
    pub own: Vec<IpAddr>,
    /// The port at which names are written into the database.
    pub port: u16,
}

/// Decides it.
pub fn plan(ground: &Ground, servers: &Servers) -> Wish {
    let (Ground { me, own, port }, Servers { is_paused, members }) = (ground, servers);
    let is_named = |member: &&Member| member.name.eq_ignore_ascii_case(me.as_str());
    let is_at = |member: &&Member| member.host.is_some_and(|host| own.contains(&host));
    let here = match members.iter().find(is_named) {
        Some(member) => member,
        None => {
            let mut at: Vec<&Member> = members.iter().filter(is_at).collect();
            match (at.pop(), at.is_empty()) {
                (Some(member), true) => member,
                _ => {
                    return Wish::Not(format!(
                        "none of the database's servers is called {me}, or has an address of it alone"
                    ));
                }
            }
        }
    };
    if let Some(other) = here.port.filter(|other| other != port) {
        return Wish::Not(format!(
            "Patroni here is of a database at port {other}, and names are written to port {port}: it is let be"
        ));
    }
    if here.leads {
        return Wish::Here;
    }
    if *is_paused {
        return Wish::Not("Patroni is paused, and is asked for nothing until `patronictl resume`".to_owned());
    }
    let leaders: Vec<&Member> = members.iter().filter(|member| member.leads).collect();
    let leader = match leaders[..] {
        [leader] => leader,
        [] => return Wish::Not("the database has no leader: Patroni elects one".to_owned()),
        _ => return Wish::Not("the database has several leaders".to_owned()),
    };
    if !here.works {
        return Wish::Not(format!("the database's server here is {}", one_line(&here.state)));
    }
    if [leader, here].iter().any(|member| !is_a_name(&member.name)) {
        return Wish::Not("a server of the database has a name that is none".to_owned());
    }
    Wish::Ask { leader: leader.name.clone(), candidate: here.name.clone() }
}

/// It reaches a log and a terminal as it is.
fn is_a_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, host: &str, leads: bool, state: &str) -> Member {
        let works = ["running", "streaming"].contains(&state);
        Member {
            name: name.into(),
            host: host.parse().ok(),
            port: Some(5432),
            leads,
            works,
            state: state.into(),
        }
    }

    #[test]
    fn the_leader_is_asked_for_where_the_primary_is_and_only_where_it_can_be() {
        let ground = ground();
        let here = |state| member("hv1", "10.0.0.1", false, state);
        let (there, other) =
            (member("hv2", "10.0.0.2", true, "running"), member("hv3", "10.0.0.3", false, "streaming"));
        let ask = |candidate: &str| Wish::Ask { leader: "hv2".into(), candidate: candidate.into() };
        let long = "x".repeat(LONGEST_NAME + 1);
        for (members, expected) in [
            (vec![member("HV1", "", true, "running"), other.clone()], Wish::Here),
            (vec![here("streaming"), there.clone(), other.clone()], ask("hv1")),
            (vec![here("running"), there.clone()], ask("hv1")),
            // One that is called otherwise is known by its address.
            (vec![member("pg-a", "10.0.0.1", false, "running"), there.clone()], ask("pg-a")),
            (
                vec![member("a", "10.0.0.1", false, "running"), member("b", "10.0.0.1", true, "running")],
                Wish::Not(
                    "none of the database's servers is called hv1, or has an address of it alone".into(),
                ),
            ),
            (
                vec![there.clone()],
                Wish::Not(
                    "none of the database's servers is called hv1, or has an address of it alone".into(),
                ),
            ),
            (
                vec![here("start\u{1b}failed"), there.clone()],
                Wish::Not(format!("the database's server here is {}", one_line("start\u{1b}failed"))),
            ),
            (
                vec![here("streaming"), other.clone()],
                Wish::Not("the database has no leader: Patroni elects one".into()),
            ),
            (
                vec![here("streaming"), there.clone(), member("hv3", "", true, "running")],
                Wish::Not("the database has several leaders".into()),
            ),
            (
                vec![here("streaming"), member(&long, "", true, "running")],
                Wish::Not("a server of the database has a name that is none".into()),
            ),
            (
                vec![],
                Wish::Not(
                    "none of the database's servers is called hv1, or has an address of it alone".into(),
                ),
            ),
        ] {
            let servers = Servers { is_paused: false, members };
            assert_eq!(plan(&ground, &servers), expected, "{servers:?}");
        }
    }

    fn ground() -> Ground {
        let own = ["127.0.0.1", "10.0.0.1"].map(|own| own.parse().unwrap()).into();
        Ground { me: "hv1".parse().unwrap(), own, port: 5432 }
    }

    #[test]
    fn what_an_operator_has_paused_or_is_another_applications_is_let_be() {
        let not = |servers: &Servers, word| match plan(&ground(), servers) {
            Wish::Not(why) => assert!(why.contains(word), "{why}"),
            wish => panic!("{word}: {wish:?}"),
        };
        let members =
            vec![member("hv1", "10.0.0.1", false, "running"), member("hv2", "10.0.0.2", true, "running")];
        let mut servers = Servers { is_paused: true, members };
        not(&servers, "Patroni is paused");
        servers.members.swap(0, 1);
        not(&servers, "Patroni is paused");
        for leads in [false, true] {
            let mut other = servers.clone();
            (other.members[1].port, other.members[1].leads, other.members[0].leads) =
                (Some(5433), leads, !leads);
            not(&other, "a database at port 5433, and names are written to port 5432");
        }
        servers.members[1].leads = true;
        assert_eq!(plan(&ground(), &servers), Wish::Here, "nothing is to be changed");
        servers.members[1].leads = false;
        servers.is_paused = false;
        servers.members[1].port = None;
        assert!(matches!(plan(&ground(), &servers), Wish::Ask { .. }), "not every version says its port");
    }

    #[test]
    fn a_name_that_a_terminal_would_obey_is_none() {
        for name in ["hv2\u{1b}[2J", "hv2\nhv3", "hv2\u{202e}", "", &"x".repeat(LONGEST_NAME + 1)] {
            let members = vec![member("hv1", "", false, "running"), member(name, "", true, "running")];
            let said = plan(&ground(), &Servers { is_paused: false, members });
            assert_eq!(
                said,
                Wish::Not("a server of the database has a name that is none".into()),
                "{name:?}"
            );
        }
    }
}
