//! What `nft list table` says, in a form that two listings of the same tables share: without what counters say, and with the elements of
//! sets in one order.

use std::collections::BTreeMap;

/// What a counter says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The sets, maps and chains, by table and name, without counts. Only to be compared with another's.
    pub standing: BTreeMap<String, String>,
    /// What the rules count, by chain, in their order: those of both tables have names of their own.
    pub counts: BTreeMap<String, Vec<Count>>,
}

impl Listing {
    /// Adds a table as it was listed.
    pub(super) fn add(&mut self, table: &str) {
        let (mut of, mut block, mut elements) = ("", String::new(), None::<String>);
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(header) = line.strip_suffix(" {") {
                if of.is_empty() {
                    of = header;
                }
                block = format!("{of} {header}");
                self.standing.entry(block.clone()).or_default();
            } else if let Some(first) = line.strip_prefix("elements = {") {
                self.elements(&block, &mut elements, String::new(), first);
            } else if let Some(before) = elements.take() {
                self.elements(&block, &mut elements, before, line);
            } else if line != "}" {
                let (line, count) = without_count(line);
                self.say(&block, &line);
                if let (Some((_, chain)), Some(count)) = (block.split_once(" chain "), count) {
                    self.counts.entry(chain.to_owned()).or_default().push(count);
                }
            }
        }
    }

    fn say(&mut self, block: &str, line: &str) {
        let text = self.standing.entry(block.to_owned()).or_default();
        text.push_str(line);
        text.push('\n');
    }

    /// Gathers the elements of a set over its lines.
    fn elements(&mut self, block: &str, unfinished: &mut Option<String>, mut text: String, line: &str) {
        text.push_str(line.trim_end_matches('}'));
        if !line.ends_with('}') {
            *unfinished = Some(text);
            return;
        }
        let mut all: Vec<&str> = text.split(',').map(str::trim).filter(|e| !e.is_empty()).collect();
        all.sort_unstable();
        self.say(block, &all.join("\n"));
    }
}

/// `… counter packets 3 bytes 252 accept` is `… counter accept`, and what it counted.
fn without_count(line: &str) -> (String, Option<Count>) {
    let words: Vec<&str> = line.split(' ').collect();
    let at = words.windows(5).position(|w| w[0] == "counter" && w[1] == "packets" && w[3] == "bytes");
    let count = at.and_then(|at| {
        Some((at, Count { packets: words[at + 2].parse().ok()?, bytes: words[at + 4].parse().ok()? }))
    });
    match count {
        None => (line.to_owned(), None),
        Some((at, count)) => ([&words[..=at], &words[at + 5..]].concat().join(" "), Some(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "table inet pvc {
	set ends4 {
		type ipv4_addr
		elements = { 10.0.0.2,
			     10.0.0.1 }
	}

	chain n100_in {
		tcp dport 22 counter packets 3 bytes 252 accept
		counter packets 1 bytes 60
	}
}
";

    fn listing(table: &str) -> Listing {
        let mut listing = Listing::default();
        listing.add(table);
        listing
    }

    #[test]
    fn the_order_of_elements_and_what_was_counted_make_no_difference() {
        let other = TABLE
            .replace("10.0.0.2,\n\t\t\t     10.0.0.1", "10.0.0.1, 10.0.0.2")
            .replace("packets 3", "packets 4");
        assert_eq!(listing(TABLE).standing, listing(&other).standing);
        for other in [
            TABLE.replace("10.0.0.2", "10.0.0.3"),
            TABLE.replace("22", "23"),
            TABLE.replace("accept", "drop"),
        ] {
            assert_ne!(listing(TABLE).standing, listing(&other).standing, "{other}");
        }
    }

    #[test]
    fn counts_are_told_by_chain() {
        let counts = [Count { packets: 3, bytes: 252 }, Count { packets: 1, bytes: 60 }];
        assert_eq!(listing(TABLE).counts["n100_in"], counts);
    }
}
