//! Probes, metrics, reflection, health, starting and stopping.

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::*;

#[tokio::test]
async fn probes_metrics_and_status_answer_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    control.create("spree").await;
    assert_eq!(control.http("/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(control.http("/readyz").await.0, 200);
    let (status, body) = control.http("/readyz?verbose").await;
    assert_eq!(status, 200);
    for check in ["store", "driver", "grpc"] {
        assert!(body.contains(&format!("[+] {check} ok")), "{body}");
    }
    let (_, metrics) = control.http("/metrics").await;
    for name in [
        "flotilla_environments{state=\"unknown\"} 1",
        "flotilla_environments{state=\"current\"} 0",
        "flotilla_workers{state=\"connected\"} 0",
        "flotilla_assignments_moved_total{reason=",
        "flotilla_session_reconnects_total 0",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
    let (_, text) = control.http("/status").await;
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["fleetId"], control.running.fleet_id().as_str());
    assert_eq!(document["environments"][0]["name"], "spree");
    assert_eq!(document["environments"][0]["initialization"], "unknown");
    for page in [metrics, text] {
        // The key, its last part, the key as it is masked. Five digits alone may stand in a number by chance.
        for secret in ["hunter2", KEY, "456789a99999", "*99999"] {
            assert!(!page.contains(secret), "{secret} in {page}");
        }
    }
}

#[tokio::test]
async fn health_and_reflection_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let mut health = HealthClient::new(control.channel.clone());
    for service in ["", "flotilla.v1.EnvironmentService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(control.channel.clone());
    let answer = reflection.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answer.into_inner().message().await.unwrap().unwrap().message_response
    else {
        panic!("no list")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["flotilla.v1.EnvironmentService", "flotilla.v1.WorkerService", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|one| one == name), "{name} in {names:?}");
    }
}

#[tokio::test]
async fn stopping_tells_those_who_watch_health_and_ends_soon() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let mut health = HealthClient::new(control.channel.clone());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let request = v1::WatchEnvironmentsRequest::default();
    let mut environments = control.environments().watch_environments(request).await.unwrap().into_inner();
    environments.message().await.unwrap();
    let stop = tokio::time::timeout(Duration::from_secs(5), control.running.stop());
    let (stopped, told) = tokio::join!(stop, watch.message());
    stopped.expect("within 5 s").unwrap();
    assert_eq!(told.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(environments.message().await.unwrap_err().code(), tonic::Code::Unavailable);
}

#[tokio::test]
async fn a_second_control_is_refused_its_port_and_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let error = App::start(settings(&directory)).await.unwrap_err().to_string();
    assert!(error.contains("in use by another flotilla-control") && error.contains("data"), "{error}");
    let other = tempfile::tempdir().unwrap();
    let taken = control.running.grpc_addr();
    let error = App::start(Settings { listen: taken, ..settings(&other) }).await.unwrap_err().to_string();
    assert!(error.contains("--listen") && error.contains(&taken.to_string()), "{error}");
    let taken = control.running.http_addr();
    let error = App::start(Settings { http_listen: taken, ..settings(&other) }).await.unwrap_err().to_string();
    assert!(error.contains("--http-listen"), "{error}");
}

#[tokio::test]
async fn the_default_store_is_not_replaced_unasked() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = || Settings {
        redis_url: StoreUrl::parse("url", "redis://:hunter2@127.0.0.1:6380").unwrap(),
        ..settings(&directory)
    };
    start(settings(&directory)).await.running.stop().await.unwrap();
    // Nothing uses it, so it may lead anywhere.
    start(elsewhere()).await.running.stop().await.unwrap();
    let control = start(settings(&directory)).await;
    control.create("a").await;
    control.running.stop().await.unwrap();
    let error = App::start(elsewhere()).await.unwrap_err().to_string();
    assert!(error.contains("--replace-default-store") && error.contains("6380"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    // Another password is not another place.
    let same =
        Settings { redis_url: StoreUrl::parse("url", "redis://:other@localhost").unwrap(), ..settings(&directory) };
    start(same).await.running.stop().await.unwrap();
    let replaced = Settings { replace_default_store: true, ..elsewhere() };
    start(replaced).await.running.stop().await.unwrap();
    start(elsewhere()).await.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_failure_to_listen_for_signals_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let error = crate::run(settings(&directory), async { Err(std::io::Error::other("no signals")) }).await;
    assert!(error.unwrap_err().to_string().contains("signals"));
}
