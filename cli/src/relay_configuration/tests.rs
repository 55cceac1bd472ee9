use std::fmt::Write as _;

use flotilla_proto::manifest::{Manifest, SecretSource, Text};
use proptest::prelude::*;

use super::options::{Honoured, Meaning, OPTIONS, Variable};
use super::variables::{PROXIES, PROXY_PROBLEM};
use super::*;

const SEED_FILE: &str = include_str!("../../../tests/fixtures/relay/ld-relay.conf");
const SEED_VARIABLES: &str = include_str!("../../../tests/fixtures/relay/ld-relay.env");
const EVERYTHING: &str = include_str!("../../../tests/fixtures/relay/everything.conf");

fn of_file(text: &str) -> Result<RelayConfiguration, Vec<RelayError>> {
    RelayConfiguration::of_file("ld-relay.conf", text)
}

fn of_variables(text: &str) -> Result<RelayConfiguration, Vec<RelayError>> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    RelayConfiguration::of_variables(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())))
}

fn relay() -> StoreChoice {
    StoreChoice::New("relay".parse().unwrap())
}

fn yaml(declared: &Declared) -> String {
    serde_norway::to_string(&declared.document).unwrap()
}

/// Whatever can be said of a configuration.
fn shown(configuration: &RelayConfiguration) -> String {
    let mut text = String::new();
    configuration.warnings.iter().for_each(|line| writeln!(text, "warning: {line}").unwrap());
    configuration.not_needed.iter().for_each(|line| writeln!(text, "not needed: {line}").unwrap());
    text + &yaml(&configuration.declared(&relay(), &SecretPlace::Variables))
}

/// All that is wrong, a line each.
fn errors(result: Result<RelayConfiguration, Vec<RelayError>>) -> String {
    let lines: Vec<_> = result.unwrap_err().iter().map(ToString::to_string).collect();
    lines.join("\n") + "\n"
}

#[test]
fn the_file_of_the_relays_documentation_is_a_manifest() {
    insta::assert_snapshot!(shown(&of_file(SEED_FILE).unwrap()));
}

#[test]
fn the_variables_of_the_relays_documentation_are_a_manifest() {
    insta::assert_snapshot!(shown(&of_variables(SEED_VARIABLES).unwrap()));
}

#[test]
fn everything_has_its_meaning() {
    let configuration = of_file(EVERYTHING).unwrap();
    insta::assert_snapshot!(shown(&configuration));
    assert_eq!(configuration.redis.login.password.as_str(), "a#b;\"c\\");
    assert_eq!(configuration.redis.redacted(), "rediss://redis.example:6380/2");
}

#[test]
fn secrets_are_named_and_can_be_found() {
    let configuration = of_file(EVERYTHING).unwrap();
    for secrets in [SecretPlace::Variables, SecretPlace::Files("keys/".to_owned())] {
        let declared = configuration.declared(&relay(), &secrets);
        let manifest = Manifest::parse(&[Text { file: "x.yaml".to_owned(), text: yaml(&declared) }]).unwrap();
        let request = manifest
            .request(|_, source| declared.secret(source).map(ToOwned::to_owned).ok_or_else(String::new))
            .unwrap();
        let keys: Vec<_> = request.entries.iter().map(|entry| entry.sdk_key.rsplit('0').next().unwrap()).collect();
        assert_eq!(keys, ["a1", "a1", "a1", "a2", "a2", "a2", "a3"]);
        assert_eq!(request.stores[0].login.as_ref().unwrap().password, "a#b;\"c\\");
        assert_eq!(declared.secrets().count(), 4);
        let is_file =
            |source: &SecretSource| matches!(source, SecretSource::File(path) if path.starts_with("keys/"));
        assert_eq!(declared.secrets().all(|(source, _)| is_file(source)), declared.made_up.is_empty());
    }
    let alike =
        "[Redis]\nport=1\n[Environment \"a.b\"]\nsdkKey=x\nprefix=p\n[Environment \"a-b\"]\nsdkKey=y\nprefix=q\n";
    let made_up = of_file(alike).unwrap().declared(&relay(), &SecretPlace::Variables).made_up;
    assert_eq!(made_up.into_iter().collect::<Vec<_>>(), ["SDK_KEY_A_B", "SDK_KEY_A_B_2"]);
}

#[test]
fn redis_is_found_as_the_relay_finds_it() {
    let environment = "\n[Environment \"a\"]\nsdkKey = x\nprefix = p\n";
    for (redis, wanted) in [
        ("[Redis]\nhost = redis", "redis://redis:6379"),
        ("[Redis]\nport = 6380", "redis://localhost:6380"),
        ("[Redis]\nhost = ::1\ntls", "rediss://[::1]:6379"),
        ("[Redis]\nurl = redis://u:p@redis/3", "redis://redis:6379/3"),
        ("[Redis]\nurl = redis://redis\ntls = yes", "rediss://redis:6379"),
    ] {
        let configuration = of_file(&format!("{redis}{environment}")).unwrap();
        assert_eq!(configuration.redis.redacted(), wanted, "{redis}");
    }
    let variables = |redis: &str| of_variables(&format!("USE_REDIS=1\n{redis}\nLD_ENV_a=x"));
    for (redis, wanted) in [
        ("", "redis://localhost:6379"),
        ("REDIS_PORT=tcp://redis:6380", "redis://redis:6380"),
        ("REDIS_URL=redis://redis/1\nREDIS_PASSWORD=p\nREDIS_TLS=true", "rediss://redis:6379/1"),
    ] {
        assert_eq!(variables(redis).unwrap().redis.redacted(), wanted, "{redis}");
    }
}

#[test]
fn what_is_wrong_in_a_file_is_named_with_its_line() {
    const REST: &str = "\n[Redis]\nport = 6379\n[Environment \"a\"]\nsdkKey = KEY\nprefix = p\n";
    let mut all = String::new();
    for text in [
        format!("[Redis]\nhots = x\n[Rediss]\n[Main \"x\"]\n[Environment \"b\"]\nsdkey = x{REST}"),
        format!("x = 1{REST}"),
        format!("[Main]\nport = \"8030{REST}"),
        format!("[Main]\nstreamUri = http://relay.example\nbaseUri = nonsense{REST}"),
        "[Redis]\nport = 6379\n[Main]\nport = 8030\n".to_owned(),
        "[Redis]\nlocalTtl = 30s\n[Environment \"a\"]\nsdkKey = KEY\n".to_owned(),
        "[Redis]\nport = 6379\n[Environment \"a\"]\nprefix = p\n[Environment \"b\"]\nsdkKey = K E Y\n".to_owned(),
        "[Redis]\nport = 6379\n[Environment]\nsdkKey = KEY\n".to_owned(),
        "[Redis]\nport = 6379\n[Environment \"日本\"]\nsdkKey = KEY\nprefix = a b\n".to_owned(),
        format!("[Redis]\nurl = redis://h{REST}"),
        "[Redis]\nhost = \"a\\\\b\"\n[Environment \"a\"]\nsdkKey = KEY\n".to_owned(),
        "[Redis]\nhost = a b\nport = x\ntls =\n[Environment \"a\"]\nsdkKey = KEY\n".to_owned(),
        "[Redis]\nport = x\n[Environment \"a\"]\nsdkKey = KEY\n".to_owned(),
        "[Redis]\nurl = redis://:hunter2@h\npassword = hunter3\n[Environment \"a\"]\nsdkKey = KEY\n".to_owned(),
        format!(
            "{REST}[Environment \"b\"]\nsdkKey = KEY\nprefix = p\n[Environment \"A\"]\nsdkKey = KEY\nprefix = q\n"
        ),
        "[AutoConfig]\nkey = rel-1\nenvDatastorePrefix = ld-$CID\n[Redis]\nport = 6379\n".to_owned(),
        "[OfflineMode]\nfileDataSource = /data.tar.gz\n[Redis]\nport = 6379\n".to_owned(),
        format!("[Proxy]\nurl = http://proxy\nuser = u\npassword = hunter2{REST}tableName = t\n"),
        "[DynamoDB]\nenabled = true\ntableName = t\n[Environment \"a\"]\nsdkKey = KEY\n".to_owned(),
        "[Consul]\nhost = consul\ntoken = hunter2\n[Environment \"a\"]\nsdkKey = KEY\n".to_owned(),
        format!("{REST}[Filters \"q\"]\nkeys = ,\n"),
        format!("{REST}projKey = q\n[Filters \"q\"]\nkeys = a,,b\n"),
        "[Redis]\nport = 1\n[Environment \"a\"]\nsdkKey = KEY\nprojKey = q\n[Filters \"q\"]\nkeys = a\n".to_owned(),
    ] {
        writeln!(all, "{}\n", errors(of_file(&text)).trim_end()).unwrap();
    }
    assert!(!all.contains("KEY") && !all.contains("hunter") && !all.contains("rel-1"), "{all}");
    insta::assert_snapshot!(all);
}

#[test]
fn what_is_wrong_in_variables_is_named() {
    const REST: &str = "USE_REDIS=1\nLD_ENV_a=KEY\nLD_PREFIX_a=p";
    let mut all = String::new();
    for text in [
        format!("{REST}\nLD_PREFX_a=x\nLD_PREFIX_b=x\nLD_TTL_MINUTES_a=1\nREDIS_TTL=1\nEVENTS_SAMPLING_INTERVAL=1"),
        "REDIS_HOST=redis\nLD_ENV_a=KEY".to_owned(),
        "USE_REDIS=perhaps\nLD_ENV_a=KEY".to_owned(),
        format!("{REST}\nREDIS_PORT=tcp://redis"),
        format!("{REST}\nREDIS_PORT=tcp://redishost:xxx"),
        format!("{REST}\nLD_ENV_A=KEY\nLD_PREFIX_A=q"),
        format!("{REST}\nUSE_DYNAMODB=1\nDYNAMODB_TABLE=t\nUSE_CONSUL=true\nAUTO_CONFIG_KEY=rel-1"),
        format!("{REST}\nFILE_DATA_SOURCE=/x\nPROXY_URL=http://x\nLD_TABLE_NAME_a=t"),
        format!("{REST}\nLD_ENV_b=KEY"),
        String::new(),
    ] {
        writeln!(all, "{}\n", errors(of_variables(&text)).trim_end()).unwrap();
    }
    assert!(!all.contains("KEY\n") && !all.contains("rel-1"), "{all}");
    insta::assert_snapshot!(all);
}

#[test]
fn other_variables_are_left_alone() {
    let text = "USE_REDIS=1\nLD_ENV_a=KEY\nLD_LIBRARY_PATH=/lib\nPATH=/bin\nUSE_CONSUL=0\nCONSUL_HOST=c\nDYNAMODB_TABLE=t\n\
                LD_PREFIX_a=\nLD_PREFIX_gone=\nLD_PREFX_a=p";
    let configuration = of_variables(text).unwrap();
    assert_eq!(configuration.environments[0].prefix.as_str(), "launchdarkly");
    let [unknown, no_prefix] = &configuration.warnings[..] else { panic!("{:?}", configuration.warnings) };
    assert!(unknown.starts_with("LD_PREFX_a: the relay knows no such variable"), "{unknown}");
    assert!(no_prefix.contains("does not have a prefix"), "{no_prefix}");
    assert_eq!(configuration.not_needed.len(), 3, "{:?}", configuration.not_needed);
}

/// What a fuzzer found: the relay takes any name, and a display name is not any text.
#[test]
fn a_name_that_cannot_be_shown_is_shown_as_far_as_it_can() {
    let configuration = of_variables("USE_REDIS=1\nLD_ENV_a\u{1}b=KEY\nLD_PREFIX_a\u{1}b=p").unwrap();
    assert!(yaml(&configuration.declared(&relay(), &SecretPlace::Variables)).contains("displayName: ab\n"));
    let project = format!("LD_PROJ_KEY_aaaa=x\nLD_FILTER_KEYS_x={}", "k".repeat(254));
    let configuration =
        of_variables(&format!("USE_REDIS=1\nLD_ENV_aaaa=KEY\nLD_PREFIX_aaaa=p\n{project}")).unwrap();
    let declared = configuration.declared(&relay(), &SecretPlace::Variables);
    let shown = declared.document.environments[1].display_name.as_ref().unwrap();
    assert!(shown.starts_with("aaaa/kkk") && shown.len() == 256, "{shown}");
}

#[test]
fn a_filter_that_cannot_be_one_is_named() {
    const FILE: &str = "[Redis]\nport = 6379\n[Environment \"e\"]\nsdkKey = KEY\nprefix = p\n";
    let failed = errors(of_file(&format!("{FILE}filterKey = \"a b\"\n")));
    assert!(failed.starts_with("ld-relay.conf:6: [Environment \"e\"] filterKey: not a filter key"), "{failed}");
    assert_eq!(of_file(&format!("{FILE}filterKey =\n")).unwrap().environments[0].filter, None);
}

/// Each, beside what makes a configuration whole.
#[test]
fn every_option_of_the_relay_is_honoured_told_or_refused() {
    const FILE: &str = "[Redis]\nport = 6379\n[Environment \"e\"]\nsdkKey = KEY\nprefix = p\nprojKey = e\n";
    const VARIABLES: &str = "USE_REDIS=1\nLD_ENV_e=KEY\nLD_PREFIX_e=p\nLD_PROJ_KEY_e=e\n";
    for option in OPTIONS {
        let valid = match option.meaning {
            Meaning::Honoured(Honoured::RedisPort) => "6379",
            Meaning::Honoured(Honoured::RedisUrl) => "redis://localhost",
            Meaning::Honoured(Honoured::StreamUri | Honoured::BaseUri) => "https://localhost",
            Meaning::Honoured(Honoured::RedisCa) => "/ca.pem",
            Meaning::Honoured(Honoured::ProjectKey) => "e",
            Meaning::Honoured(_) | Meaning::NotNeeded(_) | Meaning::Unsupported(_) => "1",
        };
        if !option.key.is_empty() {
            let name = if matches!(option.section, "Environment" | "Filters") { " \"e\"" } else { "" };
            let section = format!("[{}{name}]\n{} = {valid}\n", option.section, option.key);
            check(option, of_file(&format!("{FILE}{section}")), &section);
        }
        let variable = match option.variable {
            Variable::Nowhere => continue,
            Variable::Named(name) => format!("{name}={valid}"),
            Variable::Each(begin) => format!("{begin}e={valid}"),
        };
        check(option, of_variables(&format!("{VARIABLES}{variable}")), &variable);
    }
}

fn check(option: &options::RelayOption, result: Result<RelayConfiguration, Vec<RelayError>>, text: &str) {
    let (is_refused, told) = match result {
        Ok(configuration) => (false, configuration.not_needed.join("\n")),
        Err(errors) => (true, errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    };
    match option.meaning {
        // Some go with others only, or not with those that are there.
        Meaning::Honoured(_) => {
            assert!(!told.contains("misspelled"), "{text}: {told}");
        }
        Meaning::NotNeeded(why) => assert!(!is_refused && told.ends_with(why), "{text}: {told}"),
        Meaning::Unsupported(what) if is_refused => assert!(told.contains(what.way_out()), "{text}: {told}"),
        // It is of what has a switch of its own, and that is off.
        Meaning::Unsupported(_) => assert!(told.ends_with("it is not switched on"), "{text}: {told}"),
    }
}

proptest! {
    #[test]
    fn no_file_is_too_much(text in "(\\[(Main|Redis|Environment|Filters|Proxy)( \"[a-zé/]{0,3}\")?\\]\n|(host|port|url|tls|sdkKey|prefix|keys|projKey|password|[a-z]{1,3}) ?=? ?[ -~é]{0,9}\n){0,9}") {
        match of_file(&text) {
            Ok(configuration) => { shown(&configuration); }
            Err(errors) => prop_assert!(!errors.is_empty()),
        }
    }

    #[test]
    fn no_variables_are_too_much(pairs in prop::collection::vec(("(USE_REDIS|REDIS_(HOST|PORT|URL|TLS)|LD_(ENV|PREFIX|FILTER_KEYS|PROJ_KEY)_[ab]|[A-Z_]{0,5})", "1|\\PC{0,9}|tcp://[a-z:]{0,5}"), 0..9)) {
        match RelayConfiguration::of_variables(pairs) {
            Ok(configuration) => { shown(&configuration); }
            Err(errors) => prop_assert!(!errors.is_empty()),
        }
    }
}

/// The table of `docs/import.md`.
fn table_of_options() -> String {
    let mut text = "| file | variable | here |\n|---|---|---|\n".to_owned();
    let mut rows: Vec<(String, String, String)> = Vec::new();
    for option in OPTIONS {
        let key = format!("`{}`", option.key);
        let variable = match option.variable {
            Variable::Nowhere => String::new(),
            Variable::Named(name) => format!("`{name}`"),
            Variable::Each(begin) => format!("`{begin}…`"),
        };
        let here = match option.meaning {
            Meaning::Honoured(_) => "**honoured**".to_owned(),
            Meaning::NotNeeded(why) => format!("not needed: {why}"),
            Meaning::Unsupported(what) => format!("**an error**: {}", what.way_out()),
        };
        let section = format!("`[{}]`", option.section);
        let key = if option.key.is_empty() { String::new() } else { format!(" {key}") };
        match rows.last_mut() {
            Some((keys, variables, last)) if keys.starts_with(&section) && *last == here => {
                keys.push_str(&key);
                if !variable.is_empty() {
                    variables.push_str(if variables.is_empty() { "" } else { " " });
                    variables.push_str(&variable);
                }
            }
            Some(_) | None => rows.push((section + &key, variable, here)),
        }
    }
    let proxies = PROXIES.map(|name| format!("`{name}`")).join(" ");
    rows.push((String::new(), proxies, format!("**an error**: {PROXY_PROBLEM}")));
    for (keys, variables, here) in rows {
        writeln!(text, "| {keys} | {variables} | {here} |").unwrap();
    }
    text
}

#[test]
fn the_documented_table_is_that_of_the_code() {
    const BEGIN: &str = "<!-- the table is written by a test of the command line -->\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/import.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, _) = text.split_once(BEGIN).unwrap();
    let wanted = format!("{before}{BEGIN}{}", table_of_options());
    if std::env::var_os("FLOTILLA_UPDATE_DOCS").is_some() {
        std::fs::write(path, wanted).unwrap();
        return;
    }
    assert_eq!(
        text, wanted,
        "write it anew: FLOTILLA_UPDATE_DOCS=1 cargo test -p flotilla-cli --lib relay_configuration"
    );
}
