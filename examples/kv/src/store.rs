//! The database: one writer at a time, readers beside it, and word of each change.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use plugd_core::Status;
use redb::{Database, ReadableDatabase, TableDefinition};
use tokio::sync::{Mutex, broadcast};
use tokio::task::spawn_blocking;

use crate::Key;

const VALUES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("values");

/// A value that was set.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) key: Key,
    /// The length of the value, in bytes.
    pub(crate) len: usize,
}

/// An open database.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    database: Arc<Database>,
    /// Held by the call that writes. The database would make a second writer wait as well, but on a thread of its own.
    writer: Arc<Mutex<()>>,
    changes: broadcast::Sender<Change>,
}

impl Store {
    /// Opens the database `file`, or makes it. `changes_kept` changes wait for a watcher that reads slowly.
    pub(crate) fn open(file: &Path, changes_kept: usize) -> Result<Store, redb::Error> {
        let database = Database::create(file)?;
        // A table that nobody has written to cannot be read.
        let write = database.begin_write()?;
        write.open_table(VALUES)?;
        write.commit()?;
        Ok(Store {
            database: Arc::new(database),
            writer: Arc::default(),
            changes: broadcast::Sender::new(changes_kept),
        })
    }

    /// The value of a key.
    pub(crate) async fn get(&self, key: Key) -> Result<Option<Vec<u8>>, Status> {
        self.blocking(move |store| {
            let table = store.database.begin_read()?.open_table(VALUES)?;
            Ok(table.get(&*key)?.map(|value| value.value().to_vec()))
        })
        .await
    }

    /// Makes `value` the value of `key`; reports whether there was one. Once it has begun it happens, whoever is gone.
    pub(crate) async fn set(&self, key: Key, value: Vec<u8>) -> Result<bool, Status> {
        let writer = self.writer.clone().lock_owned().await;
        self.blocking(move |store| {
            let write = store.database.begin_write()?;
            let replaced = write.open_table(VALUES)?.insert(&*key, &*value)?.is_some();
            write.commit()?;
            // Told before the next writer begins, so that changes are heard in their order. Nobody may be listening.
            let _ = store.changes.send(Change { key, len: value.len() });
            drop(writer);
            Ok(replaced)
        })
        .await
    }

    /// At most `len_max` keys that begin with `prefix` and come after `after`, in the order of their bytes.
    pub(crate) async fn keys(
        &self,
        prefix: String,
        after: Option<String>,
        len_max: usize,
    ) -> Result<Vec<String>, Status> {
        self.blocking(move |store| {
            let table = store.database.begin_read()?.open_table(VALUES)?;
            let from = after.as_deref().map_or(Bound::Included(&*prefix), Bound::Excluded);
            let mut keys = Vec::new();
            for entry in table.range::<&str>((from, Bound::Unbounded))?.take(len_max) {
                let key = entry?.0.value().to_owned();
                if !key.starts_with(&prefix) {
                    break;
                }
                keys.push(key);
            }
            Ok(keys)
        })
        .await
    }

    /// Every change from now on.
    pub(crate) fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Runs `work` on a thread that may wait for the disk. When the future is dropped, it still runs to its end.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Status> {
        let store = self.clone();
        let done = spawn_blocking(move || work(&store)).await;
        let failed = |error: String| Status::internal("store-failed", "the database failed").with_detail(error);
        done.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
    }
}
