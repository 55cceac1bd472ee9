//! A certificate authority of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use flotilla_tests::harness::TlsFiles;
use tempfile::TempDir;

/// An authority, a certificate for servers on the loopback interface, and one for clients.
pub(crate) struct Certificates {
    directory: TempDir,
}

impl Certificates {
    pub(crate) fn make() -> Self {
        let made = Self { directory: tempfile::tempdir().unwrap() };
        let directory = made.directory.path();
        openssl(
            directory,
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
        );
        fs::write(directory.join("server.ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
        fs::write(directory.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
        for name in ["server", "client"] {
            openssl(
                directory,
                &format!(
                    "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
                ),
            );
            openssl(
                directory,
                &format!(
                    "x509 -req -days 2 -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile {name}.ext -out {name}.pem"
                ),
            );
        }
        made
    }

    /// `ca.pem`, `server.pem`, `server.key`, `client.pem` or `client.key`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What servers show, and whom they trust.
    pub(crate) fn server(&self) -> TlsFiles {
        let [ca, cert, key] = ["ca.pem", "server.pem", "server.key"].map(|name| self.text(name));
        TlsFiles { ca, cert, key }
    }

    /// What `store add`, and readers, are told to trust and to show.
    pub(crate) fn client_options(&self) -> Vec<String> {
        [("--tls-ca", "ca.pem"), ("--tls-cert", "client.pem"), ("--tls-key", "client.key")]
            .into_iter()
            .flat_map(|(option, file)| [option.to_owned(), self.text(file)])
            .collect()
    }

    /// As text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl").current_dir(directory).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
