//! The words of nftables that a rule of a client network may have. What changes packets, or sends them elsewhere than to the next rule, is
//! not among them; nor are names that `nft` would look up in the node's files.

/// What ends a rule.
pub(super) fn is_verdict(word: &str) -> bool {
    ["accept", "drop", "reject", "return"].contains(&word)
}

/// What may follow `reject`.
pub(super) fn is_reason(word: &str) -> bool {
    REASONS.contains(&word)
}

/// What may stand before the verdict.
pub(super) fn is_allowed(word: &str) -> bool {
    WORDS.contains(&word)
}

/// The units of a rate.
pub(super) const UNITS: [&str; 4] = ["second", "minute", "hour", "day"];

const REASONS: [&str; 13] = [
    "with",
    "icmp",
    "icmpv6",
    "icmpx",
    "type",
    "tcp",
    "reset",
    "net-unreachable",
    "host-unreachable",
    "port-unreachable",
    "admin-prohibited",
    "no-route",
    "addr-unreachable",
];

#[rustfmt::skip]
const WORDS: [&str; 78] = [
    // Comparisons.
    "==", "!=", "<", ">", "<=", ">=", ",",
    // Headers and their fields.
    "ip", "ip6", "tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", "th", "esp", "ah",
    "saddr", "daddr", "sport", "dport", "protocol", "nexthdr", "hoplimit", "ttl", "dscp", "length", "type", "code",
    "flags", "fin", "syn", "rst", "psh", "ack", "urg",
    // Of the packet and its connection.
    "meta", "l4proto", "nfproto", "ipv4", "ipv6",
    "ct", "state", "status", "new", "established", "related", "invalid", "untracked", "assured", "confirmed",
    // Protocols by their names.
    "ipv6-icmp", "gre", "igmp", "ospf",
    // Kinds of ICMP.
    "echo-request", "echo-reply", "destination-unreachable", "time-exceeded", "parameter-problem", "packet-too-big",
    "source-quench", "timestamp-request", "timestamp-reply",
    "nd-neighbor-solicit", "nd-neighbor-advert", "nd-router-solicit", "nd-router-advert",
    // How often.
    "limit", "rate", "over", "burst", "packets", "bytes", "kbytes", "mbytes",
];
