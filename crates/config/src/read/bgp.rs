//! `coordinator.bgp`: the site's routers, which are told where client networks are.

use std::net::IpAddr;

use crate::{
    diagnostic::{Diagnostic, Severity},
    kind,
    walk::{Found, Read, Section, Setting, Told, Walk},
};

/// More routers are no site's.
const MOST_ROUTERS: usize = 16;

/// The numbers of autonomous systems (RFC 6793, RFC 7300).
const ASN: std::ops::RangeInclusive<u32> = 1..=u32::MAX - 1;

/// What was read of it.
pub(crate) struct DraftSite {
    pub(crate) routers: Result<Vec<Found<IpAddr>>, Told>,
    pub(crate) routers_asn: Read<u32>,
    pub(crate) asn: Result<u32, Told>,
    pub(crate) bfd: Result<bool, Told>,
}

pub(super) fn bgp(walk: &mut Walk<'_>, coordinator: &Section) -> Result<Option<DraftSite>, Told> {
    let Some(section) = walk.optional_section(coordinator, "bgp")? else { return Ok(None) };
    Ok(Some(DraftSite {
        routers: routers(walk, &section),
        routers_asn: walk.required(&section, "routers_asn", &kind::whole(ASN, "")),
        asn: walk.defaulted(&section, "asn", &kind::whole(ASN, "")),
        bfd: walk.defaulted(&section, "bfd", &kind::switch()),
    }))
}

fn routers(walk: &mut Walk<'_>, section: &Section) -> Result<Vec<Found<IpAddr>>, Told> {
    let items = walk.list(section, "routers", "routers' addresses")?;
    if items.len() > MOST_ROUTERS {
        let whole = Setting { path: section.path_of("routers"), item: items[MOST_ROUTERS].item };
        let problem = format!("has {} entries", items.len());
        let diagnostic = Diagnostic {
            allowed: Some(format!("at most {MOST_ROUTERS}")),
            ..walk.about(Severity::Error, &whole, problem)
        };
        return Err(walk.tell(diagnostic));
    }
    let (mut all, mut refused) = (Vec::<Found<IpAddr>>::new(), None);
    for at in items {
        match walk.value(at.clone(), &kind::router()) {
            Ok(Some(found)) => match all.iter().find(|earlier| earlier.value == found.value) {
                Some(earlier) => {
                    let problem = format!("is named in line {} already", earlier.at.line());
                    let diagnostic = walk.about(Severity::Error, &found.at, problem);
                    refused = Some(walk.tell(diagnostic));
                }
                None => all.push(found),
            },
            Ok(None) => {
                let diagnostic = Diagnostic {
                    allowed: Some(kind::router().allowed),
                    ..walk.about(Severity::Error, &at, "is empty")
                };
                refused = Some(walk.tell(diagnostic));
            }
            Err(told) => refused = Some(told),
        }
    }
    refused.map_or(Ok(all), Err)
}
