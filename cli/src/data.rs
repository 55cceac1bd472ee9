//! `flotilla data …`: what the store holds.

use std::io::Write as _;

use flotilla_proto::v1::{
    GetItemRequest, ItemKind, ItemSummary, ListItemsRequest, VerifyDataRequest, VerifyDataResponse,
};

use crate::arguments::{DataCommand, OutputFormat};
use crate::failure::{ExitStatus, Failure};
use crate::output::Shown;
use crate::output::document::{ItemsDocument, VerificationDocument, kind_text};
use crate::output::table::{Align, columns};
use crate::session::Session;

const PAGE_SIZE: u32 = 5000;

/// Runs `flotilla data …`.
pub(crate) async fn run(session: &mut Session, command: DataCommand) -> Result<ExitStatus, Failure> {
    match command {
        DataCommand::List { name } => list(session, name.as_str()).await?,
        DataCommand::Get { name, item } => get(session, name.as_str(), &item).await?,
        DataCommand::Verify { name, repair } => {
            return verify(session, name.as_str(), repair).await.map_err(Failure::where_failed_means_no);
        }
    }
    Ok(ExitStatus::Done)
}

async fn list(session: &mut Session, environment: &str) -> Result<(), Failure> {
    let mut items = Vec::new();
    let mut page_token = String::new();
    let initialized = loop {
        let request = session.client.request(ListItemsRequest {
            environment: environment.to_owned(),
            kind: ItemKind::Unspecified.into(),
            page_size: PAGE_SIZE,
            page_token,
        });
        let answer = session.client.data().list_items(request).await;
        let page = session.client.answer(answer)?;
        items.extend(page.items);
        if page.next_page_token.is_empty() {
            break page.initialized;
        }
        page_token = page.next_page_token;
    };
    if !session.wants_document() {
        if !initialized {
            session.note("not initialized: the marker that SDKs look for is not in the store");
        }
        if items.is_empty() {
            session.note("no items");
            return Ok(());
        }
    }
    session.show(&Shown {
        document: &ItemsDocument { initialized, items: items.iter().map(Into::into).collect() },
        names: items.iter().map(|item| format!("{}/{}", kind_text(item.kind()), item.key)).collect(),
        table: &|_| table(&items),
    })
}

fn table(items: &[ItemSummary]) -> String {
    let headers = [("kind", Align::Left), ("key", Align::Left), ("version", Align::Right), ("bytes", Align::Right)];
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| {
            let version = if item.version == 0 { "-".to_owned() } else { item.version.to_string() };
            vec![kind_text(item.kind()).to_owned(), item.key.clone(), version, item.bytes.to_string()]
        })
        .collect();
    columns(&headers, &rows)
}

/// The bytes as stored and a line end, whatever the format: they are a document already.
async fn get(session: &mut Session, environment: &str, item: &str) -> Result<(), Failure> {
    let (kind, key) = parse_item(item)?;
    let request = session.client.request(GetItemRequest {
        environment: environment.to_owned(),
        kind: kind.into(),
        key: key.to_owned(),
    });
    let answer = session.client.data().get_item(request).await;
    let answer = session.client.answer(answer)?;
    if session.format == OutputFormat::Name {
        writeln!(session.out, "{item}")?;
    } else {
        session.out.write_all(&answer.json)?;
        session.out.write_all(b"\n")?;
    }
    Ok(session.out.flush()?)
}

/// The answer is no when something differs, or SDKs find no marker.
async fn verify(session: &mut Session, environment: &str, repair: bool) -> Result<ExitStatus, Failure> {
    let request = session.client.request(VerifyDataRequest { environment: environment.to_owned(), repair });
    let answer = session.client.data().verify_data(request).await;
    let found = session.client.answer(answer)?;
    if !session.wants_document() {
        if !found.asked_launchdarkly {
            session.note("the source is a file: only the worker and the store were compared");
        }
        if !found.initialized {
            session.note("not initialized: the marker that SDKs look for is not in the store");
        }
        session.note(&summary(&found));
    }
    session.show(&Shown {
        document: &VerificationDocument::from(&found),
        names: found.differences.iter().map(|item| format!("{}/{}", kind_text(item.kind()), item.key)).collect(),
        table: &|_| if found.differences.is_empty() { String::new() } else { difference_table(&found) },
    })?;
    Ok(if found.differing == 0 && found.initialized { ExitStatus::Done } else { ExitStatus::Failed })
}

/// What was found, in one line.
fn summary(found: &VerifyDataResponse) -> String {
    let where_ = if found.asked_launchdarkly { "LaunchDarkly, worker and store" } else { "worker and store" };
    let repaired = match found.repaired {
        0 => String::new(),
        repaired => format!("{repaired} repaired, "),
    };
    match (found.differing, found.items) {
        (0, 1) => format!("{repaired}1 item is the same in {where_}"),
        (0, items) => format!("{repaired}{items} items are the same in {where_}"),
        (differing, items) => format!("{repaired}{differing} of {items} items differ between {where_}"),
    }
}

fn difference_table(found: &VerifyDataResponse) -> String {
    let headers = [
        ("kind", Align::Left),
        ("key", Align::Left),
        ("launchdarkly", Align::Right),
        ("worker", Align::Right),
        ("store", Align::Right),
    ];
    let version = |version: Option<u64>| version.map_or_else(|| "-".to_owned(), |version| version.to_string());
    let rows: Vec<Vec<String>> = found
        .differences
        .iter()
        .map(|item| {
            let is_sent = !found.asked_launchdarkly || item.launchdarkly_version == item.worker_version;
            let store = match (item.worker_version, item.store_version) {
                // Then it is the bytes that differ.
                (Some(worker), Some(store)) if worker == store && is_sent => format!("{store} (other bytes)"),
                (_, Some(0)) => "no version".to_owned(),
                (_, store) => version(store),
            };
            let kind = kind_text(item.kind()).to_owned();
            vec![kind, item.key.clone(), version(item.launchdarkly_version), version(item.worker_version), store]
        })
        .collect();
    columns(&headers, &rows)
}

fn parse_item(text: &str) -> Result<(ItemKind, &str), Failure> {
    match text.split_once('/') {
        Some(("flag", key)) if !key.is_empty() => Ok((ItemKind::Flag, key)),
        Some(("segment", key)) if !key.is_empty() => Ok((ItemKind::Segment, key)),
        Some(_) | None => Err(Failure::usage(format!("{text:?} names no item: expected flag/KEY or segment/KEY"))),
    }
}

#[cfg(test)]
mod tests {
    use flotilla_proto::v1::ItemDifference;

    use super::*;

    #[test]
    fn items_are_named_by_kind_and_key() {
        assert_eq!(parse_item("flag/a/b").unwrap(), (ItemKind::Flag, "a/b"));
        assert_eq!(parse_item("segment/s").unwrap(), (ItemKind::Segment, "s"));
        for bad in ["a", "flag/", "flags/a", "/a", ""] {
            assert_eq!(parse_item(bad).unwrap_err().status().code(), 2, "{bad}");
        }
    }

    #[test]
    fn differences_are_shown_with_all_three_versions() {
        let item = |key: &str, versions: [Option<u64>; 3]| ItemDifference {
            kind: ItemKind::Flag.into(),
            key: key.to_owned(),
            launchdarkly_version: versions[0],
            worker_version: versions[1],
            store_version: versions[2],
        };
        let differences = [
            item("behind", [Some(7), Some(6), Some(6)]),
            item("edited", [Some(3), Some(3), Some(3)]),
            item("missing", [Some(3), Some(3), None]),
            item("foreign", [None, None, Some(0)]),
        ];
        let table = VerifyDataResponse {
            differences: differences.to_vec(),
            asked_launchdarkly: true,
            ..VerifyDataResponse::default()
        };
        insta::assert_snapshot!(difference_table(&table), @r"
        KIND  KEY      LAUNCHDARKLY  WORKER            STORE
        flag  behind              7       6                6
        flag  edited              3       3  3 (other bytes)
        flag  missing             3       3                -
        flag  foreign             -       -       no version
        ");
        let found = |differing, repaired, asked_launchdarkly| VerifyDataResponse {
            items: 120,
            differing,
            repaired,
            asked_launchdarkly,
            ..VerifyDataResponse::default()
        };
        assert_eq!(summary(&found(0, 0, true)), "120 items are the same in LaunchDarkly, worker and store");
        assert_eq!(summary(&found(0, 2, false)), "2 repaired, 120 items are the same in worker and store");
        assert_eq!(summary(&found(3, 0, true)), "3 of 120 items differ between LaunchDarkly, worker and store");
    }

    #[test]
    fn items_are_shown_in_columns() {
        let item = |kind: ItemKind, key: &str, version| ItemSummary {
            kind: kind.into(),
            key: key.to_owned(),
            version,
            bytes: 1234,
        };
        let items = [item(ItemKind::Flag, "new-checkout", 12), item(ItemKind::Segment, "evil\u{1b}[2J", 0)];
        insta::assert_snapshot!(table(&items), @r"
        KIND     KEY            VERSION  BYTES
        flag     new-checkout        12   1234
        segment  evil\u{1b}[2J        -   1234
        ");
    }
}
