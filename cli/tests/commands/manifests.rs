//! Plan, apply and export, against a real control.

use std::path::Path;

use flotilla_control::{App, Running, Settings};
use flotilla_proto::StoreUrl;
use tempfile::TempDir;

use super::run;

const KEY: &str = "sdk-01234567-89ab-cdef-0123-456789a99999";
const OTHER_KEY: &str = "sdk-01234567-89ab-cdef-0123-456789a00001";

/// A control, and a directory with keys.
struct Place {
    directory: TempDir,
    control: Running,
}

impl Place {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("key"), KEY).unwrap();
        std::fs::write(directory.path().join("other-key"), OTHER_KEY).unwrap();
        let redis = StoreUrl::parse("url", "redis://127.0.0.1:6379").unwrap();
        let control = App::start(Settings::new(directory.path().join("data"), redis)).await.unwrap();
        Self { directory, control }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path().join("environments.yaml"), text).unwrap();
    }

    /// Runs `flotilla LINE`, where `FILE` is the manifest; its exit status and what it wrote, with `DIR` for the directory.
    async fn run(&self, line: &str) -> String {
        let url = format!("http://{}", self.control.grpc_addr());
        let file = self.path().join("environments.yaml");
        let (status, out, err) = run(&url, &line.replace("FILE", file.to_str().unwrap())).await;
        let shown = format!("{out}--- {status}\n{err}");
        assert!(!shown.contains(KEY) && !shown.contains(OTHER_KEY), "{shown}");
        shown.replace(self.path().to_str().unwrap(), "DIR").replace(&url, "URL")
    }
}

const BEFORE: &str = "\
environments:
- {name: spree-production, prefix: 'ld:spree', sdkKey: {file: key}, labels: {team: a, managed-by: git}, filter: web}
- {name: spree-old, prefix: 'ld:old', sdkKey: {file: key}, labels: {managed-by: git}}
- {name: spree-same, prefix: 'ld:same', sdkKey: {file: key}, labels: {managed-by: git}}
";

const AFTER: &str = "\
stores:
- {name: eu, url: 'redis://eu.test'}
environments:
- {name: spree-production, prefix: 'ld:spree', sdkKey: {file: other-key}, labels: {team: b, managed-by: git}}
- {name: spree-same, prefix: 'ld:same', labels: {managed-by: git}}
- {name: spree-eu, prefix: 'ld:spree', store: eu, source: poll, sdkKey: {file: key}, labels: {managed-by: git}}
";

#[tokio::test]
async fn a_plan_tells_field_by_field_what_apply_then_does() {
    let place = Place::new().await;
    place.write(BEFORE);
    insta::assert_snapshot!(place.run("apply -f FILE").await, @r"
    environment/spree-production created
    environment/spree-old created
    environment/spree-same created
    --- 0
    3 created, 0 updated, 0 removed, 0 unchanged, 0 failed
    ");
    insta::assert_snapshot!(place.run("plan -f FILE").await, @r"
    0 to create, 0 to update, 0 to remove, 3 unchanged
    --- 0
    ");
    place.write(AFTER);
    insta::assert_snapshot!(place.run("plan -f FILE --prune").await, @r#"
    + store/eu
    ~ spree-production  labels.team: "a" → "b"
                        filter: "web" → none
                        sdkKey: "sdk-********-****-****-****-*******99999" → "sdk-********-****-****-****-*******00001"
    + spree-eu          prefix: "ld:spree"
                        store: "eu"
                        source: "poll"
                        labels.managed-by: "git"
                        sdkKey: "sdk-********-****-****-****-*******99999"
    - spree-old
    1 to create, 1 to update, 1 to remove, 1 unchanged
    --- 1
    "#);
    insta::assert_snapshot!(place.run("apply -f FILE --prune --dry-run").await, @r"
    store/eu created (dry run)
    environment/spree-production updated (dry run)
    environment/spree-eu created (dry run)
    environment/spree-old removed (dry run)
    --- 0
    1 created, 1 updated, 1 removed, 1 unchanged, 0 failed (dry run)
    ");
    insta::assert_snapshot!(place.run("apply -f FILE --prune").await, @r"
    store/eu created
    environment/spree-production updated
    environment/spree-eu created
    environment/spree-old removed
    --- 0
    1 created, 1 updated, 1 removed, 1 unchanged, 0 failed
    ");
    insta::assert_snapshot!(place.run("plan -f FILE --prune -o name").await, @r"
    --- 0
    ");
}

#[tokio::test]
async fn a_plan_is_one_stable_document() {
    let place = Place::new().await;
    place.write(BEFORE);
    place.run("apply -f FILE").await;
    place.write(AFTER);
    insta::assert_snapshot!(place.run("plan -f FILE --prune -o json").await, @r#"
    {
      "dryRun": true,
      "stores": [
        {
          "name": "eu",
          "outcome": "created",
          "error": null
        }
      ],
      "environments": [
        {
          "name": "spree-production",
          "outcome": "updated",
          "changes": [
            {
              "field": "labels.team",
              "before": "a",
              "after": "b"
            },
            {
              "field": "filter",
              "before": "web",
              "after": null
            },
            {
              "field": "sdkKey",
              "before": "sdk-********-****-****-****-*******99999",
              "after": "sdk-********-****-****-****-*******00001"
            }
          ],
          "error": null
        },
        {
          "name": "spree-same",
          "outcome": "unchanged",
          "changes": [],
          "error": null
        },
        {
          "name": "spree-eu",
          "outcome": "created",
          "changes": [
            {
              "field": "prefix",
              "before": null,
              "after": "ld:spree"
            },
            {
              "field": "store",
              "before": null,
              "after": "eu"
            },
            {
              "field": "source",
              "before": null,
              "after": "poll"
            },
            {
              "field": "labels.managed-by",
              "before": null,
              "after": "git"
            },
            {
              "field": "sdkKey",
              "before": null,
              "after": "sdk-********-****-****-****-*******99999"
            }
          ],
          "error": null
        },
        {
          "name": "spree-old",
          "outcome": "removed",
          "changes": [],
          "error": null
        }
      ],
      "summary": {
        "created": 1,
        "updated": 1,
        "unchanged": 1,
        "removed": 1,
        "failed": 0
      }
    }
    --- 1
    "#);
}

#[tokio::test]
async fn what_is_exported_is_planned_to_stay_as_it_is() {
    let place = Place::new().await;
    place.write(AFTER);
    place.run("apply -f FILE").await;
    let exported = place.run("export").await;
    insta::assert_snapshot!(exported, @r"
    # Environments of the control at URL. SDK keys do not come out of control, but for references to them: an entry without sdkKey keeps the key that is there.
    # To create them elsewhere, add to each: sdkKey: {file: PATH}, {env: VARIABLE} or {worker: REFERENCE}
    environments:
    - name: spree-eu
      prefix: ld:spree
      store: eu
      source: poll
      labels:
        managed-by: git
    - name: spree-production
      prefix: ld:spree
      labels:
        managed-by: git
        team: b
    --- 0
    ");
    place.write(exported.split("---").next().unwrap());
    insta::assert_snapshot!(place.run("plan -f FILE --prune").await, @r"
    0 to create, 0 to update, 0 to remove, 2 unchanged
    --- 0
    ");
    insta::assert_snapshot!(place.run("export -l team=b -o json").await, @r#"
    {
      "environments": [
        {
          "name": "spree-production",
          "prefix": "ld:spree",
          "labels": {
            "managed-by": "git",
            "team": "b"
          }
        }
      ]
    }
    --- 0
    hint: SDK keys do not come out of control, but for references to them: an entry without sdkKey keeps the key that is there
    "#);
}

#[tokio::test]
async fn what_cannot_be_applied_is_listed_and_the_rest_applied() {
    let place = Place::new().await;
    place.write(BEFORE);
    place.run("apply -f FILE").await;
    place.write(
        "stores: [{name: default, url: 'redis://elsewhere.test'}]
environments:
- {name: spree-same, prefix: 'ld:other', sdkKey: {file: key}}
- {name: spree-twin, prefix: 'ld:old', store: eu, sdkKey: {file: key}}
- {name: spree-new, prefix: 'ld:new'}
",
    );
    insta::assert_snapshot!(place.run("plan -f FILE").await, @r#"
    ! store/default
    ! spree-same  STORE_NAME_TAKEN
    ! spree-twin  STORE_NOT_FOUND
    ! spree-new   STORE_NAME_TAKEN
    0 to create, 0 to update, 0 to remove, 0 unchanged, 3 that cannot be applied
    --- 2
    4 of 4 cannot be applied; the others are not held up by that
           store/default: STORE_NAME_TAKEN: url: store "default" exists and is redis://127.0.0.1:6379, not redis://elsewhere.test:6379; it is that of control's --redis-url
           environment/spree-same: STORE_NAME_TAKEN: url: store "default" exists and is redis://127.0.0.1:6379, not redis://elsewhere.test:6379; it is that of control's --redis-url
           environment/spree-twin: STORE_NOT_FOUND: store: no store is named "eu"; known stores: "default"
           environment/spree-new: STORE_NAME_TAKEN: url: store "default" exists and is redis://127.0.0.1:6379, not redis://elsewhere.test:6379; it is that of control's --redis-url
    "#);
    place.write(
        "environments:
- {name: spree-same, prefix: 'ld:other', sdkKey: {file: key}}
- {name: spree-twin, prefix: 'ld:old', sdkKey: {file: key}}
- {name: spree-new, prefix: 'ld:new', sdkKey: {file: key}}
",
    );
    insta::assert_snapshot!(place.run("apply -f FILE").await, @r#"
    environment/spree-new created
    --- 1
    1 created, 0 updated, 0 removed, 0 unchanged, 2 failed
    2 of 3 cannot be applied; the others are not held up by that
           environment/spree-same: INVALID_FIELD: prefix: immutable: it is "ld:same" and cannot become "ld:other"; remove the environment and add it again
           environment/spree-twin: PREFIX_TAKEN: prefix: "ld:old" on store "default" belongs to environment "spree-old"; choose another prefix, or remove that environment first
    "#);
}

#[tokio::test]
async fn a_large_prune_is_refused_without_a_yes() {
    let place = Place::new().await;
    let manifest = |range: std::ops::Range<u8>| {
        range.fold("environments:\n".to_owned(), |all, number| {
            all + &format!(
                "- {{name: e{number}, prefix: p{number}, sdkKey: {{file: key}}, labels: {{managed-by: git}}}}\n"
            )
        })
    };
    place.write(&manifest(0..12));
    place.run("apply -f FILE").await;
    place.write(&manifest(6..13));
    insta::assert_snapshot!(place.run("apply -f FILE --prune").await, @r#"
    --- 2
    prune would remove 6 of the 12 environments that carry managed-by=git: "e0", "e1", "e2", "e3", "e4", "e5"; nothing was applied
    "#);
    insta::assert_snapshot!(place.run("plan -f FILE --prune").await, @r#"
    + e12  prefix: "p12"
           labels.managed-by: "git"
           sdkKey: "sdk-********-****-****-****-*******99999"
    - e0
    - e1
    - e2
    - e3
    - e4
    - e5
    1 to create, 0 to update, 6 to remove, 6 unchanged
    --- 1
    warning: prune would remove 6 of the 12 environments that carry managed-by=git: "e0", "e1", "e2", "e3", "e4", "e5"; apply needs --yes for it
    "#);
    insta::assert_snapshot!(place.run("apply -f FILE --prune --yes").await, @r"
    environment/e12 created
    environment/e0 removed
    environment/e1 removed
    environment/e2 removed
    environment/e3 removed
    environment/e4 removed
    environment/e5 removed
    --- 0
    1 created, 0 updated, 6 removed, 6 unchanged, 0 failed
    ");
}

#[tokio::test]
async fn a_wrong_file_is_a_usage_error() {
    let place = Place::new().await;
    place
        .write("environments:\n- {name: a, prefix: p, sdkKey: sdk-in-the-file, team: x}\n- {name: B, prefix: q}\n");
    insta::assert_snapshot!(place.run("apply -f FILE").await, @r#"
    --- 2
    DIR/environments.yaml, document 1, environment "a", sdkKey: a secret is never written into the file; say where it is: {file: PATH}, {env: VARIABLE} or, where only workers read it, {worker: REFERENCE}
           DIR/environments.yaml, document 1, environment "B", name: "B" is not a valid environment name: 1 to 63 characters of a-z, 0-9, '.', '_' and '-', the first and the last a letter or digit
    "#);
    insta::assert_snapshot!(place.run("plan -f FILE/nowhere").await, @r"
    --- 2
    --file: cannot read DIR/environments.yaml/nowhere: Not a directory (os error 20)
    ");
}
