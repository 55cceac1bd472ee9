//! What is tried against a control with TLS and tokens, and what it answers.

use flotilla_tests::harness::{Fleet, wait_until};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd,
};

use super::{file, reloaded, reloads};
use crate::stored::BOUND;

/// Runs a command, which must end with this status and say all these words.
async fn refused(fleet: &Fleet, arguments: &[&str], status: i32, words: &[&str]) {
    let output = fleet.cli(arguments).await.unwrap();
    assert_eq!(output.status, status, "{arguments:?}: {output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "{arguments:?}: {word:?} in {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_do_what_their_role_includes() {
    let fleet = Fleet::builder().secured().start().await.unwrap();
    let [viewer, operator, worker] =
        ["viewer", "operator", "worker-w1"].map(|name| file(&fleet, &format!("tokens/{name}.token")));
    let none = file(&fleet, "unknown.token");
    std::fs::write(&none, "flotilla_unknown\n").unwrap();
    let add = ["env", "add", "a", "--prefix", "p", "--source", "file:x.json", "--token-file"];
    for (arguments, words) in [
        (&["env", "list", "--token-file", &none][..], &["ListEnvironments needs role viewer", "hint: "][..]),
        (&["env", "list", "--token-file", &worker], &["needs role viewer; \"w1\" has role worker (w1)"]),
        (
            &["worker", "cordon", "w1", "--token-file", &viewer],
            &["needs role operator; \"viewer\" has role viewer"],
        ),
        (
            &["worker", "forget", "w1", "--yes", "--token-file", &operator],
            &["needs role admin", "has role operator"],
        ),
        (&[&add[..], &[&viewer]].concat(), &["CreateEnvironment needs role admin"]),
        (&[&add[..], &[&operator]].concat(), &["CreateEnvironment needs role admin"]),
        (&["data", "verify", "a", "--repair", "--token-file", &viewer], &["needs role operator"]),
    ] {
        refused(&fleet, arguments, 6, words).await;
    }
    fleet.cli(&["env", "list", "--token-file", &viewer]).await.unwrap().expect_success();
    fleet.cli(&["worker", "cordon", "w1", "--token-file", &operator]).await.unwrap().expect_success();
    // No token at all.
    let mut command = fleet.cli_command(&["env", "list"]).unwrap();
    let output = command.env_remove("FLOTILLA_TOKEN_FILE").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("neither a token nor a client certificate") && said.contains("--token-file"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_for_workers_under_their_own_names() {
    let mut fleet = Fleet::builder().workers(0).secured().start().await.unwrap();
    // w1 with the token of an admin, and w2 with that of w1.
    fleet.add_worker_with(&["--token-file", &file(&fleet, "tokens/admin.token")]).await.unwrap();
    fleet.add_worker_with(&["--token-file", &file(&fleet, "tokens/worker-w1.token")]).await.unwrap();
    for (index, words) in [
        (0, "WorkerService/Session needs role worker; \\\"admin\\\" has role admin"),
        (1, "\\\"w1\\\" has role worker (w1) and may not be worker w2"),
    ] {
        let worker = fleet.worker(index);
        wait_until("it is told why", BOUND, async || {
            let log = worker.log();
            if log.contains(words) { Ok(()) } else { Err(log) }
        })
        .await;
    }
    let workers = fleet.cli(&["worker", "list", "-o", "json"]).await.unwrap().json().unwrap();
    assert_eq!(workers["workers"].as_array().unwrap().len(), 0, "{workers}");
}

/// Signs with the fleet's authority what it would not sign any more.
fn expired(fleet: &Fleet, name: &str, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
    let mut authority = CertificateParams::default();
    authority.distinguished_name = DistinguishedName::new();
    authority.distinguished_name.push(DnType::CommonName, "Flotilla private authority");
    let key = KeyPair::from_pem(&std::fs::read_to_string(file(fleet, "tls/ca.key")).unwrap()).unwrap();
    let authority = Issuer::new(authority, key);
    let mut params = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages = vec![purpose];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_is_believed_with_a_valid_certificate_of_its_authority_only() {
    let mut fleet = Fleet::builder().workers(0).secured().start().await.unwrap();
    let other = file(&fleet, "other");
    fleet.cli(&["init", "tls", &other]).await.unwrap().expect_success();
    refused(&fleet, &["status", "--ca", &format!("{other}/ca.pem")], 5, &["certificate", "--ca FILE"]).await;
    let mut command = fleet.cli_command(&["status"]).unwrap();
    let output = command.env_remove("FLOTILLA_CA").output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("UnknownIssuer"), "{output:?}");

    // Plain text to the port of TLS; a token beyond loopback is not even sent.
    let address = fleet.control_listening().grpc.unwrap();
    let plain = |url: &str, tokens: bool| {
        let mut command = fleet.cli_command(&[]).unwrap();
        command.env_remove("FLOTILLA_CA").env("FLOTILLA_CONTROL", url);
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut again = std::process::Command::new(command.get_program());
        again.args(arguments.into_iter().skip(2)).args(["--control", url, "status"]);
        again.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("FLOTILLA_CA");
        if !tokens {
            again.env_remove("FLOTILLA_TOKEN_FILE");
        }
        let output = again.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, said) = plain(&format!("http://{address}"), true);
    assert_eq!(status, Some(5), "{said}");
    assert!(said.contains("https://"), "{said}");
    let (status, said) = plain("http://control.example:7400", true);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("keys and tokens would travel readably") && said.contains("--insecure"), "{said}");

    // An expired one, which control takes, for its clock may be wrong as well.
    let (certificate, key) = expired(&fleet, "localhost", ExtendedKeyUsagePurpose::ServerAuth);
    std::fs::write(file(&fleet, "tls/control.key"), key).unwrap();
    std::fs::write(file(&fleet, "tls/control.pem"), certificate).unwrap();
    reloaded(&mut fleet, 0).await;
    refused(&fleet, &["status"], 5, &["xpired", "--renew"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_are_of_the_authority_valid_and_named() {
    let arguments = ["--client-certs", "required"];
    let mut fleet = Fleet::builder().workers(0).secured().control_arguments(&arguments).start().await.unwrap();
    refused(&fleet, &["status"], 5, &["client certificate", "--client-cert FILE"]).await;
    let other = file(&fleet, "other");
    fleet.cli(&["init", "tls", &other, "--client", "ops.example"]).await.unwrap().expect_success();
    let (certificate, key) = expired(&fleet, "ops.example", ExtendedKeyUsagePurpose::ClientAuth);
    std::fs::write(file(&fleet, "old.pem"), certificate).unwrap();
    std::fs::write(file(&fleet, "old.key"), key).unwrap();
    let with = |name: &str| {
        let (certificate, key) = (file(&fleet, &format!("{name}.pem")), file(&fleet, &format!("{name}.key")));
        ["status".to_owned(), "--client-cert".to_owned(), certificate, "--client-key".to_owned(), key]
    };
    let tries = ["other/ops.example", "old"].map(with);
    for arguments in tries {
        refused(&fleet, &arguments.each_ref().map(String::as_str), 5, &["client certificate, valid"]).await;
    }
    // A good one and a token: the token says who it is.
    let good = with("tls/ops.example");
    let good = good.each_ref().map(String::as_str);
    assert_eq!(fleet.cli(&good).await.unwrap().status, 0);
    // Without a token its name does, once it is known.
    let run = |fleet: &Fleet| {
        let mut command = fleet.cli_command(&good).unwrap();
        let output = command.env_remove("FLOTILLA_TOKEN_FILE").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, said) = run(&fleet);
    assert_eq!(status, Some(6), "{said}");
    assert!(said.contains("ops.example"), "{said}");
    let path = file(&fleet, "tokens/tokens.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + "\n[[certificate]]\nname = \"ops.example\"\nrole = \"viewer\"\n").unwrap();
    let before = reloads(&fleet.control().log());
    reloaded(&mut fleet, before).await;
    assert_eq!(run(&fleet).0, Some(0));
}
