//! Lists that come page by page.

use openapi_client::ClientError;

use crate::failure::Failure;

/// Most items the server gives in one answer.
const LONGEST_PAGE: u32 = 1000;

/// Items, and where those after them begin.
pub(super) type Page<T> = (Vec<T>, Option<String>);

/// The first `limit` items; `page` asks for as many as it is told, from a cursor on.
pub(super) async fn gather<T>(
    limit: u32,
    mut page: impl AsyncFnMut(u32, Option<String>) -> Result<Page<T>, ClientError>,
) -> Result<Page<T>, Failure> {
    let (mut items, mut next) = (Vec::new(), None);
    let mut missing = limit;
    loop {
        let (more, cursor) = page(missing.min(LONGEST_PAGE), next).await?;
        let came = u32::try_from(more.len()).unwrap_or(u32::MAX);
        items.extend(more);
        // A page without items leads nowhere, whatever it says.
        next = cursor.filter(|_| came > 0);
        missing = missing.saturating_sub(came);
        if missing == 0 || next.is_none() {
            return Ok((items, next));
        }
    }
}

/// Says that a list goes on, where it is in nobody's way.
pub(super) fn tell_of_more(next_cursor: Option<&String>) {
    if next_cursor.is_some() {
        eprintln!("llama-orch: there are more; a larger --limit shows them");
    }
}
