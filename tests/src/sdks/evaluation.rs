//! What readers answer, and the cases that they are asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use crate::harness::workspace_directory;
use crate::simulator::Dataset;

/// What an SDK made of a case.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct CaseResult {
    /// The flag's key.
    pub flag: String,
    /// What it evaluated to.
    pub value: Value,
    /// The variation's index; none for the default value.
    pub variation: Option<i64>,
    /// The reason's kind, and `ERROR:<error kind>` for errors.
    pub reason: String,
}

/// What an SDK says about all flags at once.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct AllFlags {
    /// Whether the SDK had data.
    pub valid: bool,
    /// The value of each flag.
    pub values: BTreeMap<String, Value>,
}

/// One answer of a reader. Numbers are made comparable: one SDK prints `1.0` where another prints `1`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Evaluation {
    /// In the order of the file.
    pub cases: Vec<CaseResult>,
    /// For the file's own context.
    pub all_flags: AllFlags,
}

impl Evaluation {
    pub(super) fn parse(line: &str) -> anyhow::Result<Self> {
        let mut evaluation: Self = serde_json::from_str(line)?;
        evaluation.cases.iter_mut().for_each(|case| make_comparable(&mut case.value));
        evaluation.all_flags.values.values_mut().for_each(make_comparable);
        Ok(evaluation)
    }

    /// Equal, or what differs: a few lines for the reader of a failed test.
    pub fn compare(&self, other: &Self) -> Result<(), String> {
        if self == other {
            return Ok(());
        }
        let cases = self.cases.iter().zip(&other.cases).filter(|(one, two)| one != two);
        let mut differences: Vec<String> =
            cases.map(|(one, two)| format!("wanted {one:?}, found {two:?}")).collect();
        if self.cases.len() != other.cases.len() {
            differences.push(format!("wanted {} cases, found {}", self.cases.len(), other.cases.len()));
        }
        if self.all_flags.valid != other.all_flags.valid {
            differences.push(format!("all flags: wanted valid {}", self.all_flags.valid));
        }
        let keys = self.all_flags.values.keys().chain(other.all_flags.values.keys());
        for key in keys.collect::<BTreeSet<_>>() {
            let (one, two) = (self.all_flags.values.get(key), other.all_flags.values.get(key));
            if one != two {
                differences.push(format!("all flags, {key}: wanted {one:?}, found {two:?}"));
            }
        }
        let count = differences.len();
        differences.truncate(5);
        Err(format!("{count} differences:\n{}", differences.join("\n")))
    }
}

/// Turns every number into a floating point one, which is what flag values are.
fn make_comparable(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64() {
                *value = Value::from(float);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(make_comparable),
        Value::Object(fields) => fields.values_mut().for_each(make_comparable),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// `tests/fixtures/evaluation.json`: flags of every type and the cases to evaluate.
#[derive(Debug)]
pub struct EvaluationFixture {
    /// The file, for [`super::SdkReader::start`].
    pub path: PathBuf,
    /// Its flags and segments.
    pub data: Dataset,
    /// For each case, what it must evaluate to, where that does not depend on hashes.
    pub expected: Vec<Option<CaseResult>>,
}

impl EvaluationFixture {
    /// Reads the file.
    pub fn load() -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct File<'text> {
            #[serde(borrow)]
            data: &'text serde_json::value::RawValue,
            cases: Vec<Case>,
        }
        #[derive(Deserialize)]
        struct Case {
            flag: String,
            expect: Option<Expectation>,
        }
        #[derive(Deserialize)]
        struct Expectation {
            value: Value,
            variation: Option<i64>,
            reason: String,
        }
        let path = workspace_directory().join("tests/fixtures/evaluation.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: File<'_> = serde_json::from_str(&text).context("the fixture has another shape")?;
        let expected = file.cases.into_iter().map(|case| {
            let Expectation { mut value, variation, reason } = case.expect?;
            make_comparable(&mut value);
            Some(CaseResult { flag: case.flag, value, variation, reason })
        });
        let expected = expected.collect();
        Ok(Self { data: Dataset::parse(file.data.get())?, path, expected })
    }

    /// Checks the cases whose result is written down.
    ///
    /// # Panics
    /// At the first one that differs.
    pub fn assert_expected(&self, evaluation: &Evaluation) {
        assert_eq!(evaluation.cases.len(), self.expected.len());
        for (index, (found, expected)) in evaluation.cases.iter().zip(&self.expected).enumerate() {
            if let Some(expected) = expected {
                assert_eq!(found, expected, "case {index}");
            }
        }
    }
}
