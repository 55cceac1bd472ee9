//! The program itself: what it acknowledged is there after kill -9 and after a full disk, and how it ends.

// A module of tests, so that helpers too may `unwrap`.
#[cfg(test)]
mod program {
    use std::collections::BTreeSet;
    use std::io::{BufRead as _, BufReader};
    use std::path::Path;
    use std::process::{Child, Command, ExitStatus, Stdio};
    use std::time::Duration;

    use flotilla_proto::{Reason, Refusal, v1};
    use tonic::transport::{Channel, Endpoint};
    use v1::environment_service_client::EnvironmentServiceClient;

    /// The program itself, killed when dropped.
    struct Program {
        child: Child,
        api: EnvironmentServiceClient<Channel>,
    }

    impl Drop for Program {
        fn drop(&mut self) {
            // Child::kill is SIGKILL.
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    /// A command that is the program; `limit`, in blocks of 512 bytes, bounds the files that it may write.
    fn command(limit: Option<u32>) -> Command {
        let program = env!("CARGO_BIN_EXE_flotilla-control");
        let Some(limit) = limit else {
            return Command::new(program);
        };
        let mut command = Command::new("sh");
        // With the signal ignored, a write beyond the limit is an error, as on a full disk.
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
        command.args(["-c", &script, program]);
        command
    }

    async fn start(directory: &Path, limit: Option<u32>) -> Program {
        let mut child = command(limit)
            .args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--log-format", "json", "--data-dir"])
            .arg(directory)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("it ended before it listened").unwrap();
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if line["message"] == "listening" {
                break line["grpc"].as_str().unwrap().to_owned();
            }
        };
        // Whatever else it says is read, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Program { child, api: EnvironmentServiceClient::new(channel) }
    }

    fn request(name: &str) -> v1::CreateEnvironmentRequest {
        v1::CreateEnvironmentRequest {
            name: name.to_owned(),
            spec: Some(v1::EnvironmentSpec { prefix: name.to_owned(), ..Default::default() }),
            sdk_key: "sdk-x".to_owned(),
            ..Default::default()
        }
    }

    /// Adds environments until the program is gone. Returns those whose addition was acknowledged.
    async fn add_until_killed(mut api: EnvironmentServiceClient<Channel>, series: String) -> Vec<String> {
        let mut acknowledged = Vec::new();
        for number in 0.. {
            let name = format!("{series}-{number}");
            if api.create_environment(request(&name)).await.is_err() {
                break;
            }
            acknowledged.push(name);
        }
        acknowledged
    }

    async fn names(program: &mut Program) -> BTreeSet<String> {
        let (mut found, mut page_token) = (BTreeSet::new(), String::new());
        loop {
            let request = v1::ListEnvironmentsRequest { page_size: 1000, page_token, filter: None };
            let page = program.api.list_environments(request).await.unwrap().into_inner();
            found.extend(page.environments.into_iter().map(|one| one.name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return found;
            }
        }
    }

    /// The exit status, within a bound.
    async fn ended(child: &mut Child) -> ExitStatus {
        for _ in 0..500 {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it did not end")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn acknowledged_changes_survive_kill_9() {
        let directory = tempfile::tempdir().unwrap();
        let mut acknowledged = BTreeSet::new();
        for round in 0..4_u64 {
            let program = start(directory.path(), None).await;
            let mut adding = tokio::task::JoinSet::new();
            for writer in 0..4 {
                adding.spawn(add_until_killed(program.api.clone(), format!("r{round}-w{writer}")));
            }
            // Not to synchronise: this is the moment of the crash, and any will do.
            tokio::time::sleep(Duration::from_millis(150 + 37 * round)).await;
            drop(program);
            while let Some(names) = adding.join_next().await {
                acknowledged.extend(names.unwrap());
            }
        }
        let mut program = start(directory.path(), None).await;
        let found = names(&mut program).await;
        assert!(acknowledged.len() > 4, "{} were acknowledged", acknowledged.len());
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn on_a_full_disk_it_refuses_and_ends_and_nothing_acknowledged_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let mut program = start(directory.path(), Some(400)).await;
        let (mut acknowledged, mut number) = (Vec::new(), 0);
        let status = loop {
            let name = format!("e-{number}");
            match program.api.create_environment(request(&name)).await {
                Ok(_) => acknowledged.push(name),
                Err(status) => break status,
            }
            number += 1;
        };
        let refusal = Refusal::from_status(&status).unwrap();
        assert_eq!(refusal.reason, Reason::Internal, "{status:?}");
        assert_eq!(ended(&mut program.child).await.code(), Some(1));
        drop(program);
        let mut program = start(directory.path(), None).await;
        let found = names(&mut program).await;
        assert!(!acknowledged.is_empty() && acknowledged.iter().all(|name| found.contains(name)), "{found:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_ends_with_0_when_asked_to() {
        let directory = tempfile::tempdir().unwrap();
        let mut program = start(directory.path(), None).await;
        // The shell's own `kill`: a small machine has no program of that name.
        let kill = Command::new("sh").args(["-c", &format!("kill -TERM {}", program.child.id())]).status();
        assert!(kill.unwrap().success());
        assert_eq!(ended(&mut program.child).await.code(), Some(0));
    }

    #[test]
    fn bad_usage_is_2_and_a_bad_place_is_1() {
        for (arguments, status, word) in [
            (&["--lease-duration", "soon"][..], 2, "--lease-duration"),
            (&["--listen", "0.0.0.0:0"], 2, "--insecure"),
            (
                &["--data-dir", "/proc/nowhere", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"],
                1,
                "--data-dir",
            ),
        ] {
            let output = command(None).args(arguments).output().unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(status), "{told}");
            assert!(told.contains(word), "{told}");
            assert!(status == 2 || told.lines().count() == 1, "{told}");
        }
    }
}
