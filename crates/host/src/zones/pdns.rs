//! What PowerDNS is told: where its database is, and where to listen.
//!
//! All of it is in a file that nobody but its user can read, since the database's password is there: arguments are for all to see.

use std::{
    fmt::Write as _,
    fs, io,
    io::Write as _,
    net::IpAddr,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::Path,
};

use super::Address;

/// The server's program.
pub const PROGRAM: &str = "pdns_server";

/// Debian's user for it.
pub const USER: &str = "pdns";

/// A setting cannot be said in PowerDNS' configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} has a character that PowerDNS cannot be told: a control character, '#', or a backslash or space at its end"
)]
pub struct Unsayable(&'static str);

/// The server's configuration. The addresses may come and go while it runs: it listens on them even before they are this machine's, so that a
/// hand-over of the primary moves addresses and starts nothing.
///
/// # Errors
/// If something in the database's address would be read as something else.
pub fn settings(
    database: &Address<'_>,
    listen: &[IpAddr],
    port: u16,
    folder: &Path,
) -> Result<String, Unsayable> {
    let mut text = String::new();
    let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
    let words = [
        ("launch", "gpgsql".to_owned(), "the backend"),
        ("gpgsql-host", database.host.to_owned(), "the database's host"),
        ("gpgsql-port", database.port.to_string(), "the database's port"),
        ("gpgsql-dbname", database.name.to_owned(), "the database's name"),
        ("gpgsql-user", database.user.to_owned(), "the database's user"),
        ("gpgsql-password", database.password.to_owned(), "the database's password"),
        ("gpgsql-dnssec", "no".into(), "a switch"),
        ("local-address", listen.join(","), "an address"),
        ("local-port", port.to_string(), "a port"),
        ("non-local-bind", "yes".into(), "a switch"),
        ("socket-dir", folder.display().to_string(), "the folder dynamic_directory"),
        // A name is there as soon as it is written.
        ("cache-ttl", "0".into(), "a time"),
        ("query-cache-ttl", "0".into(), "a time"),
        ("negquery-cache-ttl", "0".into(), "a time"),
        ("zone-cache-refresh-interval", "0".into(), "a time"),
        ("disable-axfr", "yes".into(), "a switch"),
        ("security-poll-suffix", String::new(), "a name"),
        ("version-string", "anonymous".into(), "a word"),
        ("daemon", "no".into(), "a switch"),
        ("guardian", "no".into(), "a switch"),
        ("write-pid", "no".into(), "a switch"),
        ("disable-syslog", "yes".into(), "a switch"),
        ("log-timestamp", "no".into(), "a switch"),
    ];
    for (key, value, what) in words {
        // PowerDNS hands them on to libpq in quotes, but does not escape what is in them.
        let is_misread = |c: char| c.is_control() || ['#', '\'', '\\'].contains(&c);
        if value.trim() != value || value.chars().any(is_misread) {
            return Err(Unsayable(what));
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key}={value}");
    }
    Ok(text)
}

/// Writes the settings where the server looks for them, readable for its user alone; answers whether they were others before.
///
/// # Errors
/// If the folder cannot be written, or this machine has no such user.
pub fn write(folder: &Path, settings: &str) -> io::Result<bool> {
    let path = folder.join("pdns.conf");
    if fs::read_to_string(&path).is_ok_and(|there| there == settings) {
        return Ok(false);
    }
    let (user, group) = ids(&fs::read_to_string("/etc/passwd")?, USER).ok_or_else(|| {
        io::Error::other(format!("there is no user {USER}: the package pdns-server is missing"))
    })?;
    fs::create_dir_all(folder)?;
    let new = folder.join("pdns.conf.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    fchown(&file, Some(user), Some(group))?;
    file.write_all(settings.as_bytes())?;
    fs::rename(&new, &path)?;
    // Its control socket is made there, and on the way it must be let through.
    std::os::unix::fs::chown(folder, Some(user), Some(group))?;
    if let Some(above) = folder.parent() {
        let mode = fs::metadata(above)?.permissions().mode();
        fs::set_permissions(above, fs::Permissions::from_mode(mode | 0o011))?;
    }
    Ok(true)
}

/// A user's number and the number of the user's group.
fn ids(passwd: &str, user: &str) -> Option<(u32, u32)> {
    let mut fields = passwd
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next() == Some(user)).then_some(fields))?;
    Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_become_another_setting_is_refused() {
        let database =
            Address { host: "localhost", port: 5432, name: "pvcdns", user: "pvcdns", password: "x" };
        let say = |password| {
            let listen = ["192.0.2.1".parse().unwrap()];
            settings(&Address { password, ..database }, &listen, 53, Path::new("/run/pvc/dns"))
        };
        assert!(say("a s3cret = 4").unwrap().contains("\ngpgsql-password=a s3cret = 4\n"));
        for password in ["a\nlaunch=pipe", "a\rb", "a#b", "\u{7f}", "a' host='b", "a\\", " padded"] {
            let error = say(password).unwrap_err();
            assert_eq!(error, Unsayable("the database's password"));
            assert!(!error.to_string().contains(password));
        }
    }

    #[test]
    fn a_users_numbers_are_found() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\npdns:x:103:109:PowerDNS,,,:/var/spool/powerdns:/bin/false\n";
        assert_eq!((ids(passwd, "pdns"), ids(passwd, "pdn")), (Some((103, 109)), None));
    }
}
