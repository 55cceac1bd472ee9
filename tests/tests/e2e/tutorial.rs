//! `docs/tutorial.md`, carried out as it stands: every command of its console blocks, in one shell, and what each block
//! is said to print.

use std::process::Stdio;

use flotilla_tests::harness::{RedisServer, free_port, workspace_directory};
use tokio::process::Command;

use crate::stored::BOUND;

/// What a reader types, and what is to be read then.
#[derive(Debug, Default)]
struct Block {
    script: String,
    printed: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let (mut blocks, mut is_inside) = (Vec::new(), false);
    for line in page.lines() {
        match line {
            "```console" => {
                is_inside = true;
                blocks.push(Block::default());
            }
            "```" => is_inside = false,
            _ if !is_inside => {}
            _ => {
                let block = blocks.last_mut().unwrap();
                match line.strip_prefix("$ ").or(line.strip_prefix("> ")).or((line == ">").then_some("")) {
                    Some(typed) => block.script.extend([typed, "\n"]),
                    None => block.printed.extend([line, "\n"]),
                }
            }
        }
    }
    blocks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tutorial_does_what_it_says() {
    const END: &str = "-- end of block --\n";
    let page = std::fs::read_to_string(workspace_directory().join("docs/tutorial.md")).unwrap();
    let blocks = blocks(&page);
    // A reader sees both.
    let mut script = "exec 2>&1\n".to_owned();
    for block in &blocks {
        script.extend([&block.script, "echo '", END.trim_end(), "'\n"]);
    }
    let redis = RedisServer::start().await.unwrap();
    let (home, port) = (tempfile::tempdir().unwrap(), free_port().unwrap());
    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_launchdarkly-simulator")).parent().unwrap();
    // Ends what it started, too.
    let mut command = Command::new("timeout");
    command
        .args([&BOUND.as_secs().to_string(), "bash", "-euc", &script])
        .current_dir(home.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    // The addresses that a reader has by default, for tests run side by side.
    command.env("PATH", format!("{}:{}", programs.display(), std::env::var("PATH").unwrap()));
    command.env("FLOTILLA_LISTEN", format!("127.0.0.1:{port}"));
    command.env("FLOTILLA_CONTROL", format!("http://127.0.0.1:{port}"));
    command.env("FLOTILLA_HTTP_LISTEN", "127.0.0.1:0");
    command.env("FLOTILLA_REDIS_URL", redis.url());
    let output = command.output().await.unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let printed: Vec<&str> = stdout.split(END).collect();
    assert_eq!(printed.len(), blocks.len() + 1);
    for (block, printed) in blocks.iter().zip(printed) {
        assert_eq!(printed, block.printed, "{}", block.script);
    }
}
