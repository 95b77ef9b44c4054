//! What documents are listed and filtered by.

mod file;

use api_types::ArtifactKind;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, Transaction, params};

use crate::document::{Entry, Page, Query};
use crate::key::Key;

pub(crate) use file::{in_memory, open};

/// Documents of the longest line of ancestors that is followed.
const LONGEST_LINE: usize = 1000;

const SCHEMA: &str = "
    -- `number` grows with every document: its order is the order of keeping.
    CREATE TABLE artifacts (
        number INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        parent BLOB,
        tags TEXT NOT NULL
    ) STRICT;
    CREATE TABLE tags (tag TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (tag, number)) STRICT, WITHOUT ROWID;
    CREATE INDEX artifacts_kind ON artifacts (kind, number);
    CREATE INDEX artifacts_parent ON artifacts (parent, number) WHERE parent IS NOT NULL;
";

const COLUMNS: &str = "a.number, a.key, a.kind, a.created_ms, a.bytes, a.parent, a.tags";

/// The open index.
pub(crate) struct Index {
    connection: Connection,
}

/// A document that may be removed.
pub(crate) struct Candidate {
    pub(crate) key: Key,
    pub(crate) created_ms: i64,
    pub(crate) bytes: u64,
}

impl Index {
    fn new(connection: Connection) -> rusqlite::Result<Self> {
        connection.set_prepared_statement_cache_capacity(32);
        Ok(Self { connection })
    }

    /// Documents and their bytes.
    pub(crate) fn totals(&self) -> rusqlite::Result<(u64, u64)> {
        let sql = "SELECT count(*), coalesce(sum(bytes), 0) FROM artifacts";
        self.connection.query_row(sql, (), |row| Ok((count(row, 0)?, count(row, 1)?)))
    }

    /// Enters documents, all or none; which of them were not there yet.
    pub(crate) fn insert(&mut self, entries: &[Entry]) -> rusqlite::Result<Vec<bool>> {
        let transaction = self.connection.transaction()?;
        let inserted = entries.iter().map(|entry| insert(&transaction, entry)).collect::<Result<_, _>>()?;
        transaction.commit()?;
        Ok(inserted)
    }

    /// Removes documents, all or none.
    pub(crate) fn remove(&mut self, keys: &[Key]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for key in keys {
            remove(&transaction, *key)?;
        }
        transaction.commit()
    }

    /// One entry.
    pub(crate) fn find(&self, key: Key) -> rusqlite::Result<Option<Entry>> {
        let sql = format!("SELECT {COLUMNS} FROM artifacts a WHERE a.key = ?1");
        let mut statement = self.connection.prepare_cached(&sql)?;
        statement.query_row([key.as_bytes()], |row| entry(row).map(|(_, entry)| entry)).optional()
    }

    /// One page, newest first.
    pub(crate) fn list(&self, query: &Query) -> rusqlite::Result<Page> {
        let (from, number) = match query.tag {
            // In this order, or all documents of a kind are looked at for a tag that few have.
            Some(_) => ("tags t CROSS JOIN artifacts a ON a.number = t.number", "t.number"),
            None => ("artifacts a", "a.number"),
        };
        let before = query.before.unwrap_or(i64::MAX);
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX).saturating_add(1);
        let (kind, parent) = (query.kind.map(ArtifactKind::as_str), query.parent.as_ref().map(Key::as_bytes));
        let mut parameters: Vec<&dyn ToSql> = vec![&before, &limit];
        let mut sql = format!("SELECT {COLUMNS} FROM {from} WHERE {number} < ?1");
        let filters: [(&str, Option<&dyn ToSql>); 3] = [
            ("t.tag", query.tag.as_ref().map(|tag| tag as _)),
            ("a.kind", kind.as_ref().map(|kind| kind as _)),
            ("a.parent", parent.as_ref().map(|parent| parent as _)),
        ];
        for (column, parameter) in filters {
            if let Some(parameter) = parameter {
                parameters.push(parameter);
                sql += &format!(" AND {column} = ?{}", parameters.len());
            }
        }
        sql += &format!(" ORDER BY {number} DESC LIMIT ?2");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(parameters.as_slice(), entry)?;
        let mut numbered = rows.collect::<Result<Vec<_>, _>>()?;
        let is_last = numbered.len() <= query.limit;
        numbered.truncate(query.limit);
        let next = numbered.last().filter(|_| !is_last).map(|(number, _)| *number);
        Ok(Page { entries: numbered.into_iter().map(|(_, entry)| entry).collect(), next })
    }

    /// Those a document comes from, its parent first.
    pub(crate) fn ancestors(&self, of: &Entry) -> rusqlite::Result<Vec<Key>> {
        let mut ancestors = Vec::new();
        let mut next = of.parent;
        while let Some(key) = next.filter(|_| ancestors.len() < LONGEST_LINE) {
            let Some(parent) = self.find(key)? else { break };
            ancestors.push(key);
            next = parent.parent;
        }
        Ok(ancestors)
    }

    /// Those made from a document, oldest first.
    pub(crate) fn children(&self, of: Key, limit: usize) -> rusqlite::Result<Vec<Key>> {
        let sql = "SELECT key FROM artifacts WHERE parent = ?1 ORDER BY number LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        statement.query_map(params![of.as_bytes(), limit], |row| key(row, 0))?.collect()
    }

    /// The oldest of those that may be removed: not the newest of all, and no kept document's parent.
    pub(crate) fn oldest(&self, limit: usize) -> rusqlite::Result<Vec<Candidate>> {
        let sql = "SELECT key, created_ms, bytes FROM artifacts a
            WHERE number < (SELECT max(number) FROM artifacts)
            AND NOT EXISTS (SELECT 1 FROM artifacts child WHERE child.parent = a.key)
            ORDER BY number LIMIT ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let candidate =
            |row: &Row<'_>| Ok(Candidate { key: key(row, 0)?, created_ms: row.get(1)?, bytes: count(row, 2)? });
        statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], candidate)?.collect()
    }
}

/// Whether it was not there yet.
fn insert(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<bool> {
    let sql = "INSERT INTO artifacts (key, kind, created_ms, bytes, parent, tags) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT (key) DO NOTHING";
    let tags =
        serde_json::to_string(&entry.tags).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let inserted = transaction.prepare_cached(sql)?.execute(params![
        entry.key.as_bytes(),
        entry.kind.as_str(),
        entry.created_ms,
        entry.bytes.cast_signed(),
        entry.parent.as_ref().map(Key::as_bytes),
        tags,
    ])?;
    if inserted == 0 {
        return Ok(false);
    }
    let number = transaction.last_insert_rowid();
    let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO tags (tag, number) VALUES (?1, ?2)")?;
    for tag in &entry.tags {
        insert.execute(params![tag, number])?;
    }
    Ok(true)
}

fn remove(transaction: &Transaction<'_>, key: Key) -> rusqlite::Result<()> {
    let sql = "DELETE FROM artifacts WHERE key = ?1 RETURNING number, tags";
    let mut delete = transaction.prepare_cached(sql)?;
    let removed = delete.query_row([key.as_bytes()], |row| Ok((row.get::<_, i64>(0)?, tags(row, 1)?))).optional()?;
    let Some((number, tags)) = removed else { return Ok(()) };
    let mut delete = transaction.prepare_cached("DELETE FROM tags WHERE tag = ?1 AND number = ?2")?;
    for tag in tags {
        delete.execute(params![tag, number])?;
    }
    Ok(())
}

fn entry(row: &Row<'_>) -> rusqlite::Result<(i64, Entry)> {
    let word: String = row.get(2)?;
    let kind = ArtifactKind::ALL.iter().copied().find(|kind| kind.as_str() == word);
    let parent: Option<[u8; 32]> = row.get(5)?;
    let entry = Entry {
        key: key(row, 1)?,
        kind: kind.ok_or_else(|| unknown(2, "no kind of artifact"))?,
        created_ms: row.get(3)?,
        bytes: count(row, 4)?,
        parent: parent.map(Key::from_bytes),
        tags: tags(row, 6)?,
    };
    Ok((row.get(0)?, entry))
}

fn key(row: &Row<'_>, column: usize) -> rusqlite::Result<Key> {
    row.get(column).map(Key::from_bytes)
}

fn tags(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<String>> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|_| unknown(column, "no list of tags"))
}

/// Counts are never negative.
fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::cast_unsigned)
}

fn unknown(column: usize, finding: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, finding.into())
}
