//! The nodes' BMCs: OpenIPMI's simulator on an address of its own, whose power button is the capsule's.
//! Knows cipher suites 0 to 3 only: clients say `-C 3`.

use std::{fmt::Write, fs, os::unix::fs::PermissionsExt, process::Stdio, thread, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    devices::control::{Behaviour, Button, Machine, Request, ask},
    devices::network,
    layout::{BMC_PASSWORD, BMC_USER, Layout, NodeNumber},
    program::command,
};

/// ipmi_sim waits for us and answers nothing meanwhile.
const DEADLINE: Duration = Duration::from_secs(30);

/// Starts the BMC of `node`. Runs in the capsule.
pub fn start(layout: &Layout, node: NodeNumber) -> Result<()> {
    let folder = layout.bmc(node);
    fs::create_dir_all(folder.join("state"))?;
    network::plug_bmc(node)?;
    let lan = folder.join("lan.conf");
    let emulator = folder.join("sim.emu");
    fs::write(&lan, lan_conf(layout, node))?;
    fs::set_permissions(&lan, fs::Permissions::from_mode(0o600))?;
    fs::write(
        &emulator,
        "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
         sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n",
    )?;
    let log = fs::File::create(folder.join("bmc.log"))?;
    command("/usr/bin/nsenter")
        .arg(format!("--net=/run/netns/{}", node.bmc_namespace()))
        .args(["--", "/usr/bin/ipmi_sim", "-n", "-c"])
        .arg(&lan)
        .arg("-f")
        .arg(&emulator)
        .arg("-s")
        .arg(folder.join("state"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("could not start ipmi_sim")?;
    Ok(())
}

fn lan_conf(layout: &Layout, node: NodeNumber) -> String {
    let mut text = format!(
        "name \"{port}\"\nset_working_mc 0x20\n  startlan 1\n    addr {address} 623\n    priv_limit admin\n",
        port = node.bmc_port(),
        address = node.bmc_address(),
    );
    for level in ["callback", "user", "operator", "admin"] {
        let _ = writeln!(text, "    allowed_auths_{level} none md2 md5 straight");
    }
    text + &format!(
        "    guid {guid:032x}\n  endlan\n  chassis_control \"{executable} internal chassis {lab} {node}\"\n  \
         user 1 true \"\" \"{BMC_PASSWORD}\" user 10 none md2 md5 straight\n  \
         user 2 true \"{BMC_USER}\" \"{BMC_PASSWORD}\" admin 10 none md2 md5 straight\n",
        guid = node.get(),
        executable = layout.program().display(),
        lab = layout.name(),
    )
}

/// What ipmi_sim runs for `get PARM…` and `set PARM VALUE…`: asks the capsule, prints `parm:value` for what was got.
pub fn chassis(layout: &Layout, node: NodeNumber, arguments: &[String]) -> Result<()> {
    let number = node.get();
    let ask = |request| ask(&layout.control(), request, DEADLINE);
    let look =
        || -> Result<Machine> { Ok(ask(Request::Status)?.nodes.get(&number).copied().unwrap_or_default()) };
    let mut machine = look()?;
    if let Behaviour::Slow { ms } = machine.bmc {
        thread::sleep(Duration::from_millis(ms.into()));
        machine = look()?;
    }
    let press = |button| -> Result<()> {
        if button == Button::Off && machine.bmc == Behaviour::OnlyResets {
            bail!("this BMC only resets");
        }
        if machine.bmc.acts() {
            ask(Request::ByBmc(number, button))?;
        }
        Ok(())
    };
    let mut words = arguments.iter().map(String::as_str);
    let setting = match words.next() {
        Some("get") => false,
        Some("set") => true,
        other => bail!("neither get nor set: {other:?}"),
    };
    while let Some(name) = words.next() {
        match (setting, name) {
            (false, "power") => println!("power:{}", u8::from(machine.on && machine.bmc != Behaviour::Liar)),
            (false, "boot") => println!("boot:default"),
            (false, other) => println!("{other}:0"),
            (true, "power") => press(if words.next() == Some("1") { Button::On } else { Button::Off })?,
            (true, "reset") => {
                words.next();
                press(Button::Reset)?;
            }
            (true, "shutdown") => {
                words.next();
                press(Button::Soft)?;
            }
            (true, "identify") => {
                words.nth(1);
            }
            (true, _) => {
                words.next();
            }
        }
    }
    Ok(())
}
