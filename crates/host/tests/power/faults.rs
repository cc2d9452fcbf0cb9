//! What goes wrong with real BMCs.

use std::{
    fs,
    net::UdpSocket,
    time::{Duration, Instant},
};

use pvc_host::power::{Bmc, Ipmitool, Power, PowerError, PowerState};

use crate::real::Simulator;

#[tokio::test]
async fn a_bmc_that_does_not_answer_is_unreachable_within_some_seconds() {
    // Somebody listens, and says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let bmc = Bmc { host: "127.0.0.1".into(), port, user: "admin".into(), password: "labpass".into() };
    let began = Instant::now();
    let error = Ipmitool::default().status(&bmc).await.unwrap_err();
    assert!(matches!(error, PowerError::Unreachable { .. } | PowerError::TimedOut { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "took {:?}", began.elapsed());
}

#[tokio::test]
async fn a_bmc_whose_name_is_not_known_is_unreachable() {
    let bmc = Bmc { host: "bmc.invalid".into(), port: 623, user: "admin".into(), password: "labpass".into() };
    let error = Ipmitool::default().off(&bmc).await.unwrap_err();
    assert!(matches!(error, PowerError::Unreachable { .. } | PowerError::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn only_the_configured_cipher_suite_is_tried() {
    let simulator = Simulator::start();
    // The simulator knows 0 to 3 only.
    let error = Ipmitool::new(Some(17)).status(&simulator.bmc()).await.unwrap_err();
    assert!(matches!(error, PowerError::Unreachable { .. }), "{error:?}");
    assert_eq!(Ipmitool::new(Some(3)).status(&simulator.bmc()).await, Ok(PowerState::On));
}

#[tokio::test]
async fn a_machine_that_stays_on_after_off_was_accepted_is_told_to_be_on() {
    let simulator = Simulator::start();
    fs::write(simulator.file("power.stuck"), "").unwrap();
    let power = Ipmitool::default();
    assert_eq!(power.off(&simulator.bmc()).await, Ok(()));
    assert_eq!(power.status(&simulator.bmc()).await, Ok(PowerState::On));
}

#[tokio::test]
async fn a_bmc_that_takes_two_seconds_for_a_command_is_waited_for() {
    let simulator = Simulator::start();
    fs::write(simulator.file("power.slow"), "2.3").unwrap();
    let power = Ipmitool::default();
    assert_eq!(power.off(&simulator.bmc()).await, Ok(()));
    assert_eq!(power.status(&simulator.bmc()).await, Ok(PowerState::Off));
}

#[tokio::test]
async fn a_command_that_is_not_answered_in_time_may_have_been_carried_out_and_is_not_refused() {
    let simulator = Simulator::start();
    fs::write(simulator.file("power.slow"), "15").unwrap();
    let error = Ipmitool::default().off(&simulator.bmc()).await.unwrap_err();
    assert!(matches!(error, PowerError::Unreachable { .. } | PowerError::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn the_password_is_on_no_command_line() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let bmc = Bmc { host: "127.0.0.1".into(), port, user: "ha2-admin".into(), password: "hushhush".into() };
    let asking = tokio::spawn(async move { Ipmitool::default().status(&bmc).await });
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut seen = Vec::new();
    while seen.is_empty() {
        assert!(Instant::now() < deadline, "ipmitool was not seen running");
        seen = command_lines().into_iter().filter(|line| line.contains("ha2-admin")).collect();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!command_lines().iter().any(|line| line.contains("hushhush")), "{seen:?}");
    asking.await.unwrap().unwrap_err();
}

fn command_lines() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
}
