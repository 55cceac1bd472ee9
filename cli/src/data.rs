//! `flotilla data …`: what the store holds.

use std::io::Write as _;

use flotilla_proto::v1::{GetItemRequest, ItemKind, ItemSummary, ListItemsRequest};

use crate::arguments::{DataCommand, OutputFormat};
use crate::failure::{ExitStatus, Failure};
use crate::output::Shown;
use crate::output::document::{ItemsDocument, kind_text};
use crate::output::table::{Align, columns};
use crate::session::Session;

const PAGE_SIZE: u32 = 5000;

/// Runs `flotilla data …`.
pub(crate) async fn run(session: &mut Session, command: DataCommand) -> Result<ExitStatus, Failure> {
    match command {
        DataCommand::List { name } => list(session, name.as_str()).await?,
        DataCommand::Get { name, item } => get(session, name.as_str(), &item).await?,
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

fn parse_item(text: &str) -> Result<(ItemKind, &str), Failure> {
    match text.split_once('/') {
        Some(("flag", key)) if !key.is_empty() => Ok((ItemKind::Flag, key)),
        Some(("segment", key)) if !key.is_empty() => Ok((ItemKind::Segment, key)),
        Some(_) | None => Err(Failure::usage(format!("{text:?} names no item: expected flag/KEY or segment/KEY"))),
    }
}

#[cfg(test)]
mod tests {
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
