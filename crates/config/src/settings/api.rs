//! The settings of `pvc-api.yaml`.

use super::{Schema, Section, below, default, optional, required};

pub(crate) const API: Schema = Schema(SECTIONS);

const SECTIONS: &[Section] = &[
    Section {
        path: "",
        settings: &[
            default("debug", "False", "Log more than one wants to read every day."),
            below("coordinators"),
            below("api"),
        ],
    },
    Section {
        path: "api",
        settings: &[
            required(
                "listen_address",
                "The IP address to listen on. `0.0.0.0` and `::` are all of this machine's, the floating addresses \
             included. Refused beyond loopback without authentication, see `open`.",
            ),
            default("listen_port", "7370", "The port, 1 to 65535."),
            below("authentication"),
            below("ssl"),
        ],
    },
    Section {
        path: "api.authentication",
        settings: &[
            required("enabled", "Every call but the greeting and the login takes a token."),
            optional(
                "secret_key",
                "What signs the cookies of sessions. The same on all coordinators, a session survives a hand-over of \
             the primary; empty or absent, each start of the service ends all sessions.",
            ),
            default(
                "open",
                "False",
                "Listen beyond loopback although authentication is off: whoever reaches the port commands the \
             cluster. Without it that is refused, with it a warning.",
            )
            .ours(),
            below("tokens"),
        ],
    },
    Section {
        path: "api.authentication.tokens",
        settings: &[
            required("description", "Who has the token: what the log calls who made a change."),
            required(
                "token",
                "The token, or `sha256:` and its SHA-256 in 64 hexadecimal digits **(ours)**. Warning if a token in \
             plain text has fewer than 16 characters.",
            ),
            default(
                "role",
                "admin",
                "What the token is good for: `read`, `operate`, which also has VMs run and moves them, or `admin`, which \
             also defines, changes and removes.",
            )
            .ours(),
        ],
    },
    Section {
        path: "api.ssl",
        settings: &[
            default("enabled", "False", "Speak TLS 1.2 and 1.3, and nothing without."),
            optional(
                "cert_file",
                "The certificate with its chain, in PEM; required with `enabled`. A pair that is replaced is served within 10 s.",
            ),
            optional("key_file", "Its key, in PEM; required with `enabled`. The service's user has to be able to read it."),
        ],
    },
];
