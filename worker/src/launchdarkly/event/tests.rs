use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ITEM: &str = r#"{"key":"a","version":3,"big":123456789012345678901234567890,"f":1.0,"e":"\u0041\/"}"#;

fn parse(name: &str, text: &str) -> Result<DataEvent, DataError> {
    parse_event(name, &Bytes::copy_from_slice(text.as_bytes()))
}

fn put(text: &str) -> FullPayload {
    match parse("put", text) {
        Ok(DataEvent::Put(payload)) => payload,
        other => panic!("no payload: {other:?}"),
    }
}

fn item(kind: Kind, key: &str) -> String {
    format!("{kind:?}/{key}")
}

fn names(payload: &FullPayload) -> Vec<String> {
    payload.items().map(|found| item(found.kind, found.key)).collect()
}

fn reasons(payload: &FullPayload) -> Vec<(String, &str)> {
    payload.rejected().iter().map(|found| (item(found.kind, &found.key), &*found.reason)).collect()
}

#[test]
fn an_items_bytes_are_kept_as_sent() {
    let payload = put(&format!(r#"{{"path":"/","data":{{"flags":{{"a" :  {ITEM} }},"segments":{{}}}}}}"#));
    let found: Vec<_> = payload.items().collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].body, ITEM.as_bytes());
    assert_eq!((found[0].kind, found[0].key, found[0].version, found[0].deleted), (Kind::Flag, "a", 3, false));
}

#[test]
fn the_order_of_properties_is_free_and_the_rest_is_skipped() {
    let s = r#"{"version":1,"key":"s","deleted":true}"#;
    let data = format!(r#"{{"new":[{{}}],"segments":{{"s":{s}}},"flags":{{"a":{ITEM}}},"configs":{{"x":1}}}}"#);
    for text in [
        format!(r#"{{"path":"/","data":{data}}}"#),
        format!(r#"{{"data":{data},"path":"/"}}"#),
        format!(r#" {{"data":{data}}} "#),
        format!(r#"{{"x":[1,{{}}],"path":null,"data":{data},"y":"z"}}"#),
    ] {
        let payload = put(&text);
        assert_eq!(names(&payload), ["Segment/s", "Flag/a"], "{text}");
        let bodies: Vec<_> = payload.items().map(|found| found.body).collect();
        assert_eq!(bodies, [s.as_bytes(), ITEM.as_bytes()]);
        assert!(payload.items().next().expect("the segment").deleted);
    }
}

#[test]
fn a_put_for_another_path_is_ignored_whatever_it_holds() {
    for text in [r#"{"path":"/flags","data":7}"#, r#"{"data":{"flags":7},"path":"/x"}"#, r#"{"path":""}"#] {
        assert!(matches!(parse("put", text), Ok(DataEvent::Ignored)), "{text}");
    }
}

#[test]
fn malformed_json_and_wrong_shapes_are_errors() {
    for (name, text) in [
        ("put", "{"),
        ("put", "not json"),
        ("put", "[]"),
        ("put", "{}"),
        ("put", r#"{"path":"/"}"#),
        ("put", r#"{"path":"/","data":null}"#),
        ("put", r#"{"path":"/","data":[]}"#),
        ("put", r#"{"path":"/","data":{}}"#),
        ("put", r#"{"path":"/","data":{"flags":null}}"#),
        ("put", r#"{"data":{"flags":{"a":1},"segments":[]}}"#),
        ("put", r#"{"path":5,"data":{"flags":{}}}"#),
        ("put", r#"{"path":"/","data":{"flags":{}}} trailing"#),
        ("put", r#"{"path":"/","data":{"flags":{"a":{"version":1,"key":"a"}}}"#),
        ("patch", r#"{"data":{"key":"a","version":1}}"#),
        ("patch", r#"{"path":"/flags/a"}"#),
        ("patch", r#"{"path":"/flags/a","data":null}"#),
        ("patch", r#"["/flags/a",{"key":"a","version":1}]"#),
        ("delete", r#"{"path":"/flags/a"}"#),
        ("delete", r#"{"path":"/flags/a","version":"1"}"#),
        ("delete", r#"{"path":"/flags/a","version":-1}"#),
        ("delete", r#"{"version":1}"#),
        ("delete", ""),
    ] {
        assert!(parse(name, text).is_err(), "{name} {text}");
    }
    let not_utf8 = Bytes::from_static(b"{\"path\":\"/\",\"data\":{\"flags\":{\"\xff\":{}}}}");
    assert!(parse_event("put", &not_utf8).is_err());
}

#[test]
fn bad_items_are_named_and_do_not_spoil_the_rest() {
    let text = r#"{"path":"/","data":{"flags":{
        "null":null, "list":[1,"list"], "text":"x",
        "no-version":{"key":"no-version"}, "null-version":{"key":"null-version","version":null},
        "float":{"key":"float","version":1.0}, "negative":{"key":"negative","version":-1},
        "huge":{"key":"huge","version":18446744073709551616}, "string":{"key":"string","version":"1"},
        "no-key":{"version":1}, "other":{"key":"another","version":1}, "number":{"key":1,"version":1},
        "deleted":{"key":"deleted","version":1,"deleted":1},
        "twice-inside":{"key":"twice-inside","version":1,"version":2},
        "twice":{"key":"twice","version":1}, "twice":{"key":"twice","version":2},
        "good":{"key":"good","version":18446744073709551615,"deleted":null}},
        "segments":{"twice":{"key":"twice","version":0}}}}"#;
    let payload = put(text);
    assert_eq!(names(&payload), ["Flag/good", "Segment/twice"]);
    let found = reasons(&payload);
    let expected = [
        ("null", "it is not an object"),
        ("list", "it is not an object"),
        ("text", "it is not an object"),
        ("no-version", "it has no version"),
        ("null-version", "it has no version"),
        ("float", "its version is not a non-negative integer"),
        ("negative", "its version is not a non-negative integer"),
        ("huge", "its version is not a non-negative integer"),
        ("string", "its version is not a non-negative integer"),
        ("no-key", "it has no key"),
        ("other", r#"its key "another" is not the key "other" under which it was sent"#),
        ("number", "its key is not a string"),
        ("deleted", "its field deleted is neither true nor false"),
        ("twice-inside", "duplicate field `version` at line 1 column 43"),
        ("twice", "it was sent more than once in one payload"),
        ("twice", "it was sent more than once in one payload"),
    ];
    let expected = expected.map(|(key, reason)| (item(Kind::Flag, key), reason));
    assert_eq!(found, expected);
}

#[test]
fn a_patch_keeps_its_bytes_and_its_key_verbatim() {
    let body = r#"{"version":9, "key":"a%2Fb"}"#;
    let text = format!(r#"{{"data": {body} ,"path":"/segments/a%2Fb"}}"#);
    let Ok(DataEvent::Patch { kind, key, body: found, version, deleted }) = parse("patch", &text) else {
        panic!("no patch");
    };
    assert_eq!((kind, &*key, &*found, version, deleted), (Kind::Segment, "a%2Fb", body.as_bytes(), 9, false));
}

#[test]
fn what_is_shown_of_a_rejected_item_is_bounded_and_its_key_stays_whole() {
    let key = "é".repeat(5000);
    let text = format!(r#"{{"path":"/flags/{key}","data":{{"version":1,"key":"{}"}}}}"#, "x".repeat(5000));
    let Ok(DataEvent::Rejected(rejected)) = parse("patch", &text) else { panic!("not rejected") };
    assert_eq!(*rejected.key, key, "the last good item is found by it");
    assert_eq!(rejected.shown_key().chars().count(), 201);
    assert_eq!(rejected.reason.chars().count(), 201);
}

#[test]
fn a_patch_with_a_bad_item_is_rejected_by_name() {
    let text = r#"{"path":"/flags/a","data":{"key":"b","version":1}}"#;
    let Ok(DataEvent::Rejected(rejected)) = parse("patch", text) else { panic!("not rejected") };
    assert_eq!((rejected.kind, &*rejected.key), (Kind::Flag, "a"));
}

#[test]
fn a_delete_has_a_key_and_a_version() {
    let Ok(DataEvent::Delete { kind, key, version }) = parse("delete", r#"{"version":12,"path":"/flags/a.b-c_d"}"#)
    else {
        panic!("no delete")
    };
    assert_eq!((kind, &*key, version), (Kind::Flag, "a.b-c_d", 12));
}

#[test]
fn unknown_names_and_kinds_are_ignored() {
    for (name, text) in [
        ("indirect/put", "not json"),
        ("message", ""),
        ("patch", r#"{"path":"/configs/a","data":null}"#),
        ("patch", r#"{"path":"flags/a","data":7}"#),
        ("delete", r#"{"path":"/x"}"#),
    ] {
        assert!(matches!(parse(name, text), Ok(DataEvent::Ignored)), "{name} {text}");
    }
}

#[test]
fn a_poll_is_walked_like_a_put() {
    let body = Bytes::from(format!(r#"{{"segments":{{}},"flags":{{"a":{ITEM}}},"other":1}}"#));
    let payload = parse_poll(&body).expect("a good answer");
    assert_eq!(payload.items().next().expect("one item").body, ITEM.as_bytes());
    for bad in ["", "{}", "[]", "null", r#"{"message":"maintenance"}"#, r#"{"flags":[]}"#] {
        assert!(parse_poll(&Bytes::from(bad)).is_err(), "{bad}");
    }
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let text = format!(r#"{{"path":"/","data":{{"flags":{{"a":{{"key":"a","version":1,"x":{deep}}}}}}}}}"#);
    assert_eq!(names(&put(&text)), ["Flag/a"]);
}

#[test]
fn a_long_reason_is_cut() {
    let error = parse("put", &format!(r#"{{"path":"/","data":"{}"}}"#, "é".repeat(5000))).unwrap_err();
    assert!(error.to_string().chars().count() < 300);
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,4}", inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_found_is_what_a_tree_would_hold(
        flags in prop::collection::btree_map(".{0,8}", (any::<u64>(), any::<bool>(), json()), 0..8),
    ) {
        let body = |key: &str, (version, deleted, extra): &(u64, bool, serde_json::Value)| {
            serde_json::json!({ "key": key, "x": extra, "version": version, "deleted": deleted })
        };
        let tree: BTreeMap<_, _> = flags.iter().map(|(key, item)| (key.as_str(), body(key, item))).collect();
        let text = serde_json::json!({ "data": { "segments": {}, "flags": tree } }).to_string();
        let payload = put(&text);
        prop_assert!(payload.rejected().is_empty());
        let found: BTreeMap<_, _> = payload
            .items()
            .map(|item| (item.key, serde_json::from_slice::<serde_json::Value>(item.body).expect("JSON")))
            .collect();
        prop_assert_eq!(&found, &tree);
        for item in payload.items() {
            prop_assert_eq!((item.version, item.deleted), (flags[item.key].0, flags[item.key].1));
        }
    }

    #[test]
    fn nothing_makes_it_panic(name in "put|patch|delete", text in r#"[\[\]{}":,a0/ \\]{0,40}"#) {
        let _ = parse(&name, &text);
    }
}
