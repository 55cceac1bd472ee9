//! The pages of `docs/` that are made of the programs themselves: what they print, what they serve, and their API.
//! `FLOTILLA_WRITE_DOCS=1 cargo test -p flotilla-tests --test e2e reference` writes them anew.

// The API, of the comments in the protos.
#[path = "reference/api.rs"]
mod api;
// Who may make which call.
#[path = "reference/calls.rs"]
mod calls;

use std::fmt::Write as _;

use flotilla_tests::harness::{Fleet, workspace_directory};
use tokio::process::Command;

/// Compares a page with what it should be, or writes it.
fn check(page: &str, expected: &str) {
    let path = workspace_directory().join("docs").join(page);
    if std::env::var_os("FLOTILLA_WRITE_DOCS").is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/{page} is not current: FLOTILLA_WRITE_DOCS=1 cargo test -p flotilla-tests --test e2e reference"
    );
}

/// What a program says of itself, at the width of a page.
async fn help(program: &str, words: &[&str]) -> String {
    let directory = std::path::Path::new(env!("CARGO_BIN_EXE_launchdarkly-simulator")).parent().unwrap();
    let mut command = Command::new(directory.join(program));
    let output = command.args(words).arg("--help").env("COLUMNS", "110").output().await.unwrap();
    assert!(output.status.success(), "{program} {words:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

fn add_section(page: &mut String, program: &str, words: &[&str], text: &str) {
    let title = [&[program], words].concat().join(" ");
    writeln!(page, "\n{} `{title}`\n\n```text\n{text}\n```", if words.is_empty() { "##" } else { "###" }).unwrap();
}

#[tokio::test]
async fn the_page_of_commands_is_what_help_prints() {
    let mut page = "# Commands and options\n\nWhat `--help` prints. Made by a test; do not edit.\n".to_owned();
    for program in ["flotilla-control", "flotilla-worker", "flotilla"] {
        let text = help(program, &[]).await;
        add_section(&mut page, program, &[], &text);
        for noun in commands(&text) {
            let text = help(program, &[&noun]).await;
            add_section(&mut page, program, &[&noun], &text);
            for verb in commands(&text) {
                add_section(&mut page, program, &[&noun, &verb], &help(program, &[&noun, &verb]).await);
            }
        }
    }
    check("commands.md", &page);
}

#[test]
fn the_page_of_the_api_is_what_the_protos_say() {
    check("api.md", &api::page());
}

#[test]
fn the_page_of_access_has_the_table_that_control_judges_by() {
    let (begin, end) = ("<!-- calls -->\n", "<!-- end of calls -->");
    let page = std::fs::read_to_string(workspace_directory().join("docs/access.md")).unwrap();
    let (before, rest) = page.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    check("access.md", &format!("{before}{begin}{}{end}{after}", calls::table()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_metrics_is_what_the_programs_serve() {
    let fleet = Fleet::builder().start().await.unwrap();
    let mut page =
        "# Metrics\n\nWhat `/metrics` has from the first scrape. Made by a test; do not edit.\n".to_owned();
    let scrapes = [
        ("flotilla-control", fleet.control_get("/metrics").await.unwrap().body),
        ("flotilla-worker", fleet.worker_get(0, "/metrics").await.unwrap().body),
    ];
    for (program, body) in scrapes {
        writeln!(page, "\n## `{program}`\n\n| metric | kind | labels | |\n|---|---|---|---|").unwrap();
        for (name, help) in body.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')) {
            let (name, kind, labels) = shape(&body, name);
            writeln!(page, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
        }
    }
    check("metrics.md", &page);
}

/// The name as it is served, the kind, and the labels of a metric.
fn shape(body: &str, name: &str) -> (String, String, String) {
    let kind = body.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap_or("untyped");
    let name =
        if kind == "counter" && !name.ends_with("_total") { format!("{name}_total") } else { name.to_owned() };
    let labels = body.lines().find_map(|line| line.strip_prefix(&format!("{name}{{"))?.split_once('}'));
    let labels = labels.map(|(labels, _)| labels.split("\",").filter_map(|one| one.split('=').next()));
    let labels: Vec<String> = labels.into_iter().flatten().map(|label| format!("`{label}`")).collect();
    (name, kind.to_owned(), labels.join(", "))
}
