use proptest::prelude::*;

use super::*;
use crate::spec::Source;

const EXAMPLE: &str = include_str!("../../../examples/environments.yaml");
const SCHEMA: &str = include_str!("../../../docs/environments.schema.json");

fn text(file: &str, text: &str) -> Text {
    Text { file: file.to_owned(), text: text.to_owned() }
}

fn parse(yaml: &str) -> Result<Manifest, Vec<ManifestError>> {
    Manifest::parse(&[text("environments.yaml", yaml)])
}

fn errors(yaml: &str) -> Vec<String> {
    parse(yaml).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn several_documents_in_yaml_and_json_make_one_manifest() {
    let yaml =
        "environments:\n- {name: a, prefix: p:a}\n---\n# nothing\n---\nstores:\n- {name: eu, url: 'redis://eu'}\n";
    let json = "{\"environments\":[\n\t{\"name\":\"b\",\"prefix\":\"p:\\ud83d\\ude00\"}]} {\"environments\":[]}";
    let wrong = Manifest::parse(&[text("a.yaml", yaml), text("b.json", json)]).unwrap_err();
    assert!(wrong[0].to_string().starts_with("b.json, document 1, environment \"b\", prefix: "), "{wrong:?}");
    let json = json.replace("\\ud83d\\ude00", "b");
    let manifest = Manifest::parse(&[text("a.yaml", yaml), text("-", &json)]).unwrap();
    let names: Vec<_> = manifest.environments.iter().map(|one| one.name.as_str()).collect();
    assert_eq!((names.as_slice(), manifest.stores.len()), (["a", "b"].as_slice(), 1));
    assert_eq!(manifest.stores[0].place.to_string(), "a.yaml, document 3, store \"eu\"");
}

#[test]
fn values_of_yaml_can_be_shared() {
    let yaml =
        "environments:\n- &base {name: a, prefix: p:a, labels: {team: x}}\n- {<<: *base, name: b, prefix: p:b}\n";
    assert_eq!(parse(yaml).unwrap().environments[1].spec.labels["team"], "x");
}

#[test]
fn every_error_names_file_document_environment_and_key_and_what_is_allowed() {
    let of = |environment: &str| errors(&format!("environments:\n- {environment}\n")).join("\n");
    for (environment, words) in [
        (
            "{name: a, prefix: p, displayname: x}",
            vec!["environment \"a\", displayname", "unknown field", "`displayName`"],
        ),
        (
            "{name: a, prefix: p, labels: {version: 1}}",
            vec!["environment \"a\", labels.version", "expected a string"],
        ),
        ("{name: A, prefix: ''}", vec!["environment \"A\", name: ", "environment \"A\", prefix: "]),
        ("{prefix: p}", vec!["environment number 1", "missing field `name`"]),
        ("{name: a, prefix: p, source: sse}", vec!["source: \"sse\" is no source", "file:PATH"]),
        ("{name: a, prefix: p, source: poll, initialRetryDelay: 1s}", vec!["initialRetryDelay: goes with"]),
        ("{name: a, prefix: p, pollInterval: 1s}", vec!["pollInterval: goes with source: poll"]),
        ("{name: a, prefix: p, source: poll, pollInterval: 1s}", vec!["pollInterval: 1s is out of range: 30s"]),
        ("{name: a, prefix: p, source: poll, pollInterval: soon}", vec!["pollInterval: not a time", "1m30s"]),
        ("{name: a, prefix: p, source: 'file:../x'}", vec!["source: ", "stays in its directory"]),
        ("{name: a, prefix: p, guard: maybe}", vec!["guard: unknown variant `maybe`", "`confirm`"]),
        ("{name: a, prefix: p, streamUri: 'http://example.com'}", vec!["streamUri: ", "https"]),
        (
            "{name: a, prefix: p, source: 'file:x', sdkKey: {env: K}}",
            vec!["sdkKey: a file source takes no SDK key"],
        ),
        ("a", vec!["environment number 1", "expected struct"]),
    ] {
        let shown = of(environment);
        assert!(shown.starts_with("environments.yaml, document 1, environment"), "{shown}");
        for word in words {
            assert!(shown.contains(word), "{word:?} in {shown}");
        }
    }
    assert!(
        errors("environment: []")[0].contains("document 1, environment: unknown field"),
        "{:?}",
        errors("environment: []")
    );
    assert!(errors("environments: [\n")[0].contains("line"));
    let twice = "environments: [{name: a, prefix: p}]\n---\nenvironments: [{name: a, prefix: q}]";
    assert_eq!(
        errors(twice),
        [
            "environments.yaml, document 2, environment \"a\": is said already in environments.yaml, document 1; say it once"
        ]
    );
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_repeated() {
    const SECRET: &str = "sdk-hunter2";
    for value in [
        SECRET.to_owned(),
        "1234567890".to_owned(),
        format!("[{SECRET}]"),
        format!("{{value: {SECRET}}}"),
        format!("{{file: [{SECRET}]}}"),
        format!("{{file: a, env: {SECRET}}}"),
        "null".to_owned(),
        "{}".to_owned(),
        "{file: ''}".to_owned(),
        format!("{{worker: [{SECRET}]}}"),
        format!("{{worker: 'env:A', env: {SECRET}}}"),
    ] {
        let shown = match parse(&format!("environments: [{{name: a, prefix: p, sdkKey: {value}}}]")) {
            // What is not there is no secret.
            Ok(manifest) => {
                assert_eq!((value.as_str(), &manifest.environments[0].sdk_key), ("null", &None));
                continue;
            }
            Err(errors) => errors[0].to_string(),
        };
        assert!(shown.contains("sdkKey") && shown.contains("{file: PATH}, {env: VARIABLE} or"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("1234567890"), "{shown}");
    }
    for misplaced in [
        "environments: [sdk-hunter2]",
        "environments: sdk-hunter2",
        "environments: [{name: a, prefix: p, labels: 'sdk-hunter2, expected x'}]",
        "sdk-hunter2",
    ] {
        let shown = errors(misplaced).join("");
        assert!(shown.contains("this is of type string, expected ") && !shown.contains("hunter2"), "{shown}");
    }
    let shown = errors("stores: [{name: eu, url: 'redis://u:hunter2@eu'}]").join("");
    assert!(shown.contains("store \"eu\", url: a password is never") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn secrets_are_resolved_by_the_caller_and_checked() {
    let yaml = "environments:\n- {name: a, prefix: p, sdkKey: {file: a.key}}\n- {name: b, prefix: q}\n\
                stores: [{name: eu, url: 'redis://eu', password: {env: PASSWORD}}]";
    let manifest = parse(yaml).unwrap();
    let request = manifest
        .request(|place, source| match source {
            SecretSource::File(path) => Ok(format!("{}-of-{path}\n", &place.file[..3])),
            SecretSource::Env(name) => Ok(format!("{name}!")),
            SecretSource::Worker(_) => unreachable!("workers read it"),
        })
        .unwrap();
    assert_eq!((request.entries[0].sdk_key.as_str(), request.entries[1].sdk_key.as_str()), ("env-of-a.key", ""));
    assert_eq!(request.stores[0].login.as_ref().unwrap().password, "PASSWORD!");
    for (text, words) in [("", "it is empty"), ("sdk-***", "masked")] {
        let wrong = manifest.request(|_, _| Ok(text.to_owned())).unwrap_err();
        assert!(wrong[0].to_string().contains("environment \"a\", sdkKey: "), "{wrong:?}");
        assert!(wrong[0].to_string().contains(words), "{wrong:?}");
    }
    let wrong = manifest.request(|_, _| Err("cannot read it".to_owned())).unwrap_err();
    assert_eq!(wrong.len(), 2);
}

#[test]
fn what_workers_read_is_passed_on_as_it_is() {
    let yaml = "environments: [{name: a, prefix: p, sdkKey: {worker: 'file:team/a'}}]\n\
                stores: [{name: eu, url: 'redis+sentinel://eu/m', username: u, password: {worker: 'env:REDIS'}, \
                sentinelPassword: {worker: 'file:sentinel'}}]";
    let request = parse(yaml).unwrap().request(|_, _| Err("nobody is to be asked".to_owned())).unwrap();
    assert_eq!(request.entries[0].sdk_key, "file:team/a");
    let [login, sentinel] =
        [&request.stores[0].login, &request.stores[0].sentinel_login].map(|one| one.as_ref().unwrap());
    assert_eq!(
        (login.username.as_str(), login.password.as_str(), login.password_from.as_str()),
        ("u", "", "env:REDIS")
    );
    assert_eq!((sentinel.password.as_str(), sentinel.password_from.as_str()), ("", "file:sentinel"));
    for (reference, words) in [("file:../hunter2", "--secrets-dir"), ("hunter2", "file:NAME"), ("", "file:NAME")] {
        let shown =
            errors(&format!("environments: [{{name: a, prefix: p, sdkKey: {{worker: '{reference}'}}}}]")).join("");
        assert!(shown.contains("sdkKey: ") && shown.contains(words) && !shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn environments_are_managed_by_one_or_by_nobody() {
    let manager = |yaml: &str| parse(yaml).unwrap().manager();
    assert_eq!(manager("environments: []"), Ok(Manager::Nobody));
    assert_eq!(manager("environments: [{name: a, prefix: p}]"), Ok(Manager::Nobody));
    let a = "{name: a, prefix: p, labels: {managed-by: git}}";
    assert_eq!(manager(&format!("environments: [{a}]")), Ok(Manager::One("git".to_owned())));
    let mixed = manager(&format!("environments: [{a}, {{name: b, prefix: q}}]")).unwrap_err().to_string();
    assert!(mixed.contains("environment \"b\", labels.managed-by: it is none here and \"git\" at"), "{mixed}");
}

#[test]
fn the_example_is_a_manifest() {
    let manifest = parse(EXAMPLE).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert!(manifest.environments.len() >= 3 && !manifest.stores.is_empty());
    assert!(manifest.environments.iter().any(|one| matches!(one.spec.source, Source::File { .. })));
}

#[test]
fn the_published_schema_is_that_of_the_code() {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(Document)).unwrap() + "\n";
    if std::env::var_os("FLOTILLA_WRITE_SCHEMA").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/environments.schema.json"), &schema).unwrap();
        return;
    }
    assert_eq!(
        SCHEMA, schema,
        "write it anew: FLOTILLA_WRITE_SCHEMA=1 cargo test -p flotilla-proto --features manifest"
    );
}

#[test]
fn keys_are_those_of_the_manifest() {
    for (field, key) in [
        ("spec.display_name", "displayName"),
        ("spec.source.poll.interval", "pollInterval"),
        ("spec.source.file.path", "source"),
        ("sdk_key", "sdkKey"),
        ("spec.labels", "labels"),
        ("displayName", "displayName"),
    ] {
        assert_eq!(key_of(field), key);
    }
}

fn specs() -> impl Strategy<Value = v1::EnvironmentSpec> {
    let token = || prop_oneof![Just(String::new()), "[A-Za-z0-9._-]{1,20}"];
    let uri = || {
        prop_oneof![
            Just(String::new()),
            Just("https://relay.example/base".to_owned()),
            Just("http://127.0.0.1:8030".to_owned())
        ]
    };
    let duration = |longest: u64| (30_000_000_000..longest).prop_map(std::time::Duration::from_nanos);
    let source = prop_oneof![
        Just(Source::Stream { initial_retry_delay: crate::spec::DEFAULT_INITIAL_RETRY_DELAY }),
        (100_000_000..30_000_000_000_u64)
            .prop_map(|nanos| Source::Stream { initial_retry_delay: std::time::Duration::from_nanos(nanos) }),
        Just(Source::Poll { interval: crate::spec::DEFAULT_POLL_INTERVAL }),
        duration(86_400_000_000_000).prop_map(|interval| Source::Poll { interval }),
        "[a-z: #'\"]{1,12}\\.json".prop_map(|path| Source::File { path }),
    ];
    let labels = || prop::collection::btree_map("[A-Za-z0-9._/-]{1,12}", "[A-Za-z0-9._-]{0,12}", 0..4);
    let texts =
        ("[^\\p{Cc}]{0,30}", "[!-~]{1,40}", prop_oneof![Just("default".to_owned()), "[a-z0-9]{1,9}"], token());
    let uris = (uri(), uri(), token(), token());
    (texts, source, uris, labels(), labels(), any::<bool>()).prop_map(
        |((display_name, prefix, store, filter), source, uris, labels, worker_selector, is_off)| {
            v1::EnvironmentSpec {
                display_name,
                prefix,
                store,
                source: Some((&source).into()),
                filter,
                stream_uri: uris.0,
                base_uri: uris.1,
                application_id: uris.2,
                application_version: uris.3,
                labels,
                worker_selector,
                guard: if is_off { v1::GuardPolicy::Off } else { v1::GuardPolicy::Confirm }.into(),
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_exported_is_the_same_again(messages in prop::collection::vec(specs(), 1..4)) {
        let parsed = messages.iter().map(|message| EnvironmentSpec::parse(message, "spec"));
        // What the API would refuse is nowhere.
        let specs: Vec<_> = parsed.filter_map(Result::ok).enumerate()
            .map(|(index, spec)| (format!("e{index}").parse::<EnvironmentName>().unwrap(), spec)).collect();
        let key = |spec: &EnvironmentSpec| (!spec.is_file()).then(|| "file:k".parse().unwrap());
        let exported: Vec<_> = specs.iter()
            .map(|(name, spec)| Exported { name: name.clone(), spec: spec.clone(), sdk_key: key(spec) }).collect();
        let document = export(&exported);
        let yaml = serde_norway::to_string(&document).unwrap();
        let json = serde_json::to_string(&document).unwrap();
        for text in [text("x.yaml", &yaml), text("x.json", &json)] {
            let manifest = Manifest::parse(&[text]).unwrap();
            let again: Vec<_> = manifest.environments.iter().map(|one| (one.name.clone(), one.spec.clone())).collect();
            prop_assert_eq!(&again, &specs, "{}", &yaml);
            for one in &manifest.environments {
                prop_assert_eq!(&one.sdk_key, &key(&one.spec).map(SecretSource::Worker));
            }
            let unchanged = again.iter().zip(&specs).all(|(after, before)| after.1.differences_from(Some(&before.1)).is_empty());
            prop_assert!(unchanged);
        }
    }
}
