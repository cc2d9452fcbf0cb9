//! All settings of each file: where each belongs, whether it may be absent, and what the manual says of it. What is known where, the defaults and the
//! tables in `docs/manual` come from here. A new setting is a row here, and a field where its section is read.

mod api;

pub(crate) use api::API;

/// A section of a file; `*` in its path stands for the name of a network.
struct Section {
    path: &'static str,
    settings: &'static [Setting],
}

/// A setting, or a part of a section that has settings of its own.
#[cfg_attr(not(test), allow(dead_code, reason = "the manual's tables are made by a test"))]
struct Setting {
    name: &'static str,
    presence: Presence,
    /// Clients and daemons of the 0.5 generation do not know it.
    ours: bool,
    /// What the manual says of it. Empty: it has a chapter there.
    meaning: &'static str,
}

enum Presence {
    Required,
    Optional,
    /// As it would be written in the file.
    Default(&'static str),
}

const fn required(name: &'static str, meaning: &'static str) -> Setting {
    Setting { name, presence: Presence::Required, ours: false, meaning }
}

const fn optional(name: &'static str, meaning: &'static str) -> Setting {
    Setting { name, presence: Presence::Optional, ours: false, meaning }
}

const fn default(name: &'static str, value: &'static str, meaning: &'static str) -> Setting {
    Setting { name, presence: Presence::Default(value), ours: false, meaning }
}

/// A list, or a section of its own.
const fn below(name: &'static str) -> Setting {
    optional(name, "")
}

impl Setting {
    const fn ours(self) -> Self {
        Self { ours: true, ..self }
    }
}

const INTERVALS: &[Setting] = &[
    required(
        "keepalive_interval",
        "Seconds between keepalives, 1 to 3600. 5 is usual, 10 to 30 for slow nodes. Nodes may differ: each \
             is measured by its own, and `pvc status` names those that do.",
    ),
    required(
        "fence_intervals",
        "Missed keepalives before the other nodes take this one for dead and fence it, 0 to 10000. 6 is \
             usual; 0 disables fencing.",
    ),
    required(
        "suicide_intervals",
        "Missed keepalives before this node resets itself, 0 to 10000. 0, which is usual, disables that.",
    ),
];

/// All sections.
const SECTIONS: &[Section] = &[
    Section {
        path: "",
        settings: &[
            default("debug", "False", "Log more than one wants to read every day."),
            required(
                "node",
                "This node's short host name: letters, digits, inner hyphens, at most 63 characters, no domain, not \
             `none`.",
            ),
            below("functions"),
            below("cluster"),
            below("coordinator"),
            below("system"),
        ],
    },
    Section {
        path: "functions",
        settings: &[
            required("enable_hypervisor", "This node runs virtual machines."),
            required(
                "enable_networking",
                "This node manages client networks. Requires `cluster.networks`, `coordinator` and \
             `system.configuration.networking`, which may be absent only if this is `False`.",
            ),
            required("enable_storage", "This node manages virtual storage."),
            default(
                "enable_api",
                "False",
                "This node serves the API on the cluster's floating addresses while it is primary. Warning if no \
             network has a `floating_ip` or `floating_ip6`.",
            ),
        ],
    },
    Section { path: "cluster", settings: &[below("coordinators"), below("networks")] },
    Section { path: "cluster.networks", settings: &[below("upstream"), below("cluster"), below("storage")] },
    Section {
        path: "cluster.networks.*",
        settings: &[
            required(
                "domain",
                "The network's domain name, or `None`. For `upstream`, the domain of the nodes' host names.",
            ),
            optional(
                "network",
                "The IPv4 network in CIDR notation, such as `10.255.0.0/24`, host bits zero. Needed by `floating_ip`, \
             `gateway` and `by-id`.",
            ),
            optional(
                "floating_ip",
                "The address that the primary coordinator holds, in CIDR notation, such as `10.255.0.254/24`. Warning \
             if its prefix length is not the network's.",
            ),
            optional(
                "gateway",
                "The network's gateway: an IPv4 address without prefix length. Usually for `upstream` only.",
            ),
            optional(
                "network6",
                "The IPv6 network in CIDR notation, such as `fd00:255::/64`, host bits zero: the site's own prefix, \
             or a unique local one. Needed by `floating_ip6`.",
            ).ours(),
            optional(
                "floating_ip6",
                "A second floating address, in CIDR notation, such as `fd00:255::fe/64`: it moves with the primary as \
             `floating_ip` does. Warning if its prefix length is not the network's.",
            ).ours(),
        ],
    },
    Section { path: "coordinator", settings: &[below("dns"), below("bgp").ours()] },
    Section { path: "coordinator.dns", settings: &[below("database")] },
    Section {
        path: "coordinator.dns.database",
        settings: &[
            required("host", "Host name or IP address; `localhost` except in unusual set-ups."),
            required("port", "1 to 65535; usually 5432."),
            required("name", "The database; usually `pvcdns`."),
            required("user", "User name."),
            required("pass", "Password."),
        ],
    },
    Section {
        path: "coordinator.bgp",
        settings: &[
            required(
                "routers",
                "A list of the site's routers, 1 to 16 IPv4 or IPv6 addresses. Each is on one wire with the coordinators: \
             refused on a coordinator if an IPv4 address is in no network in which the node has an `address`.",
            ).ours(),
            required(
                "routers_asn",
                "The routers' autonomous system, 1 to 4294967294, another than `asn` and than 65500, which the nodes are among \
             themselves.",
            ).ours(),
            default("asn", "65500", "The autonomous system that the routers know the cluster by, 1 to 4294967294.").ours(),
            default(
                "bfd",
                "False",
                "Find out by BFD within a second that a router or node is dead. The routers must speak it, and FRR's `bfdd` run.",
            ).ours(),
        ],
    },
    Section {
        path: "system",
        settings: &[below("intervals"), below("fencing"), below("migration"), below("configuration")],
    },
    Section { path: "system.intervals", settings: INTERVALS },
    Section { path: "system.fencing", settings: &[below("intervals"), below("actions"), below("ipmi")] },
    Section { path: "system.fencing.intervals", settings: INTERVALS },
    Section {
        path: "system.fencing.actions",
        settings: &[
            required(
                "successful_fence",
                "What happens to a node's VMs once it was fenced: `migrate` (they start on other nodes; usual) or \
             `None` (nothing).",
            ),
            required("failed_fence", "The same once fencing failed: `None` (usual) or `migrate`."),
        ],
    },
    Section {
        path: "system.fencing.ipmi",
        settings: &[
            required("host", "Host name or IP address of this node's BMC, reachable from the other nodes."),
            required("user", "A user who may reset the machine."),
            required("pass", "Its password. Warning above 20 bytes, which IPMI does not allow."),
            optional(
                "cipher_suite",
                "The only IPMI cipher suite that this node uses with the other nodes' BMCs, 1 to 17. Without it: 3, \
             and 17 where that is refused; the one that works is remembered.",
            ).ours(),
        ],
    },
    Section {
        path: "system.migration",
        settings: &[
            required(
                "target_selector",
                "Where VMs go that leave this node: `mem` (least memory allocated to VMs), `vcpus` (least vCPUs \
             allocated), `load` (least load average) or `vms` (fewest VMs).",
            ),
            default(
                "outgoing_limit",
                "4",
                "How many VMs leave one node at once in a flush or an unflush that this node carries out; 1 to 32.",
            ).ours(),
            default(
                "incoming_limit",
                "4",
                "How many VMs arrive at one node at once in a flush or an unflush that this node carries out; 1 to \
             32.",
            ).ours(),
        ],
    },
    Section {
        path: "system.configuration",
        settings: &[below("directories"), below("logging"), below("metrics"), below("networking")],
    },
    Section {
        path: "system.configuration.directories",
        settings: &[
            required("dynamic_directory", "Ephemeral configuration files; usually `/run/pvc`."),
            required(
                "log_directory",
                "The daemon's log, if `file_logging`; usually `/var/log/pvc`. Required though unused if not.",
            ),
            required("console_log_directory", "VM console logs; usually `/var/log/libvirt`."),
        ],
    },
    Section {
        path: "system.configuration.logging",
        settings: &[
            required("file_logging", "Log to a file in `log_directory`."),
            required("stdout_logging", "Log to standard output, which systemd's journal captures."),
            required("log_colours", "Colour the log (ANSI sequences)."),
            required("log_dates", "Date and time on each line."),
            required("log_keepalives", "A line for each keepalive."),
            required("log_keepalive_cluster_details", "Node status with the keepalives."),
            required("log_keepalive_storage_details", "Storage status with the keepalives."),
            required(
                "console_log_lines",
                "Lines of each VM's console kept in ZooKeeper: 0 (none) to 1000000. What would not fit in a ZooKeeper \
             key is cut off at the top.",
            ),
            default(
                "console_log_vm_rate",
                "64",
                "KiB a second of each VM's console log that are written to ZooKeeper, averaged over a minute: 1 to \
             1000000. The more a log weighs the less often it is written; what is kept is the same.",
            ).ours(),
            default("console_log_node_rate", "256", "The same of all VMs of the node together.").ours(),
        ],
    },
    Section {
        path: "system.configuration.metrics",
        settings: &[optional(
            "listen",
            "A loopback address with port, such as `127.0.0.1:9470` or `[::1]:9470`, where `GET /metrics` is \
             answered; without it, nowhere. Another address is refused: figures are told without a password.",
        ).ours()],
    },
    Section {
        path: "system.configuration.networking",
        settings: &[below("upstream"), below("cluster"), below("storage")],
    },
    Section {
        path: "system.configuration.networking.*",
        settings: &[
            required(
                "device",
                "The raw Linux network device, such as `ens4`: at most 15 characters. Several networks may share one.",
            ),
            required(
                "mtu",
                "The device's MTU, 576 to 65535 bytes. Networks on one device must agree. Refused below 1280 where \
             the network has a `network6`. Warning for `cluster` below 1330: client networks have 50 bytes less, \
             and IPv6 needs 1280.",
            ),
            required(
                "address",
                "This node's address: `None`; `by-id`; or an IPv4 address in CIDR notation, such as `10.255.0.11/24`.",
            ),
        ],
    },
];

/// The settings of one file.
#[derive(Clone, Copy)]
pub(crate) struct Schema(&'static [Section]);

/// `pvcd.yaml`.
pub(crate) const DAEMON: Schema = Schema(SECTIONS);

/// Longer names are nobody's slip of the pen.
const LONGEST: usize = 48;

impl Schema {
    /// The settings of a section. `path` names networks by their names.
    fn settings(self, path: &str) -> &'static [Setting] {
        // The entries of a list are known by the list's name.
        let segments = || path.split('.').map(|segment| segment.split('[').next().unwrap_or_default());
        let is = |section: &&Section| {
            section.path.split('.').count() == segments().count()
                && section.path.split('.').zip(segments()).all(|(own, segment)| own == "*" || own == segment)
        };
        // The exact one: `cluster.networks.cluster` is no section of that name.
        self.0.iter().find(is).map_or(&[], |section| section.settings)
    }

    /// The names that are known in a section.
    pub(crate) fn known(self, path: &str) -> Vec<&'static str> {
        self.settings(path).iter().map(|setting| setting.name).collect()
    }

    /// What is allowed where the section of that path is asked for.
    pub(crate) fn a_section(self, path: &str) -> String {
        format!("a section with {}", self.known(path).join(", "))
    }

    /// What a setting is where it is absent, as it would be written.
    pub(crate) fn default_of(self, path: &str, name: &str) -> Option<&'static str> {
        let setting = self.settings(path).iter().find(|setting| setting.name == name)?;
        match setting.presence {
            Presence::Default(text) => Some(text),
            Presence::Required | Presence::Optional => None,
        }
    }

    /// The known name that `name` in `section` was probably meant for: a similar one here, or the same one elsewhere.
    pub(crate) fn nearest(self, section: &str, name: &str, known: &[&str]) -> Option<String> {
        let plain = name.to_ascii_lowercase().replace('-', "_");
        if name.is_empty() || name.len() > LONGEST {
            return None;
        }
        let near = known.iter().map(|k| (strsim::osa_distance(&plain, k), *k)).min();
        if let Some((distance, near)) = near
            && distance <= near.len().div_ceil(3).min(3)
        {
            return Some(near.to_owned());
        }
        let has = |other: &&Section| {
            other.path != section && other.settings.iter().any(|setting| setting.name == plain)
        };
        self.0.iter().find(has).map(|other| {
            let path = if other.path.is_empty() { String::new() } else { format!("{}.", other.path) };
            format!("{path}{plain}").replace('*', "<network>")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fmt::Write as _, fs};

    use super::*;

    /// Each file's settings, and the page of the manual that describes them.
    const PAGES: [(Schema, &str); 2] = [(DAEMON, "configuration.md"), (API, "api.md")];

    fn path(page: &str) -> String {
        format!("{}/../../docs/manual/{page}", env!("CARGO_MANIFEST_DIR"))
    }

    /// The manual's table of a section; `None` where all of it has chapters.
    fn table(section: &Section) -> Option<String> {
        let mut table = "| setting | | meaning and values |\n|---|---|---|\n".to_owned();
        let rows = section.settings.iter().filter(|setting| !setting.meaning.is_empty());
        let mut some = false;
        for Setting { name, presence, ours, meaning } in rows {
            let presence = match presence {
                Presence::Required => "required".to_owned(),
                Presence::Optional => "optional".to_owned(),
                Presence::Default(value) => format!("default `{value}`"),
            };
            let ours = if *ours { " **(ours)**" } else { "" };
            writeln!(table, "| `{name}` | {presence}{ours} | {meaning} |").unwrap();
            some = true;
        }
        some.then_some(table)
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the manual is a file")]
    fn the_manuals_tables_are_the_ones_made_from_here() {
        for (schema, page) in PAGES {
            let manual = fs::read_to_string(path(page)).unwrap();
            let mut made = manual.clone();
            // Intervals are in two places, and described once.
            for section in schema.0.iter().filter(|section| section.path != "system.intervals") {
                let Some(table) = table(section) else { continue };
                let name = if section.path.is_empty() { "pvc" } else { section.path };
                let mark = format!("<!-- settings of {name} -->\n");
                let begin = made.find(&mark).unwrap_or_else(|| panic!("{page}: no {mark}")) + mark.len();
                let end = begin
                    + made[begin..].find("\n\n").unwrap_or_else(|| panic!("{page}: no end after {mark}"))
                    + 1;
                made.replace_range(begin..end, &table);
            }
            if env::var_os("UPDATE_MANUAL").is_some() {
                fs::write(path(page), &made).unwrap();
            } else {
                assert!(
                    made == manual,
                    "{page} is stale: UPDATE_MANUAL=1 cargo nextest run -p pvc-config the_manuals_tables"
                );
            }
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the manual is a file")]
    fn what_has_no_table_has_a_chapter() {
        for (schema, page) in PAGES {
            let manual = fs::read_to_string(path(page)).unwrap();
            for section in schema.0 {
                for Setting { name, .. } in section.settings.iter().filter(|s| s.meaning.is_empty()) {
                    assert!(manual.contains(name), "{page}: {}.{name}", section.path);
                }
            }
        }
    }

    #[test]
    fn a_section_of_a_network_is_known_by_any_networks_name() {
        assert_eq!(DAEMON.known("cluster.networks.cluster")[0], "domain");
        assert_eq!(DAEMON.known("cluster.networks"), ["upstream", "cluster", "storage"]);
        assert_eq!(DAEMON.known("system.configuration.networking.upstream"), ["device", "mtu", "address"]);
        assert_eq!(DAEMON.known("nothing.like.this"), [""; 0]);
        assert_eq!(DAEMON.default_of("functions", "enable_api"), Some("False"));
        assert_eq!(DAEMON.default_of("functions", "enable_storage"), None);
    }

    #[test]
    fn a_slip_of_the_pen_finds_the_name_it_was_meant_for() {
        for (section, name, nearest_name) in [
            ("system.fencing.intervals", "keepalive_intervall", Some("keepalive_interval")),
            ("functions", "enable-api", Some("enable_api")),
            ("functions", "Enable_API", Some("enable_api")),
            ("system.fencing.ipmi", "pas", Some("pass")),
            ("system.fencing", "keepalive_interval", Some("system.intervals.keepalive_interval")),
            ("system", "mtu", Some("system.configuration.networking.<network>.mtu")),
            ("system", "node", Some("node")),
            ("system", "colour_of_the_rack", None),
            ("", "", None),
        ] {
            assert_eq!(
                DAEMON.nearest(section, name, &DAEMON.known(section)).as_deref(),
                nearest_name,
                "{name}"
            );
        }
    }
}
