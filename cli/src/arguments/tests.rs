use clap::{CommandFactory as _, Parser as _};

use super::Cli;

/// The help of every command, as a terminal of 100 columns shows it.
fn help(command: &mut clap::Command, path: &str, all: &mut Vec<(String, String)>) {
    all.push((path.to_owned(), command.render_long_help().to_string()));
    for name in command.get_subcommands().map(|one| one.get_name().to_owned()).collect::<Vec<_>>() {
        if name == "help" {
            continue;
        }
        let path = format!("{path} {name}");
        let child = command.find_subcommand_mut(&name).unwrap();
        help(child, &path, all);
    }
}

fn all_help() -> Vec<(String, String)> {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut all = Vec::new();
    help(&mut command, "flotilla", &mut all);
    all
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_help_is_as_it_was() {
    let texts: Vec<String> =
        all_help().into_iter().map(|(path, help)| format!("$ {path} --help\n{help}\n")).collect();
    insta::assert_snapshot!(texts.concat());
}

#[test]
fn every_help_has_an_example() {
    for (path, help) in all_help() {
        assert!(help.contains("Examples:\n"), "{path}");
    }
}

#[test]
fn wrong_command_lines_are_refused() {
    for line in [
        "env add x",
        "env add X --prefix p",
        "env add x --prefix a:$flotilla",
        "env add x --prefix p --sdk-key a --sdk-key-stdin",
        "env add x --prefix p --wait=soon",
        "env add x --prefix p --poll-interval soon",
        "env remove x --purge --abandon",
        "env wait --for current",
        "env wait x --all --for current",
        "env wait x",
        "env list --state good",
        "env list -l team",
        "worker get",
        "dev --workers 0",
        "status -o xml",
    ] {
        let words = ["flotilla"].into_iter().chain(line.split(' '));
        let error = Cli::try_parse_from(words).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn a_debug_text_of_the_options_shows_no_key() {
    let cli = Cli::try_parse_from(["flotilla", "env", "rotate-key", "x", "--sdk-key", "SECRET"]).unwrap();
    assert!(!format!("{cli:?}").contains("SECRET"));
}
