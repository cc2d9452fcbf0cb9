//! Memory and vCPUs as libvirt reads them: its units, its defaults, its idea of what is a number.

use super::{
    DomainError,
    read::{Element, excerpt},
};

const MIB: u128 = 1024 * 1024;
const UNITS: &str = "use b, KB, KiB, MB, MiB, GB, GiB, TB or TiB";

/// `<memory>` in MiB, rounded up; if it is absent, the sum of the NUMA cells.
pub(super) fn memory_mib(root: Element<'_>) -> Result<u64, DomainError> {
    let element = root.at("memory");
    let stated = match root.child("memory") {
        Some(memory) => scaled(memory, &memory.text(), memory.attribute("unit"))?,
        None => 0,
    };
    let bytes = if stated > 0 { stated } else { numa_bytes(root)? };
    if bytes == 0 {
        return Err(element.error("there is no memory size", "add <memory unit='MiB'>…</memory>"));
    }
    u64::try_from(bytes.div_ceil(MIB)).map_err(|_| too_large(element))
}

/// `<vcpu>`; libvirt takes 1 if there is none.
pub(super) fn vcpus(root: Element<'_>) -> Result<u32, DomainError> {
    let Some(vcpu) = root.child("vcpu") else {
        return Ok(1);
    };
    let text = vcpu.text();
    match text.parse() {
        Ok(0) => Err(vcpu.error("<vcpu> is 0", "give at least 1")),
        Ok(count) => Ok(count),
        Err(_) => Err(vcpu.error(
            format!("<vcpu> is {}, which is no number", excerpt(&text)),
            "write the number alone, without spaces, as in <vcpu>2</vcpu>",
        )),
    }
}

fn numa_bytes(root: Element<'_>) -> Result<u128, DomainError> {
    let Some(numa) = root.child("cpu").and_then(|cpu| cpu.child("numa")) else {
        return Ok(0);
    };
    numa.children("cell").try_fold(0, |sum: u128, cell| {
        let bytes = scaled(cell, cell.attribute("memory").unwrap_or_default(), cell.attribute("unit"))?;
        Ok(sum.saturating_add(bytes))
    })
}

/// A size in bytes. Nothing at all counts as 0, as in libvirt.
fn scaled(element: Element<'_>, text: &str, unit: Option<&str>) -> Result<u128, DomainError> {
    let digits = text.trim_start();
    if digits.is_empty() {
        return Ok(0);
    }
    let number: u64 = digits.parse().map_err(|_| {
        element.error(
            format!("the memory size is {}, which is no number", excerpt(text)),
            "write a whole number alone, as in <memory unit='MiB'>1024</memory>",
        )
    })?;
    let scale = match unit {
        None | Some("") => 1024,
        Some(unit) => scale_of(unit)
            .ok_or_else(|| element.error(format!("the memory unit {} is unknown", excerpt(unit)), UNITS))?,
    };
    let bytes = u128::from(number).saturating_mul(scale);
    if bytes > u128::from(u64::MAX) { Err(too_large(element)) } else { Ok(bytes) }
}

/// Bytes in one unit: `virScaleInteger` of libvirt, upper and lower case alike.
fn scale_of(unit: &str) -> Option<u128> {
    let unit = unit.to_ascii_lowercase();
    if ["b", "byte", "bytes"].contains(&unit.as_str()) {
        return Some(1);
    }
    let mut letters = unit.chars();
    let power = u32::try_from("kmgtpe".find(letters.next()?)?).ok()? + 1;
    match letters.as_str() {
        "" | "ib" => Some(1024_u128.pow(power)),
        "b" => Some(1000_u128.pow(power)),
        _ => None,
    }
}

fn too_large(element: Element<'_>) -> DomainError {
    element.error("the memory size is too large", "no machine has this much; correct number and unit")
}
