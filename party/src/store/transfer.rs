//! From one kind of database to the other. A backup is always a SQLite file, whatever the store is:
//! so a store can be moved, and what is put back is restored by the same rules.

use std::path::Path;

use futures::TryStreamExt as _;
use sqlx::{
    AssertSqlSafe, Connection as _, Database, Encode, Executor, IntoArguments, PgConnection, Postgres,
    QueryBuilder, Sqlite, SqliteConnection, Type,
};

use super::{
    StoreError,
    backend::Backend as _,
    columns::{Columns, unavailable},
    migrations::OF_POSTGRES,
    postgres::{PostgresOptions, PostgresStore, schema::expand},
    shared::records::mark_restored,
    sqlite::{SqliteOptions, SqliteStore},
};

/// Rows that are in memory at a time: with a dozen columns well below what a statement may bind.
const ROWS: usize = 500;
/// Settings that are a database's own.
const OWN_SETTINGS: [&str; 4] = ["store-id", "generation", "place", "canary"];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Number,
    Text,
    Bytes,
}
use Kind::{Bytes, Number, Text};

struct Table {
    name: &'static str,
    columns: &'static [(&'static str, Kind)],
}

/// Everything there is; the migrations of both databases make the same columns.
const TABLES: &[Table] = &[
    Table { name: "settings", columns: &[("name", Text), ("value", Bytes)] },
    Table {
        name: "records",
        columns: &[
            ("kind", Number),
            ("wallet", Bytes),
            ("share_index", Number),
            ("epoch", Number),
            ("item", Bytes),
            ("sealed", Bytes),
        ],
    },
    Table { name: "pins", columns: &[("party", Text), ("card", Bytes)] },
    Table {
        name: "wallets",
        columns: &[
            ("id", Bytes),
            ("epoch", Number),
            ("share_index", Number),
            ("tenant", Text),
            ("package_hash", Bytes),
            ("receipt", Bytes),
            ("token", Bytes),
            ("prepared_at_ms", Number),
            ("expires_at_ms", Number),
            ("commit_ack", Bytes),
            ("committed_at_ms", Number),
            ("enrolled", Number),
            ("failures", Number),
            ("public_key", Bytes),
        ],
    },
    Table {
        name: "enrolments",
        columns: &[
            ("wallet", Bytes),
            ("initiator", Number),
            ("paillier_key", Bytes),
            ("epoch", Number),
            ("sequence", Number),
            ("added_at_ms", Number),
        ],
    },
    Table {
        name: "paillier_keys",
        columns: &[
            ("id", Bytes),
            ("scope", Text),
            ("state", Number),
            ("sequence", Number),
            ("created_at_ms", Number),
            ("locked_session", Bytes),
            ("locked_evidence", Bytes),
            ("locked_at_ms", Number),
            ("superseded_at_ms", Number),
            ("removed_at_ms", Number),
            ("verdicts", Number),
            ("locked_card", Bytes),
        ],
    },
    Table {
        name: "own_enrolments",
        columns: &[("wallet", Bytes), ("responder", Text), ("agreed", Bytes), ("offered", Bytes)],
    },
    Table {
        name: "sessions",
        columns: &[("id", Bytes), ("wallet", Bytes), ("claimed_at_ms", Number), ("expires_at_ms", Number)],
    },
    Table {
        name: "charges",
        columns: &[("session", Bytes), ("wallet", Bytes), ("digest", Bytes), ("charged_at_ms", Number)],
    },
    Table { name: "deals", columns: &[("wallet", Bytes), ("created_at_ms", Number), ("restored", Number)] },
    Table {
        name: "audit_chains",
        columns: &[("number", Number), ("id", Bytes), ("closed", Number), ("shipped", Number)],
    },
    Table {
        name: "audit_records",
        columns: &[
            ("chain", Number),
            ("sequence", Number),
            ("at_ms", Number),
            ("previous", Bytes),
            ("body", Text),
        ],
    },
    Table {
        name: "policies",
        columns: &[
            ("wallet", Bytes),
            ("revision", Number),
            ("effective_at_ms", Number),
            ("body", Text),
            ("signature", Bytes),
        ],
    },
    Table {
        name: "policy_digests",
        columns: &[("wallet", Bytes), ("digest", Bytes), ("charged_at_ms", Number)],
    },
    Table {
        name: "policy_usage",
        columns: &[
            ("wallet", Bytes),
            ("scope", Text),
            ("within_s", Number),
            ("slice", Number),
            ("value", Bytes),
            ("signatures", Number),
        ],
    },
    Table {
        name: "policy_approvals",
        columns: &[("wallet", Bytes), ("request", Bytes), ("approver", Bytes), ("expires_at_ms", Number)],
    },
    Table {
        name: "witness_heads",
        columns: &[
            ("writer", Text),
            ("chain", Bytes),
            ("sequence", Number),
            ("head", Bytes),
            ("added", Number),
        ],
    },
    Table { name: "enrolled_under", columns: &[("paillier_key", Bytes), ("wallet", Bytes)] },
    Table { name: "suspects", columns: &[("paillier_key", Bytes), ("card", Bytes)] },
    Table { name: "accepted_culprits", columns: &[("card", Bytes), ("accepted_at_ms", Number)] },
    Table {
        name: "pending_verdicts",
        columns: &[
            ("session", Bytes),
            ("paillier_key", Bytes),
            ("instance", Bytes),
            ("written_at_ms", Number),
        ],
    },
    Table {
        name: "answers",
        columns: &[("request", Bytes), ("role", Number), ("answers", Number), ("expires_at_ms", Number)],
    },
    Table {
        name: "job_digests",
        columns: &[
            ("job", Bytes),
            ("signs", Bytes),
            ("charged_at_ms", Number),
            ("expires_at_ms", Number),
            ("broker_epoch", Number),
            ("broker_revision", Number),
            ("broker_created_ns", Number),
        ],
    },
    Table {
        name: "revocations",
        columns: &[("wallet", Bytes), ("request", Bytes), ("revoked_by", Bytes), ("expires_at_ms", Number)],
    },
];

enum Value {
    Number(Option<i64>),
    Text(String),
    Bytes(Option<Vec<u8>>),
}

impl Table {
    fn column_list(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// The statement that inserts rows, up to its values.
    fn insertion(&self) -> String {
        format!("INSERT INTO {} ({}) ", self.name, self.column_list())
    }

    fn row(&self, row: &impl Columns) -> Result<Vec<Value>, sqlx::Error> {
        self.columns
            .iter()
            .map(|(name, kind)| {
                Ok(match kind {
                    Number => Value::Number(row.number_at(name)?),
                    Text => Value::Text(row.text_at(name)?),
                    Bytes => Value::Bytes(row.bytes_at(name)?),
                })
            })
            .collect()
    }

    /// The column that PostgreSQL numbers by itself.
    fn numbered(&self) -> Option<&'static str> {
        match self.name {
            "enrolments" | "paillier_keys" => Some("sequence"),
            "audit_chains" => Some("number"),
            "witness_heads" => Some("added"),
            _ => None,
        }
    }

    /// Whether a row goes along.
    fn wants(&self, row: &[Value]) -> bool {
        match row.first() {
            Some(Value::Text(name)) if self.name == "settings" => !OWN_SETTINGS.contains(&name.as_str()),
            _ => true,
        }
    }
}

async fn insert<DB>(
    connection: &mut DB::Connection,
    table: &Table,
    rows: Vec<Vec<Value>>,
) -> Result<(), sqlx::Error>
where
    DB: Database,
    DB::Arguments: IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'v> Option<i64>: Encode<'v, DB> + Type<DB>,
    for<'v> String: Encode<'v, DB> + Type<DB>,
    for<'v> Option<Vec<u8>>: Encode<'v, DB> + Type<DB>,
{
    let mut insertion = QueryBuilder::<DB>::new(table.insertion());
    insertion.push_values(rows, |mut values, row| {
        for value in row {
            match value {
                Value::Number(value) => values.push_bind(value),
                Value::Text(value) => values.push_bind(value),
                Value::Bytes(value) => values.push_bind(value),
            };
        }
    });
    insertion.build().execute(connection).await.map(drop)
}

async fn to_postgres(from: &mut SqliteConnection, to: &mut PgConnection) -> Result<(), sqlx::Error> {
    for table in TABLES {
        let (columns, name) = (table.column_list(), table.name);
        let mut rows = sqlx::query(AssertSqlSafe(format!("SELECT {columns} FROM {name}"))).fetch(&mut *from);
        let mut waiting = Vec::with_capacity(ROWS);
        while let Some(row) = rows.try_next().await? {
            waiting.extend(Some(table.row(&row)?).filter(|row| table.wants(row)));
            if waiting.len() == ROWS {
                insert::<Postgres>(to, table, std::mem::take(&mut waiting)).await?;
            }
        }
        if !waiting.is_empty() {
            insert::<Postgres>(to, table, waiting).await?;
        }
        if let Some(column) = table.numbered() {
            let statement = format!(
                "SELECT setval(pg_get_serial_sequence('{name}', '{column}'),
                               (SELECT COALESCE(MAX({column}), 0) + 1 FROM {name}), false)"
            );
            sqlx::query(AssertSqlSafe(statement)).execute(&mut *to).await?;
        }
    }
    Ok(())
}

async fn to_sqlite(from: &mut PgConnection, to: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    for table in TABLES {
        let (columns, name) = (table.column_list(), table.name);
        let declare = format!("DECLARE everything NO SCROLL CURSOR FOR SELECT {columns} FROM {name}");
        sqlx::query(AssertSqlSafe(declare)).execute(&mut *from).await?;
        loop {
            let fetch = format!("FETCH {ROWS} FROM everything");
            let rows = sqlx::query(AssertSqlSafe(fetch)).persistent(false).fetch_all(&mut *from).await?;
            if rows.is_empty() {
                break;
            }
            let rows = rows.iter().map(|row| table.row(row)).collect::<Result<Vec<_>, _>>()?;
            let rows: Vec<_> = rows.into_iter().filter(|row| table.wants(row)).collect();
            if !rows.is_empty() {
                insert::<Sqlite>(to, table, rows).await?;
            }
        }
        sqlx::query("CLOSE everything").execute(&mut *from).await?;
    }
    Ok(())
}

fn folder() -> Result<tempfile::TempDir, StoreError> {
    tempfile::tempdir().map_err(|source| StoreError::File { path: std::env::temp_dir(), source })
}

impl PostgresStore {
    /// Writes a copy of the whole store, as it is at one moment, to a file at `path`, which must
    /// not exist, while the store is used. It carries the restored marker, and is sealed like the
    /// store.
    ///
    /// # Errors
    /// When the database cannot be read or the file not be written.
    pub async fn back_up(&self, path: &Path) -> Result<(), StoreError> {
        let failed = unavailable("back up");
        if path.exists() {
            return Err(StoreError::Exists(format!("{} exists already", path.display())));
        }
        let folder = folder()?;
        let copy = SqliteStore::create(&SqliteOptions::at(folder.path().join("store.db"))).await?;
        let mut connection = self.options().connect_for_long().await?;
        let mut reading = connection
            .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await
            .map_err(&failed)?;
        let mut writing = copy.begin("back up").await?;
        to_sqlite(&mut reading, &mut writing).await.map_err(&failed)?;
        writing.commit().await.map_err(&failed)?;
        reading.rollback().await.map_err(&failed)?;
        connection.close().await.map_err(&failed)?;
        copy.back_up(path).await?;
        super::RecordStore::close(&copy).await;
        Ok(())
    }

    /// Puts a backup, of whichever kind of store, into an empty database, and opens it.
    ///
    /// # Errors
    /// When there is a party in the database, when the backup cannot be read, or the database not
    /// be written.
    pub async fn restore(backup: &Path, options: &PostgresOptions) -> Result<Self, StoreError> {
        let failed = unavailable("restore");
        let folder = folder()?;
        let copy = SqliteStore::restore(backup, &SqliteOptions::at(folder.path().join("store.db"))).await?;
        expand(&OF_POSTGRES, options).await?;
        let mut connection = options.connect_for_long().await?;
        let mut writing = connection.begin().await.map_err(&failed)?;
        sqlx::query("LOCK TABLE settings, records").execute(&mut *writing).await.map_err(&failed)?;
        let taken: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM records)")
            .fetch_one(&mut *writing)
            .await
            .map_err(&failed)?;
        if taken {
            return Err(StoreError::Exists(format!("there is a party at {options} already")));
        }
        // A database that was created and never set up is as good as empty.
        sqlx::query("DELETE FROM settings").execute(&mut *writing).await.map_err(&failed)?;
        let mut reading = copy.begin("restore").await?;
        to_postgres(&mut reading, &mut writing).await.map_err(&failed)?;
        mark_restored(&mut *writing).await.map_err(&failed)?;
        writing.commit().await.map_err(&failed)?;
        reading.rollback().await.map_err(&failed)?;
        super::RecordStore::close(&copy).await;
        connection.close().await.map_err(&failed)?;
        Self::open_restored(options).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use duet_protocol::ids::{PaillierKeyId, SessionId, WalletId};
    use duet_test_postgres::PostgresServer;
    use duet_wire::{
        JobId,
        audit::{ChainId, Draft, Event},
        policy::SignedPolicy,
    };
    use sqlx::Row as _;
    use zeroize::Zeroizing;

    use super::*;
    use crate::{
        at_rest::{KeyEncryptionKey, RecordKind, RecordLabel, SealedRecord},
        store::{
            AnswerRole, Charge, ChargedJob, Gate, LIMITS_USED_UP_SINCE, PaillierScope, PaillierState,
            PolicyRow, PutPolicy, RevokedRequest, ShareStore, Spending,
            conformance::{answers, lock, spending},
        },
    };

    async fn database() -> PostgresOptions {
        let database = PostgresServer::shared().await.unwrap().database().await.unwrap();
        let password = Zeroizing::new(database.password.clone());
        PostgresOptions::at(&database.url).unwrap().with_password(&password)
    }

    /// Both databases have the tables and columns that are copied, and no others.
    #[tokio::test]
    async fn everything_there_is_is_copied() {
        let listed: BTreeMap<String, Vec<String>> = TABLES
            .iter()
            .map(|table| {
                let mut columns: Vec<String> =
                    table.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
                columns.sort();
                (table.name.to_owned(), columns)
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let sqlite = SqliteStore::create(&SqliteOptions::at(folder.path().join("store.db"))).await.unwrap();
        let mut connection = sqlite.begin("test").await.unwrap();
        let rows = sqlx::query(
            "SELECT m.name AS name, c.name AS column_name FROM sqlite_master AS m, pragma_table_info(m.name) AS c
             WHERE m.type = 'table' AND m.name NOT LIKE '\\_sqlx%' ESCAPE '\\' ORDER BY c.name",
        )
        .fetch_all(&mut *connection)
        .await
        .unwrap();
        let mut there: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in rows {
            there.entry(row.get("name")).or_default().push(row.get("column_name"));
        }
        assert_eq!(there, listed, "SQLite");

        let options = database().await;
        PostgresStore::create(&options).await.unwrap();
        let mut connection = options.connect_for_long().await.unwrap();
        let rows = sqlx::query(
            "SELECT table_name, column_name FROM information_schema.columns
             WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%' ORDER BY column_name COLLATE \"C\"",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let mut there: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in rows {
            there.entry(row.get("table_name")).or_default().push(row.get("column_name"));
        }
        assert_eq!(there, listed, "PostgreSQL");
    }

    fn label(item: u8) -> RecordLabel {
        RecordLabel::of_party(RecordKind::PaillierKey, &[item; 16])
    }

    fn seal(item: u8) -> SealedRecord {
        SealedRecord::seal(&KeyEncryptionKey::from_bytes([1; 32].into()), &label(item), &[item]).unwrap()
    }

    const KEYS: [PaillierKeyId; 2] = [PaillierKeyId([1; 16]), PaillierKeyId([2; 16])];
    const CHARGE: Charge =
        Charge { session: SessionId([1; 16]), wallet: WalletId([1; 32]), digest: [1; 32], charged_at_ms: 1 };

    const CHAIN: ChainId = ChainId([1; 16]);

    fn entry() -> Draft {
        Draft::new(1, Event::WorkerStarted { instance: "a".to_owned() })
    }

    fn policy() -> PolicyRow {
        let signed = SignedPolicy { body: b"policy".to_vec(), signature: [1; 64] };
        PolicyRow { revision: 1, effective_at_ms: 1, signed }
    }

    async fn fill(store: &impl ShareStore) {
        store.put_setting("a", b"b").await.unwrap();
        let scope = PaillierScope::Wallet(WalletId([9; 32]));
        for (id, item) in KEYS.into_iter().zip(1..) {
            store.put_paillier_key(id, &scope, &seal(item), PaillierState::Ready, 1).await.unwrap();
        }
        store.lock_paillier_key(&lock(KEYS[1], SessionId([7; 16]), b"evidence", 1)).await.unwrap();
        let answering = store.answering(answers(1, AnswerRole::Responder));
        answering.spending(spending(CHARGE.wallet, 1)).charge(&CHARGE).await.unwrap();
        assert_eq!(store.put_policy(CHARGE.wallet, &policy(), 1).await.unwrap(), PutPolicy::Stored);
        store.put_approval(CHARGE.wallet, [6; 32], [7; 32], 1_000, 1).await.unwrap();
        let revoked =
            RevokedRequest { wallet: CHARGE.wallet, request: [8; 32], by: [7; 32], expires_at_ms: 9_000 };
        store.revoke_request(&revoked, 1).await.unwrap();
        store.begin_audit(CHAIN, &entry(), None).await.unwrap();
        store.append_audit(&[entry()]).await.unwrap();
        // More rows than are copied at a time.
        let records: Vec<_> = (0..1100_u32)
            .map(|n| (RecordLabel { item: n.to_be_bytes().to_vec(), ..label(0) }, seal(3)))
            .collect();
        store.put_records(&records).await.unwrap();
        store.put_deal(WalletId([4; 32]), &seal(4), 1).await.unwrap();
    }

    async fn is_restored(store: &impl ShareStore) {
        assert!(store.was_restored().await.unwrap());
        assert_eq!(store.setting("a").await.unwrap(), Some(b"b".to_vec()));
        assert!(store.record(&label(1)).await.unwrap().is_some());
        for number in 0..1100_u32 {
            let label = RecordLabel { item: number.to_be_bytes().to_vec(), ..label(0) };
            assert!(store.record(&label).await.unwrap().is_some(), "{number}");
        }
        assert_eq!(
            store.release_verdict(KEYS[0], SessionId([0; 16])).await.unwrap(),
            Gate::Closed(PaillierState::NeedsRotation)
        );
        assert_eq!(
            store.release_verdict(KEYS[1], SessionId([0; 16])).await.unwrap(),
            Gate::Closed(PaillierState::Locked)
        );
        assert!(!store.charge(&CHARGE).await.unwrap());
        assert!(store.deals().await.unwrap()[0].restored);
        // What is newest after the copy is what is added after it.
        let (scope, fresh) = (PaillierScope::Wallet(WalletId([9; 32])), PaillierKeyId([5; 16]));
        store.put_paillier_key(fresh, &scope, &seal(5), PaillierState::Ready, 1).await.unwrap();
        assert_eq!(store.paillier_keys(&scope).await.unwrap()[0].id, fresh);
        assert_eq!(store.release_verdict(fresh, SessionId([0; 16])).await.unwrap(), Gate::Open);

        assert_eq!(store.policies(CHARGE.wallet).await.unwrap(), [policy()]);
        assert_eq!(store.approvals(CHARGE.wallet, [6; 32], 1).await.unwrap(), [[7; 32]]);
        let standing = store.request_facts(CHARGE.wallet, [8; 32], JobId([1; 16])).await.unwrap();
        assert!(standing.is_revoked && standing.restored_at_ms.is_some());
        assert_eq!(standing.charged, Some(ChargedJob { signs: [1; 32], charged_at_ms: 1 }));
        // Three signatures are allowed, and one was made before.
        let sign = async |number: u8| {
            let charge = Charge { session: SessionId([number; 16]), digest: [number; 32], ..CHARGE };
            let spending = Spending { decided_by: Some(policy().mark()), ..spending(CHARGE.wallet, number) };
            store.spending(spending).charge(&charge).await
        };
        // What was spent since the backup is not known: the limits are used up until the operator
        // says otherwise.
        let used_up = sign(2).await;
        assert!(
            matches!(&used_up, Err(StoreError::LimitExceeded(limit)) if limit.contains("restored")),
            "{used_up:?}"
        );
        let since = store.setting(LIMITS_USED_UP_SINCE).await.unwrap().unwrap();
        store.remove_setting(LIMITS_USED_UP_SINCE, &since).await.unwrap();
        assert!(sign(2).await.unwrap() && sign(3).await.unwrap());
        assert!(matches!(sign(4).await, Err(StoreError::LimitExceeded(_))));

        // The chain is complete and closed; another one follows it.
        let chains = store.audit_chains().await.unwrap();
        assert_eq!((chains.len(), chains[0].closed, chains[0].head.sequence), (1, true, 2));
        let next = ChainId([2; 16]);
        store.begin_audit(next, &entry(), Some(CHAIN)).await.unwrap();
        let chains = store.audit_chains().await.unwrap();
        assert_eq!(chains.iter().map(|chain| chain.head.chain).collect::<Vec<_>>(), [CHAIN, next]);
    }

    #[tokio::test]
    async fn a_backup_of_either_store_restores_as_either() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let sqlite = SqliteStore::create(&SqliteOptions::at(file("first.db"))).await.unwrap();
        fill(&sqlite).await;
        sqlite.back_up(&file("first.backup")).await.unwrap();

        let options = database().await;
        let postgres = PostgresStore::restore(&file("first.backup"), &options).await.unwrap();
        postgres.back_up(&file("second.backup")).await.unwrap();
        is_restored(&postgres).await;
        let again = PostgresStore::restore(&file("first.backup"), &options).await;
        assert!(matches!(again, Err(StoreError::Exists(_))), "never over a party that is there");

        let back =
            SqliteStore::restore(&file("second.backup"), &SqliteOptions::at(file("third.db"))).await.unwrap();
        is_restored(&back).await;
    }
}
