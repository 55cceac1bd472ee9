//! `flotilla store …`.

// Tables and words.
mod view;
// Passwords, never shown.
mod password;
// update.
mod update;

use std::io;

use flotilla_proto::v1::{
    CheckStoreRequest, CreateStoreRequest, DeleteStoreRequest, GetStoreRequest, ListStoresRequest, Store,
    StoreLogin, StoreTls,
};
use tonic::Code;

use crate::arguments::{AccessOptions, AddStore, CheckStore, RemoveStore, StoreCommand};
use crate::client::Client;
use crate::failure::{ExitStatus, Failure};
use crate::output::Shown;
use crate::output::document::{RemovedStoreDocument, StoreCheckDocument, StoreDocument, StoresDocument};
use crate::session::Session;
use password::{Password, Passwords};
use view::{check_table, store_pairs, store_table};

const PAGE_SIZE: u32 = 500;

/// Runs `flotilla store …`.
pub async fn run(session: &mut Session, command: StoreCommand) -> Result<ExitStatus, Failure> {
    match command {
        StoreCommand::Add(options) => add(session, &options).await?,
        StoreCommand::Update(options) => update::update(session, &options).await?,
        StoreCommand::List => list(session).await?,
        StoreCommand::Get { name } => get(session, name.as_str()).await?,
        StoreCommand::Check(options) => {
            return check(session, &options).await.map_err(Failure::where_failed_means_no);
        }
        StoreCommand::Remove(options) => remove(session, &options).await?,
    }
    Ok(ExitStatus::Done)
}

async fn add(session: &mut Session, options: &AddStore) -> Result<(), Failure> {
    warn_of_password(session, &options.url);
    let passwords = password::read(&options.secrets, io::stdin())?;
    let (login, sentinel_login, tls) = access_messages(&options.access, passwords);
    let request = session.client.request(CreateStoreRequest {
        name: options.name.to_string(),
        url: options.url.clone(),
        login: Some(login),
        sentinel_login: Some(sentinel_login),
        tls: Some(tls),
        request_id: String::new(),
        validate_only: options.dry_run,
    });
    let answer = session.client.stores().create_store(request).await;
    let store = in_answer(session.client.answer(answer)?.store)?;
    tell(session, &store, if options.dry_run { "created (dry run)" } else { "created" })
}

fn warn_of_password(session: &mut Session, url: &str) {
    let login = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
    if login.is_some_and(|(login, _)| login.contains(':')) {
        session.note("warning: a password in the URL shows in process lists and shell history; the --password options do not");
    }
}

/// What is given, as messages; what is not is empty.
fn access_messages(access: &AccessOptions, passwords: Passwords) -> (StoreLogin, StoreLogin, StoreTls) {
    let given = |text: &Option<String>| text.clone().unwrap_or_default();
    let login = |username, Password { text, from }| StoreLogin { username, password: text, password_from: from };
    let sentinel_login = login(given(&access.sentinel_username), passwords.sentinel);
    let login = login(given(&access.username), passwords.redis);
    let tls = StoreTls {
        ca_file: given(&access.tls_ca),
        cert_file: given(&access.tls_cert),
        key_file: given(&access.tls_key),
    };
    (login, sentinel_login, tls)
}

/// What is said of a mutation: on one line, or the document as it is afterwards.
fn tell(session: &mut Session, store: &Store, done: &str) -> Result<(), Failure> {
    let name = format!("store/{}", store.name);
    let line = format!("{name} {done}\n");
    session.show(&Shown { document: &StoreDocument::from(store), names: vec![name], table: &|_| line.clone() })
}

/// All stores, page by page.
pub(crate) async fn list_all(client: &Client) -> Result<Vec<Store>, Failure> {
    let mut stores = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = client.request(ListStoresRequest { page_size: PAGE_SIZE, page_token });
        let page = client.answer(client.stores().list_stores(request).await)?;
        stores.extend(page.stores);
        if page.next_page_token.is_empty() {
            return Ok(stores);
        }
        page_token = page.next_page_token;
    }
}

async fn list(session: &mut Session) -> Result<(), Failure> {
    let stores = list_all(&session.client).await?;
    session.show(&Shown {
        document: &StoresDocument { stores: stores.iter().map(Into::into).collect() },
        names: stores.iter().map(|store| format!("store/{}", store.name)).collect(),
        table: &|width| store_table(&stores, width),
    })
}

async fn get(session: &mut Session, name: &str) -> Result<(), Failure> {
    let request = session.client.request(GetStoreRequest { name: name.to_owned() });
    let answer = session.client.stores().get_store(request).await;
    let store = in_answer(session.client.answer(answer)?.store)?;
    session.show(&Shown {
        document: &StoreDocument::from(&store),
        names: vec![format!("store/{name}")],
        table: &|_| store_pairs(&store),
    })
}

async fn check(session: &mut Session, options: &CheckStore) -> Result<ExitStatus, Failure> {
    let request = session.client.request(CheckStoreRequest {
        name: options.name.to_string(),
        worker: options.worker.as_ref().map(ToString::to_string).unwrap_or_default(),
        prefix: options.prefix.as_ref().map(ToString::to_string).unwrap_or_default(),
    });
    let answer = session.client.stores().check_store(request).await;
    let checked = session.client.answer(answer)?;
    let document = StoreCheckDocument::new(options.name.as_str(), &checked);
    session.show(&Shown {
        document: &document,
        names: vec![format!("store/{}", options.name)],
        table: &|_| check_table(&checked),
    })?;
    Ok(if document.is_usable() { ExitStatus::Done } else { ExitStatus::Failed })
}

fn in_answer(store: Option<Store>) -> Result<Store, Failure> {
    store.ok_or_else(|| Failure::new(ExitStatus::Failed, "control's answer holds no store"))
}

async fn remove(session: &mut Session, options: &RemoveStore) -> Result<(), Failure> {
    let RemoveStore { name, yes, ignore_not_found, dry_run } = options;
    if !yes && !dry_run && !session.confirm(&format!("remove store {name} and leave what is in it as it is?"))? {
        return Err(Failure::new(ExitStatus::Failed, "nothing was removed"));
    }
    let request = session.client.request(DeleteStoreRequest {
        name: name.to_string(),
        request_id: String::new(),
        validate_only: *dry_run,
    });
    let answer = session.client.stores().delete_store(request).await;
    if let Err(status) = &answer
        && status.code() == Code::NotFound
        && *ignore_not_found
    {
        session.note(&format!("there is no store \"{name}\""));
        return Ok(());
    }
    session.client.answer(answer)?;
    let line = format!("store/{name} {}\n", if *dry_run { "removed (dry run)" } else { "removed" });
    session.show(&Shown {
        document: &RemovedStoreDocument { name: name.to_string(), removed: !dry_run },
        names: vec![format!("store/{name}")],
        table: &|_| line.clone(),
    })
}
