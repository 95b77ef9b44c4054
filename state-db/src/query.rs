//! What is read from the history.

use api_types::{TaskId, TaskSummary};
use rusqlite::types::{Type, Value};
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};

use crate::{StoredTask, TaskQuery};

/// One task, by its id.
pub(crate) fn task(connection: &Connection, id: TaskId) -> rusqlite::Result<Option<StoredTask>> {
    let mut statement = connection.prepare_cached("SELECT summary, record FROM history WHERE task_id = ?1")?;
    statement.query_row([id.0], |row| Ok(StoredTask { summary: summary(row)?, record: row.get(1)? })).optional()
}

/// One page, newest first.
pub(crate) fn tasks(connection: &Connection, query: &TaskQuery) -> rusqlite::Result<Vec<TaskSummary>> {
    let Page { sql, values } = Page::of(query);
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map(params_from_iter(values), summary)?.collect()
}

fn summary(row: &Row<'_>) -> rusqlite::Result<TaskSummary> {
    serde_json::from_str(row.get_ref(0)?.as_str()?)
        .map_err(|_| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, UnreadableSummary.into()))
}

/// The parser's own words could repeat what was stored.
#[derive(Debug, thiserror::Error)]
#[error("the summary of a task has not the form it was written in")]
struct UnreadableSummary;

/// A query as SQL, with the values in the order of their question marks.
pub(crate) struct Page {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

impl Page {
    pub(crate) fn of(query: &TaskQuery) -> Self {
        let mut page = Self { sql: "SELECT summary FROM history WHERE TRUE".to_owned(), values: Vec::new() };
        if let Some((admitted_at_ms, id)) = query.before {
            page.add(" AND (admitted_at_ms, task_id) < (?, ?)", [admitted_at_ms.into(), id.0.into()]);
        }
        if !query.states.is_empty() {
            let marks = vec!["?"; query.states.len()].join(", ");
            let words = query.states.iter().map(|state| state.as_str().to_owned().into());
            page.add(&format!(" AND state IN ({marks})"), words);
        }
        page.add(" AND priority = ?", query.priority.map(|priority| priority.as_str().to_owned().into()));
        page.add(" AND pool_id = ?", query.pool_id.clone().map(Value::from));
        page.add(" AND session_id = ?", query.session_id.map(|id| id.0.into()));
        page.add(" AND model_ref = ?", query.model_ref.clone().map(Value::from));
        page.add(" AND admitted_at_ms >= ?", query.since_ms.map(Value::from));
        page.add(" AND admitted_at_ms < ?", query.until_ms.map(Value::from));
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        page.add(" ORDER BY admitted_at_ms DESC, task_id DESC LIMIT ?", [limit.into()]);
        page
    }

    /// Nothing without values: a filter that is not set.
    fn add(&mut self, sql: &str, values: impl IntoIterator<Item = Value>) {
        let before = self.values.len();
        self.values.extend(values);
        if self.values.len() > before {
            self.sql.push_str(sql);
        }
    }
}
