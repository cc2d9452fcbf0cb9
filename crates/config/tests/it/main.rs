//! Tests of the configuration as a whole: text in, report out.

mod common;
mod coordinators;
mod example;
mod files;
mod rendered;
mod rubbish;
mod rules;
mod secrets;
