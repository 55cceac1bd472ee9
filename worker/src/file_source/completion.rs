//! Turns the text of a flag-data file into the JSON that LaunchDarkly would send: YAML becomes JSON, and an item that
//! lacks its key or its version is given them. What is complete keeps its bytes.

use std::path::Path;

use serde::Deserialize;
use serde_norway::{Mapping, Value};

use crate::launchdarkly::event::{ItemHead, entries};
use crate::source::Kind;

/// Files are replaced as a whole, so that all their items may have the same version.
const VERSION_OF_FILE_ITEMS: u64 = 1;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Yaml,
}

impl Format {
    /// By the file's extension; under any other, the content decides: JSON begins with a brace.
    pub(super) fn of(path: &Path, text: &str) -> Self {
        let has = |wanted: &str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted));
        if has("yaml") || has("yml") {
            Self::Yaml
        } else if has("json") || text.trim_start().starts_with('{') {
            Self::Json
        } else {
            Self::Yaml
        }
    }
}

/// `{"flags":{…},"segments":{…}}` with complete items. An error says where in the file it is.
pub(super) fn complete(text: &str, format: Format) -> Result<String, String> {
    let mut writer = Writer::new(text.len());
    match format {
        Format::Json => {
            let found = entries(text).map_err(|error| error.to_string())?;
            for kind in [Kind::Flag, Kind::Segment] {
                writer.begin(kind);
                for entry in found.iter().filter(|entry| entry.kind == kind) {
                    writer.item(&entry.key, entry.raw);
                }
            }
        }
        Format::Yaml => {
            let file: YamlFile = serde_norway::from_str(text).map_err(|error| error.to_string())?;
            if file.flags.is_none() && file.segments.is_none() {
                return Err("it has neither flags nor segments".to_owned());
            }
            for (kind, items) in [(Kind::Flag, file.flags), (Kind::Segment, file.segments)] {
                writer.begin(kind);
                for (key, item) in items.unwrap_or_default() {
                    let key = key_text(&key)?;
                    let json = json_text(item).map_err(|error| format!("the item {key:?}: {error}"))?;
                    writer.item(&key, &json);
                }
            }
        }
    }
    Ok(writer.finish())
}

#[derive(Deserialize)]
struct YamlFile {
    flags: Option<Mapping>,
    segments: Option<Mapping>,
}

/// YAML reads an unquoted `2024` as a number; as a key it is what stands there.
fn key_text(key: &Value) -> Result<String, String> {
    match key {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => {
            Err("a flag or segment has a key that is not a string".to_owned())
        }
    }
}

fn json_text(mut item: Value) -> Result<String, String> {
    item.apply_merge().map_err(|error| error.to_string())?;
    serde_json::to_string(&item).map_err(|error| error.to_string())
}

/// Writes the two collections in turn.
struct Writer {
    json: String,
    needs_comma: bool,
}

impl Writer {
    fn new(capacity: usize) -> Self {
        Self { json: String::with_capacity(capacity), needs_comma: false }
    }

    fn begin(&mut self, kind: Kind) {
        self.json.push_str(match kind {
            Kind::Flag => r#"{"flags":{"#,
            Kind::Segment => r#"},"segments":{"#,
        });
        self.needs_comma = false;
    }

    fn item(&mut self, key: &str, raw: &str) {
        if std::mem::replace(&mut self.needs_comma, true) {
            self.json.push(',');
        }
        let key = serde_json::Value::from(key).to_string();
        self.json.push_str(&key);
        self.json.push(':');
        match missing_fields(&key, raw) {
            Some(missing) => self.completed(&missing, raw),
            None => self.json.push_str(raw),
        }
    }

    /// The missing fields go first, so that the rest of the item keeps its bytes.
    fn completed(&mut self, missing: &str, raw: &str) {
        let rest = raw.strip_prefix('{').unwrap_or(raw).trim_start();
        self.json.push('{');
        self.json.push_str(missing);
        if !rest.starts_with('}') {
            self.json.push(',');
        }
        self.json.push_str(rest);
    }

    fn finish(mut self) -> String {
        self.json.push_str("}}");
        self.json
    }
}

/// The fields to add to an item, as JSON; `None` if it has them, or is none: then it is rejected by name later.
fn missing_fields(key: &str, raw: &str) -> Option<String> {
    let head = ItemHead::parse(raw).ok()?;
    let key = head.key.is_none().then(|| format!(r#""key":{key}"#));
    let version = head.version.is_none().then(|| format!(r#""version":{VERSION_OF_FILE_ITEMS}"#));
    match (key, version) {
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => Some(one),
        (Some(key), Some(version)) => Some(format!("{key},{version}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_json_items_keep_their_bytes_and_others_get_what_they_lack() {
        let text = r#"{"segments":{"s":{ }},
            "flags":{"a":{"key" : "a","version":7.0, "x":1.0},"b":{"on":true},"c\"":{"version":2},"d":5}}"#;
        let expected = concat!(
            r#"{"flags":{"a":{"key" : "a","version":7.0, "x":1.0},"b":{"key":"b","version":1,"on":true},"#,
            r#""c\"":{"key":"c\"","version":2},"d":5},"segments":{"s":{"key":"s","version":1}}}"#,
        );
        assert_eq!(complete(text, Format::Json).as_deref(), Ok(expected));
    }

    #[test]
    fn yaml_becomes_json_in_its_order() {
        let text = "base: &base {on: true}\nflags:\n  2024:\n    <<: *base\n    variations: [a, 1, 1.5, ~]\n  b:\n    \
                    version: 3\n    key: b\nsegments:\n";
        let expected = concat!(
            r#"{"flags":{"2024":{"key":"2024","version":1,"variations":["a",1,1.5,null],"on":true},"#,
            r#""b":{"version":3,"key":"b"}},"segments":{}}"#,
        );
        assert_eq!(complete(text, Format::Yaml).as_deref(), Ok(expected));
    }

    #[test]
    fn errors_say_where() {
        for (text, format, place) in [
            ("{\n  \"flags\": {,}}", Format::Json, "line 2 column 13"),
            ("{\n}", Format::Json, "neither flags nor segments"),
            ("flags:\n  a: [1\n", Format::Yaml, "line "),
            ("flags: 7\n", Format::Yaml, "flags"),
            ("x: 7\n", Format::Yaml, "neither flags nor segments"),
            ("", Format::Yaml, ""),
            ("flags:\n  a: {}\n  a: {}\n", Format::Yaml, "duplicate"),
            ("flags:\n  [1]: {}\n", Format::Yaml, "not a string"),
        ] {
            let error = complete(text, format).expect_err(text);
            assert!(error.contains(place), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_extension_decides_then_the_content() {
        let format = |path: &str, text| Format::of(Path::new(path), text);
        assert_eq!(format("a.yml", "{}"), Format::Yaml);
        assert_eq!(format("a.YAML", "{}"), Format::Yaml);
        assert_eq!(format("a.json", "flags:"), Format::Json);
        assert_eq!(format("a", " {}"), Format::Json);
        assert_eq!(format("a", "flags:"), Format::Yaml);
    }
}
