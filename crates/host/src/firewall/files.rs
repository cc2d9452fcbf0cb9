//! Rules that an operator has written into files of their own. They are loaded as root, so they must be root's alone.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Below `dynamic_directory`, as the daemon of the 0.5 generation has it.
pub const STATIC: &str = "nft/static";
/// The most files, and the most bytes of one.
const MOST: usize = 64;
const LONGEST: u64 = 256 * 1024;

/// A file of an operator's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFile {
    /// Its name in the folder.
    pub name: String,
    /// What `nft` is to read, or why it is not given to it.
    pub text: Result<String, String>,
}

/// All of a folder, by name; those whose name begins with a dot are none.
pub(super) fn read(folder: &Path) -> Vec<OwnFile> {
    let names = match names(folder) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![OwnFile { name: String::new(), text: Err(error.to_string()) }],
    };
    let left_out = names.len().saturating_sub(MOST);
    let mut files: Vec<OwnFile> = names.into_iter().take(MOST).map(|name| file(folder, name)).collect();
    if left_out > 0 {
        let text = Err(format!("{left_out} more files are not read: {MOST} are the most"));
        files.push(OwnFile { name: String::new(), text });
    }
    files
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    must_be_roots(&fs::metadata(folder)?).map_err(io::Error::other)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    Ok(names)
}

fn file(folder: &Path, name: String) -> OwnFile {
    let text = text(&folder.join(&name));
    OwnFile { name, text }
}

fn text(path: &Path) -> Result<String, String> {
    let told = |error: io::Error| error.to_string();
    // A pipe would hold up whoever opens it.
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(told)?;
    let metadata = file.metadata().map_err(told)?;
    must_be_roots(&metadata)?;
    if !metadata.is_file() {
        return Err("it is no file".to_owned());
    }
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(told)?;
    if text.len() as u64 > LONGEST {
        return Err(format!("it has more than {LONGEST} bytes"));
    }
    if flushes_all(&text) {
        return Err(
            "it says `flush ruleset`, which would take away the walls of the client networks, too".to_owned()
        );
    }
    Ok(text)
}

fn must_be_roots(of: &fs::Metadata) -> Result<(), String> {
    if of.uid() == 0 && of.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err("others than root may write it: chown root, chmod go-w".to_owned())
}

fn flushes_all(text: &str) -> bool {
    let said = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let words = said.flat_map(|line| line.split(|c: char| c.is_whitespace() || c == ';'));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.windows(2).any(|pair| pair == ["flush", "ruleset"])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_read_by_name_and_what_is_not_roots_alone_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(read(&at("none")), []);
        fs::write(at("20-b"), "# never flush ruleset\ntable inet b { }\n").unwrap();
        fs::write(at("10-a"), "table inet a { }\n").unwrap();
        fs::write(at(".hidden"), "").unwrap();
        fs::write(at("30-all"), "flush  ruleset;\n").unwrap();
        fs::write(at("40-long"), "#".repeat(300_000)).unwrap();
        fs::write(at("50-theirs"), "table inet c { }\n").unwrap();
        fs::set_permissions(at("50-theirs"), fs::Permissions::from_mode(0o666)).unwrap();
        fs::create_dir(at("60-folder")).unwrap();
        let found = read(folder.path());
        let told: Vec<_> = found.iter().map(|file| (file.name.as_str(), file.text.is_ok())).collect();
        let expected =
            ["10-a", "20-b", "30-all", "40-long", "50-theirs", "60-folder"].map(|name| (name, name < "30"));
        assert_eq!(told, expected);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(&read(folder.path())[..], [OwnFile { text: Err(why), .. }] if why.contains("root")));
    }
}
