//! From files to a request.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use flotilla_proto::manifest::{Manager, Manifest, ManifestError, Text};
use flotilla_proto::process::{read_manifest_file, resolve_secret};
use flotilla_proto::v1::{BatchApplyEnvironmentsRequest, Prune};

use crate::arguments::Files;
use crate::failure::Failure;

/// What control is asked for, with secrets as they are where this program runs.
pub(super) fn request(options: &Files) -> Result<BatchApplyEnvironmentsRequest, Failure> {
    let manifest = Manifest::parse(&texts(&options.file)?).map_err(|errors| wrong(&errors))?;
    let mut request = manifest.request(resolve_secret).map_err(|errors| wrong(&errors))?;
    if options.prune {
        let managed_by = match manifest.manager().map_err(|error| wrong(&[error]))? {
            Manager::One(managed_by) => managed_by,
            Manager::Nobody => {
                return Err(Failure::usage(format!(
                    "--prune removes what carries the same label managed-by as the environments of {}, and none of them \
                     carries it",
                    options.file.display()
                ))
                .hint("give each of them one: labels: {managed-by: NAME}"));
            }
        };
        request.prune = Some(Prune { managed_by, accept_blast_radius: false });
    }
    Ok(request)
}

fn wrong(errors: &[ManifestError]) -> Failure {
    Failure::usage(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n       "))
}

fn texts(file: &Path) -> Result<Vec<Text>, Failure> {
    let unreadable = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| Failure::usage(format!("--file: cannot read {path}: {error}"))
    };
    if file == Path::new("-") {
        let name = Path::new("standard input");
        return Ok(vec![read_manifest_file(name, io::stdin()).map_err(unreadable(name))?]);
    }
    let paths = if file.is_dir() { manifests_in(file).map_err(unreadable(file))? } else { vec![file.to_owned()] };
    if paths.is_empty() {
        return Err(Failure::usage(format!("--file: {} holds no *.yaml, *.yml or *.json", file.display())));
    }
    let read = |path: &PathBuf| File::open(path).and_then(|opened| read_manifest_file(path, opened));
    paths.iter().map(|path| read(path).map_err(unreadable(path))).collect()
}

/// The manifests of a directory, by name. Hidden files are none.
fn manifests_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let has_extension = path.extension().is_some_and(|extension| {
            ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known))
        });
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if has_extension && !is_hidden && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(file: &Path, prune: bool) -> Files {
        Files { file: file.to_owned(), prune }
    }

    #[test]
    fn a_directory_is_read_by_name_and_keys_beside_the_files() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("b.yml", "environments: [{name: b, prefix: b, sdkKey: {file: b.key}}]");
        write("a.json", "{\"environments\":[{\"name\":\"a\",\"prefix\":\"a\"}]}");
        write(".hidden.yaml", "nonsense: true");
        write("README.md", "nonsense: true");
        write("b.key", "sdk-1\n");
        let request = request(&options(directory.path(), false)).unwrap();
        let entries: Vec<_> = request.entries.iter().map(|one| (one.name.as_str(), one.sdk_key.as_str())).collect();
        assert_eq!(entries, [("a", ""), ("b", "sdk-1")]);
        assert_eq!(request.prune, None);
    }

    #[test]
    fn what_cannot_be_read_is_a_usage_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.yaml");
        for (text, prune, words) in [
            (None, false, "x.yaml: No such file"),
            (Some("environments: [{name: a, prefix: a, sdkKey: {file: nope}}]"), false, "nope: No such file"),
            (Some("environments: [{name: a, prefix: a}]"), true, "none of them carries it"),
            (Some("environments: [{nam: a}]"), false, "nam: unknown field"),
        ] {
            if let Some(text) = text {
                fs::write(&file, text).unwrap();
            }
            let failure = request(&options(&file, prune)).unwrap_err();
            assert_eq!(failure.status().code(), 2);
            assert!(failure.to_string().contains(words), "{failure}");
        }
        let empty = directory.path().join("empty");
        fs::create_dir(&empty).unwrap();
        assert!(request(&options(&empty, false)).unwrap_err().to_string().contains("holds no *.yaml"));
    }

    #[test]
    fn a_prune_is_by_the_label_of_all() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.yaml");
        fs::write(&file, "environments: [{name: a, prefix: a, labels: {managed-by: git}}]").unwrap();
        let prune = request(&options(&file, true)).unwrap().prune.unwrap();
        assert_eq!((prune.managed_by.as_str(), prune.accept_blast_radius), ("git", false));
    }
}
