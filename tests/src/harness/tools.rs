//! Where the shipped binaries and other people's programs are found.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Where the shipped binaries are: `FLOTILLA_BIN_DIR`, or beside the directory of this test executable.
pub fn binary_directory() -> anyhow::Result<PathBuf> {
    match env::var_os("FLOTILLA_BIN_DIR") {
        Some(directory) => Ok(PathBuf::from(directory)),
        None => directory_of_this_build(),
    }
}

/// A binary of that directory. The path is absolute, for processes are started in directories of their own.
pub fn binary_in(directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(directory.join(name))?;
    if !path.is_file() {
        bail!("{} does not exist: build it with `cargo build --bins`", path.display());
    }
    Ok(path)
}

/// `target/<profile>`: tests and benchmarks run from `deps` below it, programs from there.
fn directory_of_this_build() -> anyhow::Result<PathBuf> {
    let executable = env::current_exe().context("this executable's path is unknown")?;
    let directory = executable.parent().context("this executable has no directory")?;
    let is_deps = directory.file_name().is_some_and(|name| name == "deps");
    let profile = if is_deps { directory.parent().context("deps has no parent")? } else { directory };
    Ok(profile.to_owned())
}

/// The repository's top level.
pub fn workspace_directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies below the workspace")
}

/// Whether a program is in `PATH`.
pub fn have_tool(name: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|directory| directory.join(name).is_file()))
}

/// Whether a test that needs this program can run. Where it is missing, the test says so and returns.
///
/// # Panics
/// When it is missing and `CI=true`: there, a test that did not run counts as one that failed.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub fn require_tool(name: &str) -> bool {
    if have_tool(name) {
        return true;
    }
    let in_ci = env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!in_ci, "{name} is not in PATH, and CI=true demands it");
    eprintln!("SKIPPED: {name} is not in PATH");
    false
}
