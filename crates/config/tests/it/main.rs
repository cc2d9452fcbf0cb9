//! Tests of the configuration as a whole: text in, report out.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]
#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    reason = "texts of tests are short, or made once"
)]

mod api;
mod bgp;
mod common;
mod coordinators;
mod example;
mod files;
mod relations;
mod rendered;
mod rubbish;
mod rules;
mod secrets;
