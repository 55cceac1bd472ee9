use super::*;

fn mask(paths: &[&str]) -> prost_types::FieldMask {
    prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }
}

fn url(text: &str) -> StoreUrl {
    StoreUrl::parse("url", text).unwrap()
}

fn login(username: &str, password: &str) -> v1::StoreLogin {
    v1::StoreLogin { username: username.to_owned(), password: password.to_owned(), password_from: String::new() }
}

/// A request with a value in each field.
fn full() -> v1::UpdateStoreRequest {
    v1::UpdateStoreRequest {
        url: "rediss+sentinel://a,b,c/m".to_owned(),
        login: Some(login("u2", "p2")),
        sentinel_login: Some(login("su2", "sp2")),
        tls: Some(v1::StoreTls {
            ca_file: "/ca2".to_owned(),
            cert_file: "/c2".to_owned(),
            key_file: "/k2".to_owned(),
        }),
        ..Default::default()
    }
}

fn changed(present: &str, request: v1::UpdateStoreRequest) -> Result<StoreUrl, FieldViolation> {
    (change(request).unwrap().0)(&url(present))
}

const PRESENT: &str = "rediss+sentinel://a,b/m?user=u&pass=p&sentinel-username=su&sentinel-password=sp&tls-ca=/ca&tls-cert=/c&tls-key=/k";

#[test]
fn only_what_the_mask_names_changes() {
    let new =
        [("a,b/", "a,b,c/"), ("user=u&", "user=u2&"), ("pass=p&", "pass=p2&"), ("username=su", "username=su2")];
    let more =
        [("password=sp", "password=sp2"), ("ca=/ca", "ca=/ca2"), ("cert=/c&", "cert=/c2&"), ("key=/k", "key=/k2")];
    let [place, user, pass, sentinel_user] = new;
    let [sentinel_pass, ca, cert, key] = more;
    for (paths, expected) in [
        (&["url", "login.password", "sentinel_login.password"][..], &[place, pass, sentinel_pass][..]),
        (&["login.username"], &[user]),
        (&["login.password"], &[pass]),
        (&["login"], &[user, pass]),
        (&["sentinel_login.username"], &[sentinel_user]),
        (&["sentinel_login.password"], &[sentinel_pass]),
        (&["sentinel_login"], &[sentinel_user, sentinel_pass]),
        (&["tls.ca_file"], &[ca]),
        (&["tls.cert_file", "tls.key_file"], &[cert, key]),
        (&["tls"], &[ca, cert, key]),
        (&MUTABLE, &[place, user, pass, sentinel_user, sentinel_pass, ca, cert, key]),
    ] {
        let expected = expected.iter().fold(PRESENT.to_owned(), |text, (old, new)| text.replacen(old, new, 1));
        let changed = changed(PRESENT, v1::UpdateStoreRequest { update_mask: Some(mask(paths)), ..full() });
        assert!(changed == Ok(url(&expected)), "{paths:?}");
    }
}

#[test]
fn empty_values_unset_and_an_url_brings_what_it_holds() {
    let nothing = |paths: &[&str]| v1::UpdateStoreRequest { update_mask: Some(mask(paths)), ..Default::default() };
    let with_url = |url: &str, paths: &[&str]| v1::UpdateStoreRequest { url: url.to_owned(), ..nothing(paths) };
    for (present, request, expected) in [
        ("redis://u:p@h", nothing(&["login.username"]), "redis://:p@h"),
        ("redis://u:p@h", nothing(&["login"]), "redis://h"),
        ("rediss://h?tls-ca=/ca", nothing(&["tls"]), "rediss://h"),
        ("redis://u:p@h", with_url("redis://:new@h", &["url"]), "redis://u:new@h"),
        ("redis://u:p@h", with_url("redis://v:new@h", &["url", "login.username"]), "redis://:new@h"),
        ("rediss://h?tls-ca=/ca", with_url("rediss://h?tls-ca=/new", &["url"]), "rediss://h?tls-ca=/new"),
        ("rediss://:p@h?tls-ca=/ca", with_url("redis://:p@h", &["url"]), "redis://:p@h"),
        ("rediss://h?tls-ca=/ca", with_url("redis://h", &["url"]), "redis://h"),
        ("redis+unix:///a%25b?db=3&pass=p", nothing(&["login.username"]), "redis+unix:///a%25b?db=3&pass=p"),
    ] {
        let shown = format!("{request:?}");
        assert!(changed(present, request) == Ok(url(expected)), "{present} {shown}");
    }
}

#[test]
fn a_password_and_a_reference_take_each_others_place() {
    let update = |paths: &[&str], password: &str, from: &str| v1::UpdateStoreRequest {
        login: Some(v1::StoreLogin { password_from: from.to_owned(), ..login("", password) }),
        update_mask: Some(mask(paths)),
        ..Default::default()
    };
    let with_url = |url: &str| v1::UpdateStoreRequest { url: url.to_owned(), ..update(&["url"], "", "") };
    let (literal, reference) = ("redis://u:p@h", "redis://u@h?password-from=env:P");
    for (present, request, expected) in [
        (literal, update(&["login.password_from"], "", "env:P"), reference),
        (reference, update(&["login.password"], "p", ""), literal),
        (reference, update(&["login.password_from"], "", "file:q"), "redis://u@h?password-from=file:q"),
        (reference, update(&["login.password_from"], "", ""), "redis://u@h"),
        (literal, update(&["login.password_from"], "", ""), literal),
        (reference, update(&["login.password"], "", ""), reference),
        (reference, update(&["login"], "", ""), "redis://h"),
        (literal, update(&["login"], "", "env:P"), "redis://h?password-from=env:P"),
        (reference, update(&["login.username"], "", ""), "redis://h?password-from=env:P"),
        (literal, with_url("redis://h?password-from=env:P"), reference),
        (reference, with_url("redis://:p@h"), literal),
        (reference, with_url("redis://h"), reference),
    ] {
        let shown = format!("{request:?}");
        assert!(changed(present, request) == Ok(url(expected)), "{present} {shown}");
    }
    for wrong in [update(&["login"], "p", "env:P"), update(&["login"], "", "hunter2")] {
        let Err(refusal) = change(wrong) else { panic!("it was accepted") };
        assert_eq!(refusal.violations[0].field, "login.password_from");
        assert!(!refusal.message.contains("hunter2"), "{}", refusal.message);
    }
}

#[test]
fn what_does_not_fit_is_refused_without_the_passwords() {
    let half = v1::StoreTls { ca_file: String::new(), cert_file: "/c".to_owned(), key_file: String::new() };
    for (present, tls, path, words) in [
        ("redis://:hunter2@h", v1::StoreTls { ca_file: "/ca".to_owned(), ..Default::default() }, "tls", "no TLS"),
        ("rediss://:hunter2@h", half, "tls", "come together"),
        (
            "rediss://:hunter2@h",
            v1::StoreTls { ca_file: "ca".to_owned(), ..Default::default() },
            "tls.ca_file",
            "absolute",
        ),
    ] {
        let request =
            v1::UpdateStoreRequest { tls: Some(tls), update_mask: Some(mask(&[path])), ..Default::default() };
        let Err(violation) = changed(present, request) else { panic!("{path} was accepted") };
        assert_eq!(violation.field, "url");
        assert!(
            violation.description.contains(words) && !violation.description.contains("hunter2"),
            "{violation:?}"
        );
    }
}

#[test]
fn a_password_is_shown_to_nobody_new_by_whom_does_not_know_it() {
    for (present, new, field) in [
        ("redis+cluster://:hunter2@a,b", "redis+cluster://a,c", "login.password"),
        ("rediss://:hunter2@h", "redis://h", "login.password"),
        ("redis+sentinel://a/m?sentinel-password=hunter2", "redis+sentinel://a,b/m", "sentinel_login.password"),
        ("redis+sentinel://a/m?pass=hunter2", "redis+sentinel://a,b/m", "login.password"),
        ("redis+cluster://a,b?password-from=env:P", "redis+cluster://a,c", "login.password"),
        ("redis+sentinel://a/m?sentinel-password-from=env:P", "redis+sentinel://a,b/m", "sentinel_login.password"),
    ] {
        let request =
            v1::UpdateStoreRequest { url: new.to_owned(), update_mask: Some(mask(&["url"])), ..Default::default() };
        let Err(violation) = changed(present, request) else { panic!("{new} was accepted") };
        assert!(violation.field == field && !violation.description.contains("hunter2"), "{violation:?}");
    }
    for (present, new) in [
        ("redis+cluster://:p@a,b", "redis+cluster://a"),
        ("redis+cluster://a,b", "redis+cluster://a,c"),
        ("redis+cluster://a?password-from=env:P", "redis+cluster://a,c?password-from=env:P"),
    ] {
        let request =
            v1::UpdateStoreRequest { url: new.to_owned(), update_mask: Some(mask(&["url"])), ..Default::default() };
        assert!(changed(present, request).is_ok(), "{new}");
    }
}

#[test]
fn wrong_masks_are_named() {
    for (paths, words) in
        [(Some(mask(&[])), "required"), (None, "required"), (Some(mask(&["name"])), "\"name\" is not a field")]
    {
        let request = v1::UpdateStoreRequest { update_mask: paths, ..full() };
        let Err(refusal) = change(request) else { panic!("{words}: it was accepted") };
        assert_eq!(refusal.violations[0].field, "update_mask");
        assert!(refusal.message.contains(words), "{}", refusal.message);
    }
}
