//! Pages and their tokens. A token says after which name to go on, and of which listing; to callers it is opaque.

use flotilla_proto::{FieldViolation, Reason, Refusal, hex};
use prost::Message;
use sha2::{Digest as _, Sha256};

/// How many bytes of messages a page holds at most; it ends early rather than being too large to receive.
const PAGE_BYTES: usize = 3 << 20;

/// Where a page begins, and how long it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    /// Only what comes after this name; empty: from the start.
    pub(super) after: String,
    /// Entries at most.
    size: usize,
    listing: String,
}

/// Entries of a page: 1 to 1000, 100 if none is given.
const DEFAULT_SIZE: u32 = 100;
const LARGEST_SIZE: u32 = 1000;

impl Page {
    /// Reads a request's page. `listing` tells listings apart (what, and which filter), so that tokens are not mixed up.
    pub(super) fn parse(page_size: u32, page_token: &str, listing: &[u8]) -> Result<Self, Refusal> {
        let size = checked_size(page_size, DEFAULT_SIZE, LARGEST_SIZE)?;
        let listing = hex::encode(&Sha256::digest(listing)[..4]);
        let after = if page_token.is_empty() {
            String::new()
        } else {
            let name = page_token
                .strip_prefix(listing.as_str())
                .and_then(|rest| rest.strip_prefix('-'))
                .and_then(hex::decode)
                .and_then(|name| String::from_utf8(name).ok());
            name.ok_or_else(|| {
                let message =
                    "page_token is not one of this listing's; begin anew without it, and keep the filter the same";
                Refusal {
                    violations: vec![FieldViolation::new("page_token", "not a token of this listing")],
                    ..Refusal::new(Reason::InvalidPageToken, message)
                }
            })?
        };
        Ok(Self { after, size: usize::try_from(size).unwrap_or(usize::MAX), listing })
    }

    /// How many entries it holds, at most.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Fills the page, in the order of the listing, with messages and what each goes on after. Returns them, and the token
    /// of the next page: empty, if this is the last one.
    pub(super) fn fill<T: Message>(&self, entries: impl Iterator<Item = (String, T)>) -> (Vec<T>, String) {
        let (mut page, mut bytes, mut last) = (Vec::new(), 0, None::<String>);
        for (place, entry) in entries {
            bytes += entry.encoded_len();
            if let Some(last) = &last
                && (page.len() == self.size || bytes > PAGE_BYTES)
            {
                return (page, self.next_token(last));
            }
            page.push(entry);
            last = Some(place);
        }
        (page, String::new())
    }

    /// The token of the page after the one that ends with `last`.
    fn next_token(&self, last: &str) -> String {
        format!("{}-{}", self.listing, hex::encode(last.as_bytes()))
    }
}

/// A page size: the default for 0, and never more than the largest.
pub(super) fn checked_size(given: u32, default: u32, largest: u32) -> Result<u32, Refusal> {
    match given {
        0 => Ok(default),
        given if given <= largest => Ok(given),
        given => {
            let description = format!("{given} is out of range: 1 to {largest}, or 0 for {default}");
            Err(FieldViolation::new("page_size", &description).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_on() {
        let first = Page::parse(0, "", b"x").unwrap();
        assert_eq!((first.after.as_str(), first.size), ("", 100));
        let second = Page::parse(7, &first.next_token("b-1"), b"x").unwrap();
        assert_eq!((second.after.as_str(), second.size), ("b-1", 7));
    }

    #[test]
    fn wrong_tokens_and_sizes_are_refused() {
        let token = Page::parse(0, "", b"x").unwrap().next_token("b");
        for (token, listing) in [(token.as_str(), "y"), ("nonsense", "x"), (&token[..token.len() - 1], "x")] {
            let refusal = Page::parse(0, token, listing.as_bytes()).unwrap_err();
            assert_eq!(refusal.reason, Reason::InvalidPageToken, "{token}");
        }
        assert_eq!(Page::parse(1001, "", b"x").unwrap_err().violations[0].field, "page_size");
    }
}
