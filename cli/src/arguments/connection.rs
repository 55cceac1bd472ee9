//! How control is reached, and who asks.

use std::path::PathBuf;

use clap::Args;
use flotilla_proto::connect::{ClientIdentity, ConnectOptions, Plain};

/// How control is reached, and who asks.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Connection {
    /// PEM file of the authorities that control's certificate may be of [default: the public ones]
    #[arg(long, env = "FLOTILLA_CA", hide_env_values = true, value_name = "FILE", global = true)]
    pub ca: Option<PathBuf>,
    /// PEM file of a certificate to show to control
    #[arg(long, env = "FLOTILLA_CLIENT_CERT", hide_env_values = true, value_name = "FILE", global = true)]
    pub client_cert: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, env = "FLOTILLA_CLIENT_KEY", hide_env_values = true, value_name = "FILE", global = true)]
    pub client_key: Option<PathBuf>,
    /// File with a token to show to control
    #[arg(long, env = "FLOTILLA_TOKEN_FILE", hide_env_values = true, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// Reach control also without TLS, beyond this machine: keys and tokens travel readably
    #[arg(long, env = "FLOTILLA_INSECURE", hide_env_values = true, global = true)]
    pub insecure: bool,
}

impl Connection {
    /// What they mean, or what is missing.
    pub(crate) fn options(&self) -> Result<ConnectOptions, String> {
        let identity = match (&self.client_cert, &self.client_key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                Some(ClientIdentity { certificate: certificate.clone(), key: key.clone() })
            }
            (Some(_), None) => return Err("--client-cert needs --client-key, the file of its key".to_owned()),
            (None, Some(_)) => {
                return Err("--client-key needs --client-cert, the file of its certificate".to_owned());
            }
        };
        Ok(ConnectOptions {
            ca: self.ca.clone(),
            identity,
            token_file: self.token_file.clone(),
            plain: if self.insecure { Plain::Anywhere } else { Plain::Loopback },
        })
    }
}
