//! Listings that begin with the newest: the end of what was listed.

use crate::failure::Failure;

/// A page of such a listing.
pub(crate) struct Page<T> {
    /// Newest first.
    pub(crate) entries: Vec<T>,
    /// Empty: this is the last one.
    pub(crate) next_page_token: String,
    /// From where to watch on.
    pub(crate) revision: String,
}

/// The newest entries, oldest first, and from where to watch on. `page` is asked for as many as are missing, after a token.
pub(crate) async fn newest<T>(
    number: u32,
    page: impl AsyncFn(u32, String) -> Result<Page<T>, Failure>,
) -> Result<(Vec<T>, String), Failure> {
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    let (mut entries, mut revision, mut page_token) = (Vec::new(), None, String::new());
    loop {
        let missing = u32::try_from(number.saturating_sub(entries.len())).unwrap_or(u32::MAX);
        let page = page(missing, page_token).await?;
        let revision = revision.get_or_insert(page.revision).clone();
        entries.extend(page.entries);
        if page.next_page_token.is_empty() || entries.len() >= number {
            entries.truncate(number);
            entries.reverse();
            return Ok((entries, revision));
        }
        page_token = page.next_page_token;
    }
}
