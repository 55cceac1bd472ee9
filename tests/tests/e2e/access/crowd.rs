//! Many who connect and say nothing.

use std::net::SocketAddr;

use flotilla_proto::process::raise_file_limit;
use flotilla_tests::harness::Fleet;
use flotilla_tests::simulator::{Kind, generated_flag, generated_flags};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::{KEY, file, get_from, session_began};
use crate::stored::{BOUND, wait_for_stored};

/// Of these half come to each of control's ports.
const SILENT: usize = 2000;
const WITH_TLS: usize = 500;

async fn silent(addresses: [SocketAddr; 2]) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for at in 0..SILENT {
        connections.push(TcpStream::connect(addresses[at % 2]).await.unwrap());
    }
    connections
}

/// Connections whose handshake is done, and over which no call is made.
async fn without_a_call(fleet: &Fleet) -> Vec<Channel> {
    let ca = Certificate::from_pem(std::fs::read_to_string(file(fleet, "tls/ca.pem")).unwrap());
    let endpoint = Endpoint::from_shared(fleet.control_url()).unwrap();
    let endpoint = endpoint.tls_config(ClientTlsConfig::new().ca_certificate(ca)).unwrap();
    let mut connecting = JoinSet::new();
    for _ in 0..WITH_TLS {
        let endpoint = endpoint.clone();
        connecting.spawn(async move { endpoint.connect().await.unwrap() });
    }
    connecting.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_say_nothing_keep_nobody_out() {
    raise_file_limit();
    let fleet = Fleet::builder().secured().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("id"), generated_flags(3, 200, 1));
    fleet.add_environment("spree", "ld:spree", KEY, &["--wait"]).await.unwrap().expect_success();
    let began = session_began(&fleet).await;
    let (grpc, http) = (fleet.control_listening().grpc.unwrap(), fleet.control_listening().http);
    let crowd = (silent([grpc, http]).await, without_a_call(&fleet).await);
    assert_eq!((crowd.0.len(), crowd.1.len()), (SILENT, WITH_TLS));

    // Old clients, and new ones.
    assert_eq!(session_began(&fleet).await, began);
    for path in ["/livez", "/readyz", "/metrics"] {
        let (status, body) = get_from(&fleet, http, path, Some("tokens/viewer.token"), &[]).await;
        assert_eq!(status, 200, "{path}: {body}");
    }
    fleet.cli(&["env", "pause", "spree"]).await.unwrap().expect_success();
    fleet.cli(&["env", "resume", "spree"]).await.unwrap().expect_success();
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    fleet.simulator.patch(KEY, Kind::Flag, generated_flag(1, 2, 200, 1));
    wait_for_stored(&fleet.redis, "ld:spree", &fleet.simulator.data(KEY), BOUND).await;
    assert_eq!(session_began(&fleet).await, began);
    drop(crowd);
}
