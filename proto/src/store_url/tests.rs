use super::*;

#[test]
fn urls_of_the_same_store_have_the_same_endpoint() {
    let endpoint = |url| StoreUrl::parse("url", url).unwrap().endpoint();
    for same in ["redis://localhost", "redis://127.0.0.1:6379/0", "redis://u:p@LOCALHOST/", "rediss://[::1]"] {
        assert_eq!(endpoint(same), endpoint("redis://127.0.0.1"), "{same}");
    }
    assert_ne!(endpoint("redis://localhost/1"), endpoint("redis://localhost"));
    assert_ne!(endpoint("redis://localhost:6380"), endpoint("redis://localhost"));
}

#[test]
fn a_password_is_not_shown() {
    let url = StoreUrl::parse("url", "redis://user:hunter2@example.test:1/3").unwrap();
    assert!(!format!("{url:?}").contains("hunter2"));
    let violation = StoreUrl::parse("url", "redis://user:hunter2@example.test:1/x3").unwrap_err();
    assert!(!violation.to_string().contains("hunter2"));
}

#[test]
fn a_password_in_a_query_is_not_shown() {
    for (url, shown) in [
        ("redis+unix:///run/redis.sock?user=u&pass=hunter2", "redis+unix:///run/redis.sock"),
        ("redis+unix:///run/redis.sock?db=3&pass=hunter2", "redis+unix:///run/redis.sock?db=3"),
        ("unix:///run/redis.sock?pass=x", "redis+unix:///run/redis.sock"),
        ("redis://example.test/1?pass=hunter2", "redis://example.test:6379/1"),
    ] {
        assert_eq!(StoreUrl::parse("url", url).unwrap().redacted(), shown);
    }
}

#[test]
fn every_topology_is_read_and_written_again() {
    for (text, shown) in [
        ("redis://example.test/3", "redis://example.test:6379/3"),
        ("rediss://u:p%40%2B@example.test:1?tls-ca=/ca&tls-cert=/c&tls-key=/k", "rediss://example.test:1"),
        (
            "redis+sentinel://a,b:2,[::1]:3/mymaster/4?sentinel-password=x",
            "redis+sentinel://a:26379,b:2,[::1]:3/mymaster/4",
        ),
        ("rediss+sentinel://a/m", "rediss+sentinel://a:26379/m"),
        ("redis+cluster://u:p@a,b", "redis+cluster://a:6379,b:6379"),
        ("rediss+cluster://a/0", "rediss+cluster://a:6379"),
        ("redis+unix:///run/a%20b?db=2", "redis+unix:///run/a b?db=2"),
        ("redis://u@a?password-from=file:redis/main", "redis://a:6379"),
        ("redis+sentinel://a/m?password-from=env:P&sentinel-password-from=env:S", "redis+sentinel://a:26379/m"),
    ] {
        let url = StoreUrl::parse("url", text).unwrap();
        assert_eq!(url.redacted(), shown);
        assert_eq!(StoreUrl::parse("url", url.expose()).unwrap(), url, "{text}");
    }
    let url = StoreUrl::parse("url", "rediss://u:p%40%2B@example.test").unwrap();
    assert_eq!((url.login.username.as_str(), url.login.password.as_str()), ("u", "p@+"));
}

#[test]
fn what_makes_no_sense_is_refused_without_a_secret() {
    for (bad, part) in [
        ("example.test", "no scheme"),
        ("http://hunter2@example.test", "\"http\" are not supported"),
        ("redis://", "host"),
        ("redis://:hunter2@a,b", "more than one host"),
        ("redis://:hunter2@a:x", "port"),
        ("redis+sentinel://:hunter2@a", "master is missing"),
        ("redis+cluster://a/1", "one database"),
        ("redis://a?hunter2", "another name"),
        ("redis://a?db=3&pass=hunter2", "only a socket"),
        ("redis+unix://run/redis.sock?pass=hunter2", "no host"),
        ("redis://user:1#hunter2@h", "%23"),
        ("redis+unix:///a?db=hunter2", "not a number"),
        ("redis://user/hunter2@a", "%2F"),
        ("redis://a?tls-ca=/ca", "no TLS"),
        ("rediss://a?tls-cert=/c", "come together"),
        ("rediss://a?tls-ca=ca.pem", "absolute"),
        ("redis://a?sentinel-password=hunter2", "names none"),
        ("redis://a?sentinel-password-from=env:S", "names none"),
        ("redis://:hunter2@a?password-from=env:P", "one of the two"),
        ("redis://a?pass=hunter2&password-from=env:P", "one of the two"),
        ("redis://a?password-from=hunter2", "password-from: a reference to a secret is file:NAME"),
        ("redis://a?password-from=file:../hunter2", "--secrets-dir"),
        ("redis+sentinel://a/m?sentinel-password-from=env:hunter2", "sentinel-password-from: in env:NAME"),
    ] {
        let violation = StoreUrl::parse("url", bad).unwrap_err().to_string();
        assert!(violation.contains(part) && !violation.contains("hunter2"), "{bad}: {violation}");
    }
}

#[test]
fn access_is_added_to_a_url() {
    let url = |text| StoreUrl::parse("url", text).unwrap();
    let login = Login { username: "u".into(), password: Zeroizing::new("p&=".into()) };
    let files = TlsFiles { ca: Some("/ca".into()), ..TlsFiles::default() };
    let none = Login::default;
    let whole = url("rediss://a").with_access("url", login.clone(), none(), files.clone()).unwrap();
    assert_eq!((&whole.login, whole.tls.as_ref()), (&login, Some(&files)));
    assert_eq!(url(whole.expose()), whole);
    assert!(url("redis://a").with_access("url", none(), none(), files).is_err());
    assert!(url("redis://a").with_access("url", none(), login, TlsFiles::default()).is_err());
}

#[test]
fn a_password_is_given_or_referred_to() {
    let url = |text: &str| StoreUrl::parse("url", text).unwrap();
    let login = |password: &str| Login { username: String::new(), password: Zeroizing::new(password.into()) };
    let from = |redis: &str| PasswordsFrom { redis: Some(redis.parse().unwrap()), sentinel: None };
    let as_literal = |url: StoreUrl| url.with_access("url", login("p"), login(""), TlsFiles::default()).unwrap();
    let as_reference = |url: StoreUrl| url.with_passwords_from("url", from("file:redis")).unwrap();
    for present in ["redis://u@a", "redis://u:old@a", "redis://u@a?password-from=env:OLD"] {
        let (literal, referred) = (as_literal(url(present)), as_reference(url(present)));
        assert_eq!((literal.login.password.as_str(), &literal.passwords_from), ("p", &PasswordsFrom::default()));
        assert_eq!((referred.login.password.as_str(), &referred.passwords_from), ("", &from("file:redis")));
        assert_eq!((literal.login.username.as_str(), referred.login.username.as_str()), ("u", "u"));
        assert_eq!(url(referred.expose()), referred);
        assert!(!referred.expose().contains("old"));
    }
    let kept =
        url("redis://u@a?password-from=env:OLD").with_passwords_from("url", PasswordsFrom::default()).unwrap();
    assert_eq!(kept.passwords_from, from("env:OLD"));
    let sentinel = PasswordsFrom { redis: None, sentinel: Some("env:S".parse().unwrap()) };
    assert!(url("redis://a").with_passwords_from("url", sentinel.clone()).is_err());
    let whole =
        url("redis+sentinel://a/m?sentinel-password=x").with_passwords_from("url", sentinel.clone()).unwrap();
    assert_eq!((whole.sentinel_login.password.as_str(), whole.passwords_from), ("", sentinel));
}

#[test]
fn endpoints_meet_where_one_address_is_common() {
    let endpoint = |text| StoreUrl::parse("url", text).unwrap().endpoint();
    let meet = |a, b| endpoint(a).meets(&endpoint(b));
    assert!(meet("redis+sentinel://a,b/m", "rediss+sentinel://b:26379,c/m/0"));
    assert!(!meet("redis+sentinel://a,b/m", "redis+sentinel://a,b/other"));
    assert!(meet("redis+cluster://a,b", "redis+cluster://b"));
    assert!(meet("redis+cluster://a,b", "redis://b"));
    assert!(!meet("redis+cluster://a,b", "redis+sentinel://a:6379/m"));
    for text in ["redis+sentinel://a,b/m/3", "redis+unix:///run/x/y?db=1", "redis+cluster://[::1]:7,b"] {
        assert_eq!(StoreEndpoint::parse(&endpoint(text).to_string()), Some(endpoint(text)), "{text}");
    }
}

#[test]
fn in_a_cluster_a_prefix_has_a_hash_tag() {
    let cluster = StoreUrl::parse("url", "redis+cluster://a").unwrap();
    let check = |prefix: &str| cluster.check_prefix(&prefix.parse().unwrap());
    for good in ["{a}", "ld:{spree}:x", "}{a}"] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    for bad in ["ld:a", "{}ld:a", "{ld:a", "{}{ld:a}", "ld:a}"] {
        assert!(check(bad).unwrap_err().ends_with("use {ld:a}"), "{bad}");
    }
    let alone = StoreUrl::parse("url", "redis://a").unwrap();
    assert_eq!(alone.check_prefix(&"ld:a".parse().unwrap()), Ok(()));
}
