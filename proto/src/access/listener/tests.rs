use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::*;
use crate::access::standing::IDLE_TIMEOUT;
use crate::access::{AccessSettings, ClientCertificates, KeySource, TlsFiles};
use crate::process::{install_tls_provider, raise_file_limit};

const PATIENCE: Duration = Duration::from_secs(5);

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn client(&self, certificate: Option<(String, String)>) -> TlsConnector {
        install_tls_provider();
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let config = match certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                    .unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

/// A listener with a certificate for `localhost`, and where it listens.
async fn listener(authority: &Authority, directory: &Path, protocol: Protocol) -> (Listener, SocketAddr) {
    let path = |name: &str| directory.join(name);
    let (certificate, key) = authority.sign("localhost");
    std::fs::write(path("ca.pem"), authority.0.pem()).unwrap();
    std::fs::write(path("server.pem"), certificate).unwrap();
    std::fs::write(path("server.key"), key).unwrap();
    let tls = TlsFiles {
        certificate: path("server.pem"),
        key: path("server.key"),
        clients: ClientCertificates::Required(path("ca.pem")),
    };
    let access = AccessSettings { tls: Some(tls), keys: KeySource::AnyCertificate }.open().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    (Listener::new(tcp, protocol, access.tls), address)
}

async fn connect(client: &TlsConnector, address: SocketAddr) -> io::Result<()> {
    let name = ServerName::try_from("localhost").unwrap();
    let stream = client.connect(name, TcpStream::connect(address).await?).await?;
    // It stays open, as far as the server can tell.
    std::mem::forget(stream);
    Ok(())
}

#[tokio::test]
async fn a_peer_is_known_by_the_names_of_its_certificate() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let (mut server, address) = listener(&authority, directory.path(), Protocol::Grpc).await;
    let client = authority.client(Some(authority.sign("w1.example")));
    let (connection, connected) = tokio::join!(timeout(PATIENCE, server.accept()), connect(&client, address));
    connected.unwrap();
    assert_eq!(connection.unwrap().peer().certificate.as_deref(), Some(&["w1.example".to_owned()][..]));
    // Without one, or with one of another authority, there is no connection.
    for client in [authority.client(None), authority.client(Some(Authority::new().sign("w1.example")))] {
        let nobody = async {
            let _ = connect(&client, address).await;
            sleep(Duration::from_millis(200)).await;
        };
        tokio::select! {
            connection = server.accept() => panic!("{connection:?}"),
            () = nobody => {}
        }
    }
}

#[tokio::test]
async fn probes_over_http_need_no_certificate() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let (mut server, address) = listener(&authority, directory.path(), Protocol::Http).await;
    let client = authority.client(None);
    let (connection, connected) = tokio::join!(timeout(PATIENCE, server.accept()), connect(&client, address));
    connected.unwrap();
    assert!(connection.unwrap().peer().certificate.is_none());
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    raise_file_limit();
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let (mut server, address) = listener(&authority, directory.path(), Protocol::Grpc).await;
    let client = authority.client(Some(authority.sign("w1")));
    let idle = async {
        let mut silent = Vec::new();
        for _ in 0..1500 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        silent
    };
    let _silent = tokio::select! {
        connection = server.accept() => panic!("{connection:?}"),
        silent = idle => silent,
    };
    let (connection, connected) = tokio::join!(timeout(PATIENCE, server.accept()), connect(&client, address));
    connected.unwrap();
    assert!(connection.unwrap().peer().certificate.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_connection_over_which_nobody_known_calls_ends() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let mut server = Listener::new(tcp, Protocol::Grpc, None);
    let (mut connection, _client) = tokio::join!(server.accept(), TcpStream::connect(address));
    assert!(timeout(IDLE_TIMEOUT / 2, connection.read(&mut [0; 9])).await.is_err());
    // Whatever is done with it, and however often.
    for _ in 0..2 {
        assert_eq!(connection.read(&mut [0; 9]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(connection.write(b"x").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(connection.flush().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    let (mut connection, _client) = tokio::join!(server.accept(), TcpStream::connect(address));
    connection.peer().standing.become_known();
    assert!(timeout(IDLE_TIMEOUT * 9, connection.read(&mut [0; 9])).await.is_err());
}

/// The server writes to it, and so does not read from it.
#[tokio::test(start_paused = true)]
async fn a_stranger_who_does_not_read_ends_too() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let mut server = Listener::new(tcp, Protocol::Grpc, None);
    let (mut connection, _client) = tokio::join!(server.accept(), TcpStream::connect(address));
    let writing = async { while connection.write(&[0; 8192]).await.is_ok() {} };
    timeout(IDLE_TIMEOUT * 3, writing).await.unwrap();
}
