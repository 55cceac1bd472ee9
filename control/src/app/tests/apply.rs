//! Many environments in one request.

use flotilla_proto::Reason;
use tonic::Code;
use v1::ApplyOutcome as Outcome;

use super::*;

fn entry(name: &str) -> v1::EnvironmentEntry {
    let v1::CreateEnvironmentRequest { name, spec, sdk_key, .. } = new_environment(name);
    v1::EnvironmentEntry { name, spec, sdk_key, take_over: false }
}

fn outcomes(applied: &v1::BatchApplyEnvironmentsResponse) -> Vec<(String, Outcome)> {
    applied.results.iter().map(|result| (result.name.clone(), result.outcome())).collect()
}

#[tokio::test]
async fn a_batch_is_carried_out_entry_by_entry_and_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let mut wrong = entry("w");
    wrong.sdk_key = "sdk-****".to_owned();
    let request = v1::BatchApplyEnvironmentsRequest {
        entries: vec![entry("a"), entry("b"), wrong, entry("twice"), entry("twice"), entry("B B")],
        request_id: "r1".to_owned(),
        ..Default::default()
    };
    assert!(!format!("{request:?}").contains("99999"));
    let applied = control.environments().batch_apply_environments(request.clone()).await.unwrap().into_inner();
    let expected = [
        ("a", Outcome::Created),
        ("b", Outcome::Created),
        ("w", Outcome::Failed),
        ("twice", Outcome::Failed),
        ("twice", Outcome::Failed),
        ("B B", Outcome::Failed),
    ];
    assert_eq!(outcomes(&applied), expected.map(|(name, outcome)| (name.to_owned(), outcome)));
    let fields: Vec<_> = applied.results[2..].iter().map(|one| one.error.clone().unwrap().field).collect();
    assert_eq!(fields, ["sdk_key", "name", "name", "name"]);
    assert!(!format!("{applied:?}").contains(KEY));
    drop(control.running.stop().await);
    let control = start(settings(&directory)).await;
    assert!(control.get("a").await.is_ok() && control.get("b").await.is_ok());
    let again = control.environments().batch_apply_environments(request).await.unwrap().into_inner();
    assert_eq!(again.results[0].outcome(), Outcome::Unchanged);
}

#[tokio::test]
async fn what_is_wrong_with_the_whole_request_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let apply = async |request| control.environments().batch_apply_environments(request).await;
    let many = |count| v1::BatchApplyEnvironmentsRequest {
        entries: vec![v1::EnvironmentEntry::default(); count],
        ..Default::default()
    };
    let refused = refusal(apply(many(10_001)).await);
    assert_eq!((refused.violations[0].field.as_str(), refused.message.contains("10000")), ("entries", true));
    // So many are not even decoded.
    let refused = apply(many(100_001)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("more than 100000 parts"), "{refused}");
    let prune = |managed_by: &str| v1::BatchApplyEnvironmentsRequest {
        prune: Some(v1::Prune { managed_by: managed_by.to_owned(), accept_blast_radius: false }),
        ..Default::default()
    };
    assert_eq!(refusal(apply(prune("")).await).violations[0].field, "prune.managed_by");
    let mut managed = entry("a");
    managed.spec.as_mut().unwrap().labels.insert("managed-by".to_owned(), "git".to_owned());
    apply(v1::BatchApplyEnvironmentsRequest { entries: vec![managed], ..Default::default() }).await.unwrap();
    assert_eq!(refusal(apply(prune("git")).await).reason, Reason::BlastRadius);
    assert!(control.get("a").await.is_ok());
}
