//! The shipped binary as a shell sees it: exit statuses, standard output and standard error.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::{Command, Output, Stdio};

const KEY: &str = "sdk-01234567-89ab-cdef-0123-456789abcdef";

fn flotilla(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flotilla"));
    command.args(line.split(' ')).stdin(Stdio::null());
    for variable in
        ["CONTROL", "OUTPUT", "REQUEST_TIMEOUT", "CA", "CLIENT_CERT", "CLIENT_KEY", "TOKEN_FILE", "INSECURE"]
    {
        command.env_remove(format!("FLOTILLA_{variable}"));
    }
    command
}

fn run(line: &str) -> (i32, String, String) {
    let output: Output = flotilla(line).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn an_unreachable_control_is_named_with_a_way_out() {
    for (line, expected) in [
        ("--control http://127.0.0.1:1 env list", 5),
        ("--control http://127.0.0.1:1 status", 5),
        ("--control http://127.0.0.1:1 env wait a --for current", 5),
        ("--control http://127.0.0.1:1 version", 0),
        ("--control nowhere env list", 2),
    ] {
        let (status, out, err) = run(line);
        assert_eq!(status, expected, "{line}: {err}");
        if expected == 5 {
            assert_eq!(out, "");
            assert!(err.starts_with("error: cannot reach control at http://127.0.0.1:1: "), "{err}");
            assert!(err.contains("\nhint: "), "{err}");
        }
    }
}

#[test]
fn usage_errors_are_2_and_show_no_key() {
    for line in [
        "env".to_owned(),
        "env frobnicate".to_owned(),
        format!("env add a --prefix p --sdkkey={KEY}"),
        format!("env add a {KEY} --prefix p"),
        format!("env add a --prefix p --sdk-key {KEY}*"),
        format!("env add a --prefix p --sdk-key {KEY} --sdk-key-stdin"),
        "env rotate-key a".to_owned(),
        "env rotate-key a --sdk-key-stdin".to_owned(),
        "env rotate-key a --sdk-key-file /nonexistent/key".to_owned(),
        "env remove a".to_owned(),
        "data get a new-checkout".to_owned(),
        "-o json dev".to_owned(),
        "dev --control http://127.0.0.1:1".to_owned(),
    ] {
        let (status, out, err) = run(&line);
        assert_eq!(status, 2, "{line}: {err}");
        assert_eq!(out, "", "{line}");
        assert!(!err.contains(KEY), "{err}");
    }
    let (_, _, err) = run("env remove a");
    assert!(err.contains("hint: say --yes"), "{err}");
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let mut child = flotilla("completions zsh").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}

#[test]
fn completions_and_versions_are_printed() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (status, out, _) = run(&format!("completions {shell}"));
        assert_eq!(status, 0);
        assert!(out.contains("rotate-key"), "{shell}");
    }
    let (status, out, _) = run("--version");
    assert_eq!((status, out.trim()), (0, concat!("flotilla ", env!("CARGO_PKG_VERSION"))));
}
