//! What the SDK for PHP demands of a stored item. It decodes into constructors with strict types, where a field
//! that is missing or of another type ends the request of the application's own user. The SDK itself comes from
//! Packagist alone and is not run here: this stands in for it.

use serde_json::{Map, Value};

type Complaints = Vec<String>;
type Check = fn(&Value) -> bool;

/// What is wrong with a flag, by the path of each field; nothing when the SDK can read it.
pub fn demands_on_flag(flag: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    let Some(fields) = object(flag, "flag", &mut complaints) else { return complaints };
    let wanted: [(&str, Check); 6] = [
        ("key", Value::is_string),
        ("version", is_integer),
        ("on", Value::is_boolean),
        ("salt", Value::is_string),
        ("offVariation", |value| value.is_null() || is_integer(value)),
        ("deleted", Value::is_boolean),
    ];
    require(fields, "flag", &wanted, &mut complaints);
    each(fields, "variations", "flag", &mut complaints, |_, _, _| ());
    each(fields, "prerequisites", "flag", &mut complaints, |prerequisite, path, complaints| {
        let wanted: [(&str, Check); 2] = [("key", Value::is_string), ("variation", is_integer)];
        require_all(prerequisite, path, &wanted, complaints);
    });
    each(fields, "targets", "flag", &mut complaints, |target, path, complaints| {
        let wanted: [(&str, Check); 2] = [("values", Value::is_array), ("variation", is_integer)];
        require_all(target, path, &wanted, complaints);
    });
    each(fields, "rules", "flag", &mut complaints, |rule, path, complaints| {
        let Some(fields) = object(rule, path, complaints) else { return };
        clauses(fields, path, complaints);
        variation_or_rollout(fields, path, complaints);
    });
    if let Some(fallthrough) = fields.get("fallthrough") {
        if let Some(fields) = object(fallthrough, "flag.fallthrough", &mut complaints) {
            variation_or_rollout(fields, "flag.fallthrough", &mut complaints);
        }
    } else {
        complaints.push("flag.fallthrough is missing".to_owned());
    }
    complaints
}

/// What is wrong with a segment; nothing when the SDK can read it.
pub fn demands_on_segment(segment: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    let Some(fields) = object(segment, "segment", &mut complaints) else { return complaints };
    let wanted: [(&str, Check); 6] = [
        ("key", Value::is_string),
        ("version", is_integer),
        ("included", Value::is_array),
        ("excluded", Value::is_array),
        ("salt", Value::is_string),
        ("deleted", Value::is_boolean),
    ];
    require(fields, "segment", &wanted, &mut complaints);
    each(fields, "rules", "segment", &mut complaints, |rule, path, complaints| {
        let Some(fields) = object(rule, path, complaints) else { return };
        clauses(fields, path, complaints);
        let wanted: [(&str, Check); 2] = [("weight", is_integer), ("bucketBy", Value::is_string)];
        where_given(fields, path, &wanted, complaints);
    });
    complaints
}

fn clauses(rule: &Map<String, Value>, path: &str, complaints: &mut Complaints) {
    each(rule, "clauses", path, complaints, |clause, path, complaints| {
        let wanted: [(&str, Check); 4] = [
            ("attribute", Value::is_string),
            ("op", Value::is_string),
            ("values", Value::is_array),
            ("negate", Value::is_boolean),
        ];
        require_all(clause, path, &wanted, complaints);
    });
}

fn variation_or_rollout(fields: &Map<String, Value>, path: &str, complaints: &mut Complaints) {
    where_given(fields, path, &[("variation", is_integer)], complaints);
    let Some(rollout) = fields.get("rollout").filter(|rollout| !rollout.is_null()) else { return };
    let path = format!("{path}.rollout");
    let Some(fields) = object(rollout, &path, complaints) else { return };
    let wanted: [(&str, Check); 3] =
        [("bucketBy", Value::is_string), ("kind", Value::is_string), ("seed", is_integer)];
    where_given(fields, &path, &wanted, complaints);
    each(fields, "variations", &path, complaints, |weighted, path, complaints| {
        let wanted: [(&str, Check); 2] = [("variation", is_integer), ("weight", is_integer)];
        require_all(weighted, path, &wanted, complaints);
    });
}

/// `1.0` is none: PHP decodes it as a floating point number.
fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64()
}

fn object<'a>(value: &'a Value, path: &str, complaints: &mut Complaints) -> Option<&'a Map<String, Value>> {
    let fields = value.as_object();
    if fields.is_none() {
        complaints.push(format!("{path} is no object: {value}"));
    }
    fields
}

fn require(fields: &Map<String, Value>, path: &str, wanted: &[(&str, Check)], complaints: &mut Complaints) {
    for (name, is_right) in wanted {
        match fields.get(*name) {
            Some(value) if is_right(value) => {}
            Some(value) => complaints.push(format!("{path}.{name} is of another type: {value}")),
            None => complaints.push(format!("{path}.{name} is missing")),
        }
    }
}

fn require_all(value: &Value, path: &str, wanted: &[(&str, Check)], complaints: &mut Complaints) {
    if let Some(fields) = object(value, path, complaints) {
        require(fields, path, wanted, complaints);
    }
}

fn where_given(fields: &Map<String, Value>, path: &str, wanted: &[(&str, Check)], complaints: &mut Complaints) {
    let is_given = |name: &str| fields.get(name).is_some_and(|value| !value.is_null());
    let given: Vec<_> = wanted.iter().copied().filter(|(name, _)| is_given(name)).collect();
    require(fields, path, &given, complaints);
}

fn each(
    fields: &Map<String, Value>,
    name: &str,
    path: &str,
    complaints: &mut Complaints,
    check: impl Fn(&Value, &str, &mut Complaints),
) {
    require(fields, path, &[(name, Value::is_array)], complaints);
    let items = fields.get(name).and_then(Value::as_array).into_iter().flatten();
    for (index, item) in items.enumerate() {
        check(item, &format!("{path}.{name}[{index}]"), complaints);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flag() -> Value {
        json!({
            "key": "f", "version": 1, "on": true, "salt": "s", "offVariation": null, "deleted": false,
            "variations": [1.5], "prerequisites": [{"key": "p", "variation": 0}],
            "targets": [{"values": ["a"], "variation": 0}],
            "rules": [{"clauses": [{"attribute": "a", "op": "in", "values": [], "negate": false}], "variation": 0}],
            "fallthrough": {"rollout": {"variations": [{"variation": 0, "weight": 100_000}], "seed": 7}},
        })
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_named() {
        assert_eq!(demands_on_flag(&flag()), Vec::<String>::new());
        for name in flag().as_object().unwrap().keys() {
            let mut without = flag();
            without.as_object_mut().unwrap().remove(name);
            assert_eq!(demands_on_flag(&without), [format!("flag.{name} is missing")]);
        }
        for (pointer, value, complaint) in [
            ("/version", json!(1.0), "flag.version is of another type: 1.0"),
            ("/salt", json!(null), "flag.salt is of another type: null"),
            ("/targets/0/variation", json!("0"), "flag.targets[0].variation is of another type: \"0\""),
            ("/prerequisites/0", json!(1), "flag.prerequisites[0] is no object: 1"),
            (
                "/rules/0/clauses/0",
                json!({"attribute": "a", "op": "in", "values": []}),
                "flag.rules[0].clauses[0].negate is missing",
            ),
            (
                "/fallthrough/rollout/variations/0/weight",
                json!(0.5),
                "flag.fallthrough.rollout.variations[0].weight is of another type: 0.5",
            ),
        ] {
            let mut wrong = flag();
            *wrong.pointer_mut(pointer).unwrap() = value;
            assert_eq!(demands_on_flag(&wrong), [complaint]);
        }
        let tombstone = json!({"key": "s", "version": 1, "deleted": true});
        assert_eq!(demands_on_segment(&tombstone).len(), 4, "without `included`, `excluded`, `salt` and `rules`");
    }
}
