//! What every BMC must do, whoever it is.

use std::{sync::Arc, time::Duration};

use pvc_host::power::{
    Bmc, Ipmitool, Power, PowerError, PowerState,
    fake::{FakePower, Off},
};

use crate::real::Simulator;

fn fake() -> (Arc<FakePower>, Bmc) {
    let power = FakePower::new();
    let _life = power.add("bmc1", "admin", "labpass");
    (power, Bmc { host: "bmc1".into(), port: 623, user: "admin".into(), password: "labpass".into() })
}

/// Off, on, off again, each observed, each also when it is so already.
async fn switches(power: &dyn Power, bmc: &Bmc) {
    assert_eq!(power.status(bmc).await, Ok(PowerState::On));
    for _ in 0..2 {
        assert_eq!(power.off(bmc).await, Ok(()));
        assert_eq!(power.status(bmc).await, Ok(PowerState::Off));
    }
    assert_eq!(power.reset(bmc).await, Ok(()), "a reset of what is off is accepted");
    assert_eq!(power.status(bmc).await, Ok(PowerState::Off), "and does nothing");
    for _ in 0..2 {
        assert_eq!(power.on(bmc).await, Ok(()));
        assert_eq!(power.status(bmc).await, Ok(PowerState::On));
    }
    assert_eq!(power.reset(bmc).await, Ok(()));
    assert_eq!(power.status(bmc).await, Ok(PowerState::On));
}

async fn refuses_strangers(power: &dyn Power, bmc: &Bmc) {
    let wrong = Bmc { password: "guesswork".into(), ..bmc.clone() };
    let stranger = Bmc { user: "nobody".into(), ..bmc.clone() };
    for bmc in [wrong, stranger] {
        let error = power.off(&bmc).await.unwrap_err();
        assert!(matches!(error, PowerError::WrongCredentials { .. }), "{error:?}");
        assert!(
            !format!("{error} {error:?} {bmc:?}").contains("guesswork"),
            "a password is shown: {error:?}"
        );
    }
    assert_eq!(power.status(bmc).await, Ok(PowerState::On), "nobody switched anything");
}

#[tokio::test(start_paused = true)]
async fn the_fake_switches() {
    let (power, bmc) = fake();
    switches(&*power, &bmc).await;
}

#[tokio::test]
async fn a_real_bmc_switches() {
    let simulator = Simulator::start();
    switches(&Ipmitool::default(), &simulator.bmc()).await;
}

#[tokio::test(start_paused = true)]
async fn the_fake_refuses_strangers() {
    let (power, bmc) = fake();
    refuses_strangers(&*power, &bmc).await;
}

#[tokio::test]
async fn a_real_bmc_refuses_strangers() {
    let simulator = Simulator::start();
    refuses_strangers(&Ipmitool::default(), &simulator.bmc()).await;
}

#[tokio::test(start_paused = true)]
async fn the_fake_lies_only_when_told_to() {
    let (power, bmc) = fake();
    power.set_off("bmc1", Off::TakesAWhile(Duration::from_secs(3)));
    power.off(&bmc).await.unwrap();
    assert_eq!(power.status(&bmc).await, Ok(PowerState::On), "accepted is not done");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(power.status(&bmc).await, Ok(PowerState::Off));
    power.plug("bmc1", true);
    power.set_off("bmc1", Off::Lies);
    power.off(&bmc).await.unwrap();
    assert_eq!(power.status(&bmc).await, Ok(PowerState::Off));
    assert!(power.is_on("bmc1"));
}
