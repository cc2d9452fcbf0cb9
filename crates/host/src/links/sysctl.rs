//! Kernel settings below `/proc/sys`. Those of network devices are the network namespace's of the thread that asks.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

fn path(setting: &str) -> io::Result<PathBuf> {
    let inside = !setting.starts_with('/') && setting.split('/').all(|part| !part.is_empty() && part != "..");
    inside
        .then(|| PathBuf::from("/proc/sys").join(setting))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a path below /proc/sys"))
}

/// Those of the settings that this kernel has.
pub(super) fn read(settings: &[String]) -> BTreeMap<String, String> {
    let value = |setting: &String| fs::read_to_string(path(setting).ok()?).ok();
    settings.iter().filter_map(|s| Some((s.clone(), value(s)?.trim().to_owned()))).collect()
}

/// Sets one.
pub(super) fn write(setting: &str, value: &str) -> io::Result<()> {
    fs::write(path(setting)?, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_are_read_and_written() {
        for bad in ["/etc/passwd", "../../etc/passwd", "net/../../../etc/passwd", "", "net//x"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
        assert_eq!(read(&["kernel/ostype".into(), "net/no/such".into()]).len(), 1);
    }
}
