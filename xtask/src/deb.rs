//! Debian packages of this tree.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::run;

/// What the packages are made of, relative to the root.
const PARTS: [&str; 3] = ["debian", "packaging", "docs/manual"];

/// What the names of the packages' files begin with.
const OURS: [&str; 3] = ["pvcd_", "pvc-client_", "pvc-api_"];

/// What to package.
#[derive(Args)]
pub(crate) struct Deb {
    /// Package the programs in this folder instead of building releases.
    #[arg(long)]
    binaries: Option<PathBuf>,
    /// Where the packages go.
    #[arg(long, default_value = "target/debian")]
    to: PathBuf,
}

/// Builds the packages. In a folder of their own: dpkg-buildpackage leaves what it makes beside the source and in it.
pub(crate) fn run(deb: &Deb) -> Result<()> {
    let binaries = match &deb.binaries {
        Some(folder) => folder.canonicalize().with_context(|| format!("no folder {}", folder.display()))?,
        None => {
            run::cargo(["build", "--release", "--locked", "-p", "pvcd", "-p", "pvc-cli", "-p", "pvc-api"])?;
            run::root().join("target/release")
        }
    };
    let work = run::root().join("target/debian-build");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("could not remove {}", work.display()))?;
    }
    let tree = work.join("pvcd");
    fs::create_dir_all(&tree)?;
    let copy = ["-a", "--parents"].into_iter().chain(PARTS).map(Into::into);
    run::program("cp", copy.chain([tree.clone().into_os_string()]))?;
    let changelog = tree.join("debian/changelog");
    let text = fs::read_to_string(&changelog)?.replacen("(0)", &format!("({})", version()), 1);
    fs::write(&changelog, text)?;

    let mut build = run::command("dpkg-buildpackage");
    build
        .args(["--build=binary", "--no-sign"])
        .current_dir(&tree)
        .env("PVC_BINARIES", &binaries)
        .env("DEB_BUILD_OPTIONS", "noautodbgsym nocheck");
    let status =
        build.status().context("could not start dpkg-buildpackage: install dpkg-dev and debhelper")?;
    if !status.success() {
        bail!("dpkg-buildpackage: {status}");
    }
    let to = run::root().join(&deb.to);
    fs::create_dir_all(&to)?;
    // `apt install ./pvcd_*.deb` shall name one.
    for old in packages(&to)?.into_iter().filter(|old| OURS.iter().any(|ours| old.starts_with(ours))) {
        fs::remove_file(to.join(old))?;
    }
    for made in packages(&work)? {
        fs::copy(work.join(&made), to.join(&made))?;
        println!("{}", to.join(made).display());
    }
    Ok(())
}

/// The names of all packages in a folder.
fn packages(folder: &Path) -> Result<Vec<String>> {
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let names: Vec<String> = fs::read_dir(folder)?.map(name).collect::<io::Result<_>>()?;
    Ok(names.into_iter().filter(|name| Path::new(name).extension().is_some_and(|of| of == "deb")).collect())
}

/// The workspace's version and the commit's moment: what is built later is newer for apt.
fn version() -> String {
    let commit = run::git(&["log", "-1", "--format=%cd.%h", "--date=format:%Y%m%d%H%M%S"]);
    let version = env!("CARGO_PKG_VERSION");
    commit.map_or_else(|| version.to_owned(), |commit| format!("{version}+{commit}"))
}
