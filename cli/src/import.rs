//! `flotilla import`: a relay's own configuration, as a manifest or applied at once.

// Secrets, written to files.
mod keys;
// Which store the relay's Redis is.
mod store;

use std::io::Write as _;
use std::path::Path;

use flotilla_proto::manifest::{Manifest, ManifestError, SecretSource, Text};
use flotilla_proto::v1::BatchApplyEnvironmentsRequest;

use crate::arguments::{Import, OutputFormat, RelaySource};
use crate::failure::{ExitStatus, Failure};
use crate::manifest::{carry_out, show_plan};
use crate::output::{Notation, write_document};
use crate::relay_configuration::{Declared, RelayConfiguration, SecretPlace};
use crate::session::Session;
use store::WithoutControl;

/// Runs `flotilla import`.
pub async fn run(session: &mut Session, options: &Import) -> Result<ExitStatus, Failure> {
    let configuration = read(&options.source)?;
    for note in notes(&configuration) {
        session.note(&note);
    }
    let without_control =
        if options.apply || options.dry_run { WithoutControl::Fail } else { WithoutControl::Declare };
    let store = store::choose(session, &configuration, options.store.as_ref(), without_control).await?;
    let secrets = match &options.write_keys {
        Some(directory) => SecretPlace::Files(directory.display().to_string()),
        None => SecretPlace::Variables,
    };
    let declared = configuration.declared(&store, &secrets);
    let request = request(&configuration, &declared)?;
    if options.dry_run {
        return show_plan(session, request).await.map(|_| ExitStatus::Done);
    }
    if options.apply {
        return carry_out(session, &request).await;
    }
    if options.write_keys.is_some() {
        keys::write(&declared)?;
    }
    print(session, &configuration, &declared)?;
    Ok(ExitStatus::Done)
}

/// Reads what the options name.
pub(crate) fn read(source: &RelaySource) -> Result<RelayConfiguration, Failure> {
    let read = if let Some(path) = &source.from {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("--from: cannot read {name}: {error}")))?;
        RelayConfiguration::of_file(&name, &text)
    } else {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let variables = std::env::vars_os();
        RelayConfiguration::of_variables(variables.map(|(name, value)| (text(name), text(value))))
    };
    read.map_err(|errors| {
        Failure::usage(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n       "))
            .hint("docs/import.md says what becomes of each option of the relay")
    })
}

/// What there is to say of it, beside what it comes to.
pub(crate) fn notes(configuration: &RelayConfiguration) -> Vec<String> {
    let warnings = configuration.warnings.iter().map(|warning| format!("warning: {warning}"));
    warnings.chain(configuration.not_needed.iter().map(|note| format!("not needed: {note}"))).collect()
}

/// What control is asked for. It comes of the very text that is printed, so that both are the same.
pub(crate) fn request(
    configuration: &RelayConfiguration,
    declared: &Declared,
) -> Result<BatchApplyEnvironmentsRequest, Failure> {
    let wrong = |errors: Vec<ManifestError>| {
        Failure::usage(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n       "))
    };
    let mut text = Vec::new();
    write_document(&mut text, Notation::Yaml, &declared.document)?;
    let text = Text { file: configuration.source.clone(), text: String::from_utf8_lossy(&text).into_owned() };
    let manifest = Manifest::parse(&[text]).map_err(wrong)?;
    let secret = |source: &SecretSource| declared.secret(source).map(ToOwned::to_owned);
    manifest.request(|_, source| secret(source).ok_or_else(|| "it is nowhere".to_owned())).map_err(wrong)
}

fn print(session: &mut Session, configuration: &RelayConfiguration, declared: &Declared) -> Result<(), Failure> {
    if !declared.made_up.is_empty() {
        let names: Vec<_> = declared.made_up.iter().map(String::as_str).collect();
        session.note(&format!(
            "keys and passwords are not printed; set these variables for `flotilla apply`: {}",
            names.join(", ")
        ));
        session.note("hint: --write-keys DIR writes them to files that the manifest names; --apply needs neither");
    }
    match session.format {
        OutputFormat::Name => {
            for environment in &configuration.environments {
                writeln!(session.out, "environment/{}", environment.name)?;
            }
            Ok(session.out.flush()?)
        }
        OutputFormat::Json => write_document(&mut session.out, Notation::Json, &declared.document),
        OutputFormat::Table | OutputFormat::Wide | OutputFormat::Yaml => {
            let source = Path::new(&configuration.source).file_name().unwrap_or_default().to_string_lossy();
            writeln!(
                session.out,
                "# From {source}; see `flotilla apply --help`. Paths begin at the directory of this file."
            )?;
            write_document(&mut session.out, Notation::Yaml, &declared.document)
        }
    }
}
