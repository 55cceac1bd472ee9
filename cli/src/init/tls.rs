//! A private authority, and certificates that it has signed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flotilla_proto::process::Clock;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use zeroize::Zeroizing;

use super::{Existing, NewFile, write_all};
use crate::arguments::InitTls;
use crate::failure::{ExitStatus, Failure};

/// The authority's name. With its key it is all that signing needs, so that its certificate need not be read again.
const AUTHORITY: &str = "Flotilla private authority";
/// How long the authority is valid.
const AUTHORITY_DAYS: u16 = 3650;
/// Clocks differ: certificates are valid from a little before they are made.
const CLOCK_DIFFERENCE: Duration = Duration::from_hours(1);

/// Makes them. Returns what was written, and what to do with it.
pub(super) fn make(options: &InitTls) -> Result<(Vec<PathBuf>, String), Failure> {
    let directory = &options.directory;
    let validity = Validity::new(options.days);
    let mut files = Vec::new();
    let authority = if options.renew {
        read_authority(directory)?
    } else {
        let (issuer, certificate, key) = new_authority().map_err(|error| failed(&error))?;
        files.push(NewFile { path: directory.join("ca.pem"), text: Zeroizing::new(certificate) });
        files.push(NewFile { path: directory.join("ca.key"), text: key });
        issuer
    };
    let mut names = vec![
        SanType::DnsName("localhost".try_into().map_err(|error| failed(&error))?),
        SanType::IpAddress(IpAddr::from([127, 0, 0, 1])),
        SanType::IpAddress(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16])),
    ];
    for host in &options.host {
        names.push(name_of("--host", host)?);
    }
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    files.extend(pair(directory, "control", names, server, validity, &authority)?);
    for client in &options.client {
        if matches!(client.as_str(), "ca" | "control") || client.contains(['/', '\\']) {
            return Err(Failure::usage(format!("--client {client:?} cannot be the name of a client's files")));
        }
        let name = SanType::DnsName(client.as_str().try_into().map_err(|_| bad_name("--client", client))?);
        let purpose = ExtendedKeyUsagePurpose::ClientAuth;
        files.extend(pair(directory, client, vec![name], purpose, validity, &authority)?);
    }
    let existing = if options.renew { Existing::Replace } else { Existing::Refuse };
    let written = write_all(directory, &files, existing)?;
    Ok((written, advice(directory, options)))
}

fn advice(directory: &Path, options: &InitTls) -> String {
    let shown = |name: &str| directory.join(name).display().to_string();
    let host = options.host.first().map_or("localhost", String::as_str);
    let serving = format!(
        "Control serves with:\n  flotilla-control --tls-cert {} --tls-key {} …\n\
         Workers and the command line trust it with:\n  flotilla-worker --control https://{host}:7400 --ca {ca} …\n  \
         flotilla --control https://{host}:7400 --ca {ca} status\n",
        shown("control.pem"),
        shown("control.key"),
        ca = shown("ca.pem"),
    );
    let clients = options.client.first().map_or_else(String::new, |client| {
        format!(
            "Clients show their certificates with:\n  --client-cert {} --client-key {}\nand control accepts them \
             with:\n  --client-ca {}\n",
            shown(&format!("{client}.pem")),
            shown(&format!("{client}.key")),
            shown("ca.pem"),
        )
    });
    let renewal = format!(
        "They are valid for {} days. `flotilla init tls {} --renew` with the same options makes new ones, which control \
         takes without a restart.\nKeep {} where control does not run: whoever has it can be anybody.\n",
        options.days,
        directory.display(),
        shown("ca.key"),
    );
    serving + &clients + &renewal
}

/// From when until when, in seconds since 1970.
#[derive(Clone, Copy)]
struct Validity {
    from: Duration,
    until: Duration,
}

impl Validity {
    fn new(days: u16) -> Self {
        let now = Duration::from_millis(Clock::start().now().0);
        let from = now.saturating_sub(CLOCK_DIFFERENCE);
        Self { from, until: now + Duration::from_hours(24 * u64::from(days)) }
    }

    fn put(self, params: &mut CertificateParams) {
        params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(self.from.as_secs());
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(self.until.as_secs());
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Validity::new(AUTHORITY_DAYS).put(&mut params);
    params
}

type Authority = Issuer<'static, KeyPair>;

fn new_authority() -> Result<(Authority, String, Zeroizing<String>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = authority_params().self_signed(&key)?.pem();
    let text = Zeroizing::new(key.serialize_pem());
    Ok((Issuer::new(authority_params(), key), certificate, text))
}

fn read_authority(directory: &Path) -> Result<Authority, Failure> {
    let path = directory.join("ca.key");
    let told = |error: String| {
        Failure::usage(format!("--renew: cannot read {}: {error}", path.display()))
            .hint("without --renew a new authority is made, which clients then have to trust")
    };
    let text = std::fs::read_to_string(&path).map(Zeroizing::new).map_err(|error| told(error.to_string()))?;
    let key = KeyPair::from_pem(&text).map_err(|_| told("there is no private key in it".to_owned()))?;
    Ok(Issuer::new(authority_params(), key))
}

/// A certificate and its key.
fn pair(
    directory: &Path,
    name: &str,
    names: Vec<SanType>,
    purpose: ExtendedKeyUsagePurpose,
    validity: Validity,
    authority: &Authority,
) -> Result<[NewFile; 2], Failure> {
    let made = || {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        validity.put(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, authority)?.pem();
        Ok((certificate, Zeroizing::new(key.serialize_pem())))
    };
    let (certificate, key) = made().map_err(|error: rcgen::Error| failed(&error))?;
    Ok([
        // The key first: until both are there, a server that reads them stays with what it had.
        NewFile { path: directory.join(format!("{name}.key")), text: key },
        NewFile { path: directory.join(format!("{name}.pem")), text: Zeroizing::new(certificate) },
    ])
}

fn name_of(option: &str, text: &str) -> Result<SanType, Failure> {
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_*".contains(&byte);
    if text.is_empty() || !text.bytes().all(fits) {
        return Err(bad_name(option, text));
    }
    Ok(SanType::DnsName(text.try_into().map_err(|_| bad_name(option, text))?))
}

fn bad_name(option: &str, text: &str) -> Failure {
    Failure::usage(format!(
        "{option} {text:?} is neither a name nor an address, such as control.example or 10.0.0.5"
    ))
}

fn failed(error: &rcgen::Error) -> Failure {
    Failure::new(ExitStatus::Failed, format!("cannot make a certificate: {error}"))
}
