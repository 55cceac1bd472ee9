//! What `deploy/` says to the programs, which files its example makes, and what the container is built from.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use flotilla_tests::harness::{Process, binary_directory, binary_in, require_tool, workspace_directory};
use tokio::process::Command;

use crate::program::{command, run};
use crate::stored::BOUND;

const CONTROL: &str = "flotilla-control";
const WORKER: &str = "flotilla-worker";

fn read(path: &str) -> String {
    let path = workspace_directory().join("deploy").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

async fn help(program: &str, words: &[&str]) -> String {
    let mut command = command(program);
    command.args(words).arg("--help");
    let ended = run(command).await;
    assert_eq!(ended.status, Some(0), "{program} {words:?}: {ended:?}");
    ended.stdout
}

/// All words that begin so and go on with these characters.
fn words_with<'a>(text: &'a str, beginning: &'a str, goes_on: impl Fn(char) -> bool + 'a) -> BTreeSet<&'a str> {
    let places = text.match_indices(beginning).map(|(at, _)| at);
    let is_inside =
        |at: usize| text[..at].ends_with(|before: char| before.is_ascii_alphanumeric() || before == '-');
    let places = places.filter(move |&at| !is_inside(at));
    places
        .map(|at| {
            let rest = &text[at + beginning.len()..];
            let length = rest.find(|character| !goes_on(character)).unwrap_or(rest.len());
            text[at..at + beginning.len() + length].trim_end_matches('-')
        })
        .collect()
}

fn variables_in(text: &str) -> BTreeSet<&str> {
    words_with(text, "FLOTILLA_", |character| character.is_ascii_uppercase() || character == '_')
}

fn flags_in(text: &str) -> BTreeSet<&str> {
    let flags = words_with(text, "--", |character| character.is_ascii_lowercase() || character == '-');
    flags.into_iter().filter(|flag| flag.len() > 2).collect()
}

/// Of a program's options; a worker's references to secrets are variables too.
fn is_variable_of(help: &str, variable: &str) -> bool {
    variables_in(help).contains(variable)
        || (variable.starts_with("FLOTILLA_SECRET_") && help.contains("FLOTILLA_SECRET_NAME"))
}

#[tokio::test]
async fn units_and_containers_name_options_that_there_are() {
    let (control, worker) = (help(CONTROL, &[]).await, help(WORKER, &[]).await);
    let compose = read("compose/compose.yaml");
    let blocks = blocks(&compose);
    let of = |program: &str| {
        let own = blocks.iter().filter(|block| block.program == program);
        own.map(|block| block.text.as_str()).collect::<String>()
    };
    let (for_control, for_workers) = (of(CONTROL), of(WORKER));
    let mut seen = 0;
    for (help, text) in [
        (&control, read("flotilla-control.service")),
        (&control, read("flotilla-control.service.d/credentials.conf")),
        (&control, for_control.split("healthcheck").next().unwrap().to_owned()),
        (&worker, read("flotilla-worker.service")),
        (&worker, read("flotilla-worker.service.d/credentials.conf")),
        (&worker, for_workers),
    ] {
        let variables = variables_in(&text);
        assert!(!variables.is_empty(), "{text}");
        for variable in &variables {
            assert!(is_variable_of(help, variable), "{variable} is no option in:\n{text}");
        }
        for flag in flags_in(&text) {
            assert!(flags_in(help).contains(flag), "{flag} is no option in:\n{text}");
        }
        seen += variables.len();
    }
    assert!(seen > 20, "{seen}");
    let anyone = control.clone() + &worker + &help("flotilla", &[]).await;
    for text in [read("Containerfile"), read("README.md"), compose.clone()] {
        // `FLOTILLA_…` are all of them.
        for variable in variables_in(&text).into_iter().filter(|variable| *variable != "FLOTILLA_") {
            assert!(is_variable_of(&anyone, variable), "{variable}");
        }
    }
}

/// The commands of `flotilla` in a text: those of a line of its own, and those that Compose runs.
fn commands(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().map(|line| line.trim_start_matches([' ', '$', '#']));
    let lines = lines.filter_map(|line| {
        let own = line.strip_prefix("flotilla ");
        own.or_else(|| line.split_once("compose run --rm ")?.1.trim_start_matches("--no-TTY ").strip_prefix("cli "))
    });
    lines
        .map(|line| line.split_whitespace().take_while(|word| !matches!(*word, "<" | ">" | "|" | "#")).collect())
        .collect()
}

#[tokio::test]
async fn commands_of_the_pages_have_the_options_they_are_given() {
    let texts = [read("README.md"), read("compose/compose.yaml"), read("compose/prepare.sh")];
    let mut seen = 0;
    for words in texts.iter().flat_map(|text| commands(text)) {
        // `flotilla() {` of a script.
        let path: Vec<_> = words
            .iter()
            .copied()
            .take_while(|word| word.chars().all(|one| one.is_ascii_lowercase()))
            .take(2)
            .collect();
        if path.is_empty() {
            continue;
        }
        let help = help("flotilla", &path).await;
        for flag in flags_in(&words.join(" ")) {
            assert!(flags_in(&help).contains(flag), "{flag} is no option of flotilla {path:?}");
        }
        seen += 1;
    }
    assert!(seen >= 8, "{seen}");
    // What asks whether control is well.
    let compose = read("compose/compose.yaml");
    let check = compose.split("test: [").nth(1).unwrap().split(']').next().unwrap();
    let help = help("flotilla", &["worker", "list"]).await;
    for flag in flags_in(check) {
        assert!(flags_in(&help).contains(flag), "{flag}");
    }
}

/// A part of `compose.yaml` that says how one program is run.
struct Block {
    name: String,
    program: &'static str,
    text: String,
}

impl Block {
    /// What of a file of this service is mounted at a place; `None`: nothing.
    fn mounts(&self) -> impl Iterator<Item = (&str, &str)> {
        let quoted =
            self.text.lines().filter(|line| line.trim().starts_with("volumes:")).flat_map(|line| line.split('"'));
        quoted.filter(|word| word.starts_with('.')).map(|word| {
            let mut parts = word.split(':');
            (parts.next().unwrap(), parts.next().unwrap())
        })
    }

    fn secrets(&self) -> BTreeSet<&str> {
        let names = self.text.split("/run/secrets/").skip(1);
        names.map(|rest| &rest[..rest.find([',', '\n', ' ', ']']).unwrap_or(rest.len())]).collect()
    }
}

/// Templates and services; a service that merges a template has its text too.
fn blocks(compose: &str) -> Vec<Block> {
    let mut parts: Vec<(String, String)> = Vec::new();
    let mut section = "";
    for line in compose.lines().filter(|line| !line.is_empty() && !line.trim_start().starts_with('#')) {
        let title = line.trim().split(':').next().unwrap();
        let indent = line.len() - line.trim_start().len();
        if indent == 0 {
            section = title;
        }
        if indent == 0 || section == "services" && indent == 2 {
            parts.push((title.to_owned(), String::new()));
        } else if let Some((_, text)) = parts.last_mut() {
            *text += line;
            *text += "\n";
        }
    }
    let worker = parts.iter().find(|(name, _)| name == "x-worker").map(|(_, text)| text.clone()).unwrap();
    let blocks = parts.into_iter().map(|(name, mut text)| {
        if text.contains("<<: *worker") {
            text.push_str(&worker);
        }
        let runs = |program: &str| text.contains(&format!("command: {program}\n"));
        let program = match () {
            () if runs(CONTROL) => CONTROL,
            () if runs(WORKER) => WORKER,
            () if text.contains("entrypoint: flotilla\n") => "flotilla",
            () => "",
        };
        Block { name, program, text }
    });
    blocks.collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_makes_what_its_containers_mount() {
    if !require_tool("openssl") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().join("deploy/compose");
    for file in ["compose.yaml", "prepare.sh", "redis.conf"] {
        copy(&workspace_directory().join("deploy/compose").join(file), &here.join(file));
    }
    copy(&workspace_directory().join("examples/flags.json"), &directory.path().join("examples/flags.json"));
    let mut prepare = Command::new("bash");
    prepare
        .arg(here.join("prepare.sh"))
        .env("FLOTILLA", binary_in(&binary_directory().unwrap(), "flotilla").unwrap());
    let made = run(prepare).await;
    assert_eq!(made.status, Some(0), "{made:?}");

    let blocks = blocks(&read("compose/compose.yaml"));
    let mut seen = 0;
    for service in blocks.iter().filter(|block| block.text.contains("volumes:") && !block.name.starts_with("x-")) {
        for (source, place) in service.mounts() {
            assert!(here.join(source).exists(), "{source} of {} is not there", service.name);
            if place != "/run/secrets" {
                continue;
            }
            let mut wanted = service.secrets();
            let redis = read("compose/redis.conf");
            if service.name == "redis" {
                wanted.extend(redis.split("/run/secrets/").skip(1).map(|rest| rest.lines().next().unwrap()));
            }
            assert!(!wanted.is_empty(), "{}", service.name);
            for name in wanted {
                let file = here.join(source).join(name);
                assert!(fs::metadata(&file).is_ok_and(|file| file.len() > 0), "{} is not there", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 8 + 3 * 3 + 2 + 3, "{seen}");
    // The URL of the store names a file of the workers.
    let url = fs::read_to_string(here.join("secrets/control/redis-url")).unwrap();
    let name = url.trim().split("tls-ca=/run/secrets/").nth(1).unwrap();
    for worker in ["worker-1", "worker-2", "worker-3"] {
        assert!(here.join("secrets").join(worker).join(name).exists(), "{worker} has no {name}");
    }
    assert_is_accepted(&blocks, &here).await;
    // A second time nothing is overwritten.
    let mut again = Command::new("bash");
    again.arg(here.join("prepare.sh")).env("FLOTILLA", "false");
    assert_eq!(run(again).await.status, Some(1));
}

/// Control starts with these files, and answers what Compose asks of it.
async fn assert_is_accepted(blocks: &[Block], here: &Path) {
    let control = blocks.iter().find(|block| block.name == "control").unwrap();
    let secrets = here.join("secrets/control").to_str().unwrap().to_owned();
    let real = |text: &str| text.replace("/run/secrets", &secrets);
    let mut start = command(CONTROL);
    for line in control.text.lines() {
        if let Some((name, value)) = line.trim().split_once(": ").filter(|(name, _)| name.starts_with("FLOTILLA_"))
        {
            start.env(name, real(value));
        }
    }
    start.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--log-format", "json", "--data-dir"]);
    start.arg(here.join("data"));
    let mut process = Process::start("control", start.into_std(), here).unwrap();
    let address = process.listening(BOUND).await.unwrap().grpc.unwrap();
    let check = control.text.split("test: [CMD, flotilla, ").nth(1).unwrap().split(']').next().unwrap();
    let check = real(check).replace("7400", &address.port().to_string());
    let mut ask = command("flotilla");
    ask.args(check.split(',').map(|word| word.trim().trim_matches('"')));
    let ended = run(ask).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
}

/// What `.dockerignore` lets through of the files that there are in the repository; the last pattern that fits counts.
fn context(root: &Path) -> Vec<PathBuf> {
    let ignore = fs::read_to_string(root.join(".dockerignore")).unwrap();
    let patterns: Vec<_> = ignore.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let listed = std::process::Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-co", "--exclude-standard"])
        .output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    let is_let_through = |path: &Path| {
        let last = patterns.iter().rev().find(|pattern| {
            let pattern = pattern.trim_start_matches('!');
            pattern == "*" || path.starts_with(pattern)
        });
        last.is_some_and(|pattern| pattern.starts_with('!'))
    };
    listed.lines().map(PathBuf::from).filter(|path| is_let_through(path) && root.join(path).exists()).collect()
}

/// Files that are compiled into the programs from elsewhere.
fn included(file: &Path, text: &str) -> Vec<PathBuf> {
    if file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs") {
        return Vec::new();
    }
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut found = Vec::new();
    for macro_name in ["include_str!(\"", "include_bytes!(\""] {
        for (at, _) in text.match_indices(macro_name) {
            let line_before = text[..at].lines().rev().nth(1).unwrap_or_default();
            if !line_before.contains("doctest") {
                let path = text[at + macro_name.len()..].split('"').next().unwrap();
                found.push(file.parent().unwrap().join(path));
            }
        }
    }
    found
}

#[tokio::test]
async fn what_the_container_is_built_from_is_all_that_is_needed() {
    let root = workspace_directory();
    let directory = tempfile::tempdir().unwrap();
    let files = context(root);
    for file in &files {
        copy(&root.join(file), &directory.path().join(file));
    }
    for secret in ["key", "token", "pem", "db"] {
        let found: Vec<_> = files.iter().filter(|file| file.extension().is_some_and(|end| end == secret)).collect();
        assert!(found.is_empty(), "{found:?}");
    }
    let mut seen = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "rs")) {
        let path = directory.path().join(file);
        for target in included(&path, &fs::read_to_string(&path).unwrap()) {
            assert!(
                target.exists(),
                "{} includes {}, which the container does not get",
                file.display(),
                target.display()
            );
            seen += 1;
        }
    }
    assert!(seen >= 1, "nothing is included");
    let mut metadata = Command::new(env!("CARGO"));
    metadata.current_dir(directory.path()).args([
        "metadata",
        "--no-deps",
        "--offline",
        "--locked",
        "--format-version",
        "1",
    ]);
    let ended = run(metadata).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let document: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let packages = document["packages"].as_array().unwrap();
    assert_eq!(packages.len(), 5, "all members");
    for target in packages.iter().flat_map(|package| package["targets"].as_array().unwrap()) {
        let path = Path::new(target["src_path"].as_str().unwrap());
        assert!(path.exists(), "{} is not there", path.display());
    }
    // What its own lines name.
    let containerfile = read("Containerfile");
    for program in [CONTROL, WORKER, "flotilla"] {
        assert!(containerfile.contains(&format!("target/release/{program}")), "{program}");
    }
}
