//! A connection that breaks, wherever in an answer, and a statement that the server cancels: the
//! store says that it is unavailable. It never answers as if the row were not there.

use duet_protocol::ids::{CardFingerprint, PaillierKeyId, SessionId, WalletId};
use duet_test_postgres::{Database, Line, PostgresServer};
use duet_wire::{
    JobId,
    audit::{ChainId, Draft, Event},
    policy::SignedPolicy,
};
use futures::{FutureExt as _, future::BoxFuture};
use sqlx::{Connection as _, Executor as _};
use zeroize::Zeroizing;

use super::{PostgresOptions, PostgresStore};
use crate::{
    at_rest::{KeyEncryptionKey, RecordKind, RecordLabel, SealedRecord},
    store::{
        AnswerRole, AnswersOf, AuditStore as _, Charge, Gate, KeyStore as _, PaillierScope, PaillierState,
        PendingStore as _, PolicyRow, PolicyStore as _, Readiness, RecordStore as _, RevokedRequest,
        SessionStore as _, StoreError,
        conformance::{answers, lock, spending},
    },
};

const KEY: PaillierKeyId = PaillierKeyId([1; 16]);
const WALLET: WalletId = WalletId([9; 32]);
const CARD: CardFingerprint = CardFingerprint([8; 32]);
const SESSION: SessionId = SessionId([1; 16]);
const JOB: JobId = JobId([1; 16]);

/// Bytes of the server's answers between two cuts.
const STEP: usize = 29;

fn policy() -> PolicyRow {
    let signed = SignedPolicy { body: b"policy".to_vec(), signature: [1; 64] };
    PolicyRow { revision: 1, effective_at_ms: 1, signed }
}

fn label() -> RecordLabel {
    RecordLabel::of_party(RecordKind::PaillierKey, b"record")
}

fn charge(session: u8) -> Charge {
    Charge { session: SessionId([session; 16]), wallet: WALLET, digest: [session; 32], charged_at_ms: 1 }
}

async fn fill(store: &PostgresStore) {
    let sealed = SealedRecord::seal(&KeyEncryptionKey::from_bytes([1; 32].into()), &label(), b"key").unwrap();
    let scope = PaillierScope::Wallet(WALLET);
    store.put_records(&[(label(), sealed.clone())]).await.unwrap();
    store.put_paillier_key(KEY, &scope, &sealed, PaillierState::Ready, 1).await.unwrap();
    store.lock_paillier_key(&lock(KEY, SESSION, b"evidence", 1)).await.unwrap();
    assert!(store.claim_session(SESSION, WALLET, 1_000, 1).await.unwrap());
    let revoked = RevokedRequest { wallet: WALLET, request: [8; 32], by: [7; 32], expires_at_ms: 9_000 };
    store.revoke_request(&revoked, 1).await.unwrap();
    // As many as the limit permits.
    for session in 1..=3 {
        let store = store.answering(answers(1, AnswerRole::Responder));
        assert!(store.spending(spending(WALLET, session)).charge(&charge(session)).await.unwrap());
    }
    store.put_policy(WALLET, &policy(), 1).await.unwrap();
    let draft = Draft::new(1, Event::WorkerStarted { instance: "a".to_owned() });
    store.begin_audit(ChainId([1; 16]), &draft, None).await.unwrap();
}

/// A question, and whether the store's answer is the true one.
type Question = (&'static str, fn(PostgresStore) -> BoxFuture<'static, Result<bool, StoreError>>);

const QUESTIONS: [Question; 12] = [
    ("gate", |store| async move { Ok(store.release_verdict(KEY, SESSION).await? != Gate::Open) }.boxed()),
    ("key", |store| {
        async move { Ok(store.paillier_key(KEY).await?.unwrap().state == PaillierState::Locked) }.boxed()
    }),
    ("standing", |store| async move { Ok(store.standing(CARD).await?.locks == 1) }.boxed()),
    ("claim", |store| async move { Ok(!store.claim_session(SESSION, WALLET, 1_000, 1).await?) }.boxed()),
    ("charge", |store| async move { Ok(!store.charge(&charge(1)).await?) }.boxed()),
    ("limits", |store| {
        let spending = crate::store::Spending { decided_by: Some(policy().mark()), ..spending(WALLET, 4) };
        async move {
            match store.spending(spending).charge(&charge(4)).await {
                Err(StoreError::LimitExceeded(_)) => Ok(true),
                decided => decided.map(|_| false),
            }
        }
        .boxed()
    }),
    ("job", |store| {
        let other = AnswersOf { signs: [9; 32], ..answers(9, AnswerRole::Responder) };
        async move {
            match store.answering(other).charge(&charge(5)).await {
                Err(StoreError::OtherPayload { .. }) => Ok(true),
                decided => decided.map(|_| false),
            }
        }
        .boxed()
    }),
    ("request", |store| {
        async move { Ok(store.request_facts(WALLET, [8; 32], JOB).await?.is_revoked) }.boxed()
    }),
    ("charges", |store| async move { Ok(store.charges(WALLET, [1; 32]).await? == 1) }.boxed()),
    ("policies", |store| async move { Ok(store.policies(WALLET).await? == [policy()]) }.boxed()),
    ("record", |store| async move { Ok(store.record(&label()).await?.is_some()) }.boxed()),
    ("audit", |store| async move { Ok(store.audit_chains().await?.len() == 1) }.boxed()),
];

async fn database() -> Database {
    PostgresServer::shared().await.unwrap().database().await.unwrap()
}

fn options(url: &str, database: &Database) -> PostgresOptions {
    PostgresOptions::at(url).unwrap().with_password(&Zeroizing::new(database.password.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_anywhere_is_an_error_and_never_no_row() {
    let database = database().await;
    let line = Line::to(PostgresServer::shared().await.unwrap().folder()).unwrap();
    let store = PostgresStore::create(&options(&line.url(&database.url), &database)).await.unwrap();
    fill(&store).await;
    for (name, ask) in QUESTIONS {
        let mut errors = 0;
        for bytes in (1..).step_by(STEP) {
            line.mend();
            if store.readiness() != Readiness::Ready {
                store.recover().await.unwrap();
            }
            // A connection lies ready.
            store.setting("warm").await.unwrap();
            line.cut_after(bytes);
            match ask(store.clone()).await {
                Ok(true) => {}
                Ok(false) => panic!("{name}: answered without the row, cut after {bytes} bytes"),
                Err(StoreError::Unavailable { .. } | StoreError::NotReady(_)) => errors += 1,
                Err(other) => panic!("{name}: {other}, cut after {bytes} bytes"),
            }
            if !line.is_cut() {
                break;
            }
        }
        assert!(errors > 2, "{name}: cut {errors} times");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_the_server_cancels_is_an_error_and_never_no_row() {
    let database = database().await;
    let store = PostgresStore::create(&options(&database.url, &database)).await.unwrap();
    fill(&store).await;
    let mut holder = database.administer().await.unwrap();
    let mut looking = database.administer().await.unwrap();
    for (name, ask) in QUESTIONS {
        store.recover().await.unwrap();
        let mut held = holder.begin().await.unwrap();
        held.execute(
            "LOCK TABLE settings, records, paillier_keys, accepted_culprits, suspects, sessions, charges, revocations, answers, job_digests,
               policies, policy_usage, policy_digests, audit_chains, audit_records IN ACCESS EXCLUSIVE MODE",
        )
        .await
        .unwrap();
        let asking = tokio::spawn(ask(store.clone()));
        loop {
            let cancelled: i64 = sqlx::query_scalar(
                "SELECT COUNT(pg_cancel_backend(pid)) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .fetch_one(&mut looking)
            .await
            .unwrap();
            assert!(cancelled > 0 || !asking.is_finished(), "{name}: it does not wait");
            if cancelled > 0 {
                break;
            }
        }
        let answer = asking.await.unwrap();
        assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{name}: {answer:?}");
        held.rollback().await.unwrap();
    }
}
