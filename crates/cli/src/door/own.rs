//! The operator's own files: nobody else says what stands in them.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

use crate::failure::Failure;

/// Opens such a file to read it; `None`: it is not there. Whoever has what `refused` allows makes it none of ours.
pub(crate) fn open(file: &Path, refused: u32, advice: &str) -> Result<Option<File>, Failure> {
    let open = options().read(true).open(file);
    let open = match open {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        open => open.map_err(|cause| failed("read", file, cause))?,
    };
    check(&open, file, refused, advice)?;
    Ok(Some(open))
}

/// Opens such a file to write at its end; it is made if it is not there.
pub(crate) fn open_to_add(file: &Path, advice: &str) -> Result<File, Failure> {
    let open = options().append(true).create(true).mode(0o600).open(file);
    let open = open.map_err(|cause| failed("write", file, cause))?;
    check(&open, file, 0o022, advice)?;
    Ok(open)
}

/// Makes a folder of ours, if it is not there, and refuses one that others may write.
pub(crate) fn folder(folder: &Path) -> Result<(), Failure> {
    let make = || fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    make().map_err(|cause| failed("make", folder, cause))?;
    check_folder(folder)
}

/// Refuses a folder that others may write: they could put their files in place of ours. What is not there has none.
pub(crate) fn check_folder(folder: &Path) -> Result<(), Failure> {
    let known = match fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        known => known.map_err(|cause| failed("look at", folder, cause))?,
    };
    check_known(&known, folder, 0o022, "chmod 700 that folder")
}

/// A pipe or a device holds nobody up.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default());
    options
}

fn check(open: &File, file: &Path, refused: u32, advice: &str) -> Result<(), Failure> {
    let known = open.metadata().map_err(|cause| failed("look at", file, cause))?;
    if !known.is_file() {
        return Err(Failure::Usage(format!("{} is no regular file", file.display())));
    }
    check_known(&known, file, refused, advice)
}

fn check_known(known: &fs::Metadata, file: &Path, refused: u32, advice: &str) -> Result<(), Failure> {
    let (owner, mode) = (known.uid(), known.mode() & 0o777);
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(Failure::Usage(format!(
            "{} belongs to another user (UID {owner}), who has a say in what stands there: have it be yours or root's",
            file.display()
        )));
    }
    if mode & refused != 0 {
        let what = if mode & refused & 0o022 != 0 { "write" } else { "read" };
        return Err(Failure::Usage(format!(
            "others can {what} {} (mode {mode:o}): {advice}",
            file.display()
        )));
    }
    Ok(())
}

fn failed(what: &str, file: &Path, cause: io::Error) -> Failure {
    Failure::Machine { doing: format!("{what} {}", file.display()), cause }
}
