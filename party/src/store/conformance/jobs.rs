//! An idempotency key is for one payload: a job signs what it was charged for first.

use duet_wire::remembered::Remembered;

use super::{
    pending::{is_pending, pending},
    workers::{Two, race},
    *,
};

pub(super) async fn all<S: ShareStore>(make: impl AsyncFn() -> Two<S>) {
    a_job_signs_one_thing(make().await).await;
    one_of_two_payloads(make().await).await;
    a_job_is_forgotten_long_after_its_requests(make().await).await;
    the_highest_of_each_bucket_is_remembered(make().await).await;
}

const WALLET: WalletId = WalletId([1; 32]);

/// Charges session `number` at `number` ms for a request of its own.
async fn give<S: ShareStore>(store: &S, number: u8, job: u8, signs: u8) -> Result<bool, StoreError> {
    let session = SessionId([number; 16]);
    let charge = Charge { session, wallet: WALLET, digest: [signs; 32], charged_at_ms: number.into() };
    let of = answers(number, AnswerRole::Responder);
    store.answering(AnswersOf { job: JobId([job; 16]), signs: [signs; 32], ..of }).charge(&charge).await
}

#[track_caller]
fn is_conflict<T: std::fmt::Debug>(decided: Result<T, StoreError>, first_at_ms: u64) {
    let is_said =
        matches!(decided, Err(StoreError::OtherPayload { charged_at_ms }) if charged_at_ms == first_at_ms);
    assert!(is_said, "{decided:?}");
}

async fn a_job_signs_one_thing<S: ShareStore>([store, other]: Two<S>) {
    let key = put_key(&*store, 1).await;
    let decrypt = async |session: u8, job: u8, signs: u8| {
        let of = answers(session, AnswerRole::Initiator);
        let of = AnswersOf { job: JobId([job; 16]), signs: [signs; 32], ..of };
        other.answering(of).put_pending(&pending(key, session, session.into())).await
    };
    let charged = async |job| {
        let facts = other.request_facts(WALLET, [0; 32], JobId([job; 16])).await.unwrap();
        facts.charged
    };
    assert_eq!(charged(1).await, None);
    assert!(give(&*store, 1, 1, 7).await.unwrap());
    assert_eq!(charged(1).await, Some(ChargedJob { signs: [7; 32], charged_at_ms: 1 }));
    // Neither side of another session signs another payload under it, and nothing is written.
    is_conflict(give(&*other, 2, 1, 8).await, 1);
    assert_eq!(store.charges(WALLET, [8; 32]).await.unwrap(), 0);
    is_conflict(decrypt(3, 1, 8).await, 1);
    assert!(!is_pending(&*store, 3).await);
    is_conflict(charged(1).await.unwrap().require([8; 32]), 1);
    // A retry passes, as does another job with the payload that was refused.
    assert!(give(&*store, 2, 1, 7).await.unwrap());
    decrypt(3, 1, 7).await.unwrap();
    assert!(give(&*store, 4, 2, 8).await.unwrap());
    charged(1).await.unwrap().require([7; 32]).unwrap();

    // The first charge says what it is, in either seat.
    decrypt(5, 3, 7).await.unwrap();
    is_conflict(give(&*store, 6, 3, 8).await, 5);
    assert!(give(&*store, 6, 3, 7).await.unwrap());
    assert_eq!(charged(3).await.unwrap().charged_at_ms, 5);
    assert_eq!(store.readiness(), Readiness::Ready, "a refusal is no failure of the store");
    let said = give(&*store, 8, 1, 9).await.unwrap_err().to_string();
    assert!(said.contains("at 1970-01-01T00:00:00Z"), "{said}");
}

/// What an invitation said of the broker is kept with the charge, and not without one.
async fn the_highest_of_each_bucket_is_remembered<S: ShareStore>([store, other]: Two<S>) {
    let give = async |number: u8, signs: u8, seen: Option<(u64, u64, u64)>| {
        let charge = Charge {
            session: SessionId([number; 16]),
            wallet: WALLET,
            digest: [signs; 32],
            charged_at_ms: number.into(),
        };
        let remembered = seen.map(|(epoch, revision, created_ns)| Remembered { epoch, revision, created_ns });
        let of = answers(number, AnswerRole::Responder);
        let of = AnswersOf { job: JobId([signs; 16]), signs: [signs; 32], remembered, ..of };
        store.answering(of).charge(&charge).await
    };
    let told = async |limit| {
        let all = other.remembered(limit).await.unwrap();
        all.into_iter().map(|one| (one.epoch, one.revision, one.created_ns)).collect::<Vec<_>>()
    };
    assert!(give(1, 1, None).await.unwrap());
    assert_eq!(told(9).await, []);
    for (number, revision) in [(2, 70), (3, 90), (4, 80)] {
        assert!(give(number, number, Some((1, revision, 500))).await.unwrap());
    }
    assert_eq!(told(9).await, [(1, 90, 500)]);
    // Another attempt at a job, after other jobs.
    assert!(give(5, 2, Some((1, 95, 500))).await.unwrap());
    assert!(give(6, 2, None).await.unwrap());
    assert_eq!(told(9).await, [(1, 95, 500)]);
    // The bucket was put back: its later epoch counts. Then it was lost.
    assert!(give(7, 7, Some((2, 60, 500))).await.unwrap());
    assert_eq!(told(9).await, [(2, 60, 500)]);
    assert!(give(8, 8, Some((4, 3, 600))).await.unwrap());
    assert_eq!(told(9).await, [(4, 3, 600), (2, 60, 500)]);
    assert_eq!(told(1).await, [(4, 3, 600)]);
}

async fn one_of_two_payloads<S: ShareStore>(workers: Two<S>) {
    let outcomes = race(&workers, 16, |store, number| async move {
        let signs = number % 2;
        match give(&*store, number + 1, 1, signs).await {
            Ok(charged) => charged.then_some(signs),
            Err(StoreError::OtherPayload { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    });
    let signed: Vec<u8> = outcomes.await.into_iter().flatten().collect();
    let [first, ..] = signed[..] else { panic!("none was charged") };
    assert_eq!(signed, [first; 8], "every session of one payload, and none of the other");
    for worker in &workers {
        assert_eq!(worker.charges(WALLET, [1 - first; 32]).await.unwrap(), 0);
    }
}

async fn a_job_is_forgotten_long_after_its_requests<S: ShareStore>([store, other]: Two<S>) {
    const KEPT_MS: u64 = 400 * 24 * 3_600_000;
    let give_until = async |number: u8, signs: u8, expires_at_ms| {
        let charge = Charge {
            session: SessionId([number; 16]),
            wallet: WALLET,
            digest: [signs; 32],
            charged_at_ms: 1,
        };
        let of = answers(number, AnswerRole::Responder);
        store.answering(AnswersOf { signs: [signs; 32], expires_at_ms, ..of }).charge(&charge).await
    };
    assert!(give_until(1, 7, 5_000).await.unwrap());
    other.expire_prepared(4_999 + KEPT_MS).await.unwrap();
    is_conflict(give_until(2, 8, 5_000).await, 1);
    // The newest request counts, and one that expires earlier shortens nothing.
    assert!(give_until(3, 7, 9_000).await.unwrap());
    assert!(give_until(4, 7, 1_000).await.unwrap());
    other.expire_prepared(8_999 + KEPT_MS).await.unwrap();
    is_conflict(give_until(5, 8, 5_000).await, 1);
    other.expire_prepared(9_000 + KEPT_MS).await.unwrap();
    assert!(give_until(5, 8, 5_000).await.unwrap());
}
