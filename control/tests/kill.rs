//! What `flotilla-control` acknowledged is there after kill -9, at whatever moment it comes.

// A module of tests, so that helpers too may `unwrap`.
#[cfg(test)]
mod kill {
    use std::collections::BTreeSet;
    use std::io::{BufRead as _, BufReader};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use flotilla_proto::v1;
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

    async fn start(directory: &Path) -> Program {
        let mut child = Command::new(env!("CARGO_BIN_EXE_flotilla-control"))
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

    #[tokio::test(flavor = "multi_thread")]
    async fn acknowledged_changes_survive_kill_9() {
        let directory = tempfile::tempdir().unwrap();
        let mut acknowledged = BTreeSet::new();
        for round in 0..4_u64 {
            let program = start(directory.path()).await;
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
        let mut program = start(directory.path()).await;
        let (mut found, mut page_token) = (BTreeSet::new(), String::new());
        loop {
            let request = v1::ListEnvironmentsRequest { page_size: 1000, page_token, filter: None };
            let page = program.api.list_environments(request).await.unwrap().into_inner();
            found.extend(page.environments.into_iter().map(|one| one.name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert!(acknowledged.len() > 4, "{} were acknowledged", acknowledged.len());
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        println!("{} acknowledged, {} found", acknowledged.len(), found.len());
    }
}
