//! Pending verdicts, the gate that writes, what a lock destroys and counts, and the bound on
//! answers.

use super::*;

type Two<S> = [Arc<S>; 2];

pub(super) async fn all<S: ShareStore>(make: impl AsyncFn() -> Two<S>) {
    the_gate_counts(make().await).await;
    a_lock_destroys_the_key_and_what_is_pending(make().await).await;
    failures_are_counted_for_every_wallet_ever_enrolled(make().await).await;
    a_culprit_is_quarantined(make().await).await;
    answers_are_bounded(make().await).await;
    what_an_opening_left_behind_is_found(make().await).await;
    unclean_starts_are_counted(make().await).await;
}

fn pending(key: PaillierKeyId, session: u8, at_ms: u64) -> NewPending {
    let session = SessionId([session; 16]);
    let record = sealed(&pending_label(session), b"pending");
    NewPending { session, key, record, at_ms }
}

async fn is_pending<S: ShareStore>(store: &S, session: u8) -> bool {
    store.record(&pending_label(SessionId([session; 16]))).await.unwrap().is_some()
}

async fn the_gate_counts<S: ShareStore>([store, other]: Two<S>) {
    let (key, locked) = (put_key(&*store, 1).await, put_key(&*store, 2).await);
    let wallet = WalletId([9; 32]);
    store.agree_enrolment(wallet, &party("partner"), key).await.unwrap();
    for session in 1..=3 {
        store.put_pending(&pending(key, session, 1)).await.unwrap();
        assert!(is_pending(&*other, session).await);
        assert_eq!(other.release_verdict(key, SessionId([session; 16])).await.unwrap(), Gate::Open);
        assert!(!is_pending(&*store, session).await, "the gate forgets what was pending");
    }
    store.lock_paillier_key(&lock(key, SessionId([4; 16]), b"evidence", 1)).await.unwrap();
    assert_eq!(store.losses(wallet).await.unwrap(), [3], "three good verdicts came before the lock");
    // A verdict that comes after the lock is not told, and so does not count.
    assert_eq!(
        store.release_verdict(key, SessionId([5; 16])).await.unwrap(),
        Gate::Closed(PaillierState::Locked)
    );
    assert_eq!(other.losses(wallet).await.unwrap(), [3]);
    assert_eq!(store.release_verdict(locked, SessionId([6; 16])).await.unwrap(), Gate::Open);
}

async fn a_lock_destroys_the_key_and_what_is_pending<S: ShareStore>([store, other]: Two<S>) {
    let (key, kept) = (put_key(&*store, 1).await, put_key(&*store, 2).await);
    let label = |key: PaillierKeyId| RecordLabel::of_party(RecordKind::PaillierKey, key.as_bytes());
    for session in 1..=3 {
        store.put_pending(&pending(key, session, 1)).await.unwrap();
    }
    store.put_pending(&pending(kept, 4, 1)).await.unwrap();
    store.lock_paillier_key(&lock(key, SessionId([1; 16]), b"evidence", 1)).await.unwrap();
    assert!(other.record(&label(key)).await.unwrap().is_none(), "the sealed key is gone");
    assert!(other.record(&label(kept)).await.unwrap().is_some());
    for session in 1..=3 {
        assert!(!is_pending(&*other, session).await, "nothing is judged under a key that is locked");
    }
    assert!(is_pending(&*other, 4).await);
    // The row stays and says so, also when the key turns up again.
    put_key(&*store, 1).await;
    assert!(store.record(&label(key)).await.unwrap().is_none());
    assert_eq!(store.paillier_key(key).await.unwrap().unwrap().state, PaillierState::Locked);
}

async fn failures_are_counted_for_every_wallet_ever_enrolled<S: ShareStore>([store, other]: Two<S>) {
    for id in [1, 2, 3, 9] {
        store.prepare_wallet(&new_wallet(id, id, None)).await.unwrap();
        store.commit_wallet(WalletId([id; 32]), b"ack", 1).await.unwrap();
    }
    let wallet = |id: u8| WalletId([id; 32]);
    let failures = async |id| other.wallet(wallet(id)).await.unwrap().unwrap().failures;
    let (first, second) = (put_key(&*store, 1).await, put_key(&*store, 2).await);
    // 1 was rotated away from the first key, 2 was only offered it, 3 never had it.
    store.agree_enrolment(wallet(1), &party("partner"), first).await.unwrap();
    store.agree_enrolment(wallet(1), &party("partner"), second).await.unwrap();
    store.offer_enrolment(wallet(2), &party("partner"), first).await.unwrap();
    store.agree_enrolment(wallet(3), &party("partner"), second).await.unwrap();
    store.lock_paillier_key(&lock(first, SessionId([1; 16]), b"evidence", 1)).await.unwrap();
    store.lock_paillier_key(&lock(first, SessionId([2; 16]), b"evidence", 1)).await.unwrap();
    assert_eq!([failures(1).await, failures(2).await, failures(3).await], [1, 1, 0]);
    assert_eq!(failures(9).await, 1, "the wallet whose session it was");
    // They add up over keys, and a removed key's lock stays counted.
    store.lock_paillier_key(&lock(second, SessionId([3; 16]), b"evidence", 1)).await.unwrap();
    assert_eq!([failures(1).await, failures(2).await, failures(3).await], [2, 1, 1]);
    assert_eq!(other.losses(wallet(1)).await.unwrap(), [0, 0]);
    let failed = store.failed_wallets(2).await.unwrap();
    let failed: Vec<_> = failed.iter().map(|row| (row.id.0[0], row.failures)).collect();
    assert_eq!(failed, [(1, 2), (9, 2)], "those with the most first");
}

async fn a_culprit_is_quarantined<S: ShareStore>([store, other]: Two<S>) {
    let (card, stranger) = (CardFingerprint([8; 32]), CardFingerprint([7; 32]));
    let (first, second) = (put_key(&*store, 1).await, put_key(&*store, 2).await);
    assert!(store.standing(card).await.unwrap().is_trusted());
    // A word that is given ahead of a lock is none.
    assert_eq!(store.accept_culprit(card, 1).await.unwrap(), Standing::default());
    store.lock_paillier_key(&lock(first, SessionId([1; 16]), b"evidence", 1)).await.unwrap();
    let standing = other.standing(card).await.unwrap();
    assert_eq!(standing, Standing { locks: 1, is_accepted: false });
    assert!(!standing.is_trusted() && !standing.is_final());
    assert!(other.standing(stranger).await.unwrap().is_trusted());
    let accepted = other.accept_culprit(card, 2).await.unwrap();
    assert_eq!(accepted, Standing { locks: 1, is_accepted: true });
    assert!(store.standing(card).await.unwrap().is_trusted());
    // The second lock is final, whatever was and is said.
    store.lock_paillier_key(&lock(second, SessionId([2; 16]), b"evidence", 1)).await.unwrap();
    let standing = store.accept_culprit(card, 3).await.unwrap();
    assert!(!standing.is_trusted() && standing.is_final());
    assert_eq!(other.culprits().await.unwrap(), [Culprit { card, standing }]);
}

async fn answers_are_bounded<S: ShareStore>([store, other]: Two<S>) {
    let key = put_key(&*store, 1).await;
    let of = |request: u8, role| AnswersOf { request: [request; 32], role, expires_at_ms: 5_000 };
    let give = async |number: u8, request: u8| {
        let charge = Charge {
            session: SessionId([number; 16]),
            wallet: WalletId([1; 32]),
            digest: [3; 32],
            charged_at_ms: 1,
        };
        let store = if number.is_multiple_of(2) { &store } else { &other };
        store.answering(of(request, AnswerRole::Responder)).charge(&charge).await
    };
    for number in 1..=16 {
        assert!(give(number, 1).await.unwrap());
        // The same session again is no answer.
        assert!(!give(number, 1).await.unwrap());
    }
    assert!(matches!(give(17, 1).await, Err(StoreError::TooManyAnswers)));
    assert_eq!(other.charges(WalletId([1; 32]), [3; 32]).await.unwrap(), 16, "and nothing was charged");
    // Another request over the same digest is another one, and the initiator counts for itself.
    assert!(give(18, 2).await.unwrap());
    for number in 1..=17 {
        let decrypting = store.answering(of(1, AnswerRole::Initiator));
        let written = decrypting.put_pending(&pending(key, number, 1)).await;
        if number <= 16 {
            written.unwrap();
            store.release_verdict(key, SessionId([number; 16])).await.unwrap();
        } else {
            assert!(matches!(written, Err(StoreError::TooManyAnswers)), "{written:?}");
            assert!(!is_pending(&*store, number).await, "so nothing may be decrypted");
        }
    }
    // Long after the request has expired nobody asks for it any more.
    store.expire_prepared(5_000 + 3_600_000).await.unwrap();
    assert!(give(19, 1).await.unwrap());
}

async fn what_an_opening_left_behind_is_found<S: ShareStore>([store, other]: Two<S>) {
    let key = put_key(&*store, 1).await;
    store.put_pending(&pending(key, 1, 1_000)).await.unwrap();
    store.put_pending(&pending(key, 2, 2_000)).await.unwrap();
    other.put_pending(&pending(key, 3, 3_000)).await.unwrap();
    assert_eq!(other.abandoned(4_000, 10).await.unwrap(), [], "both live");
    assert_eq!(store.abandoned(4_000, 10).await.unwrap(), []);
    let row = |session: u8| PendingRow { session: SessionId([session; 16]), key };
    // What this process itself has pending for minutes was given up.
    assert_eq!(store.abandoned(121_500, 10).await.unwrap(), [row(1)]);
    store.close().await;
    assert_eq!(other.abandoned(4_000, 10).await.unwrap(), [row(1), row(2)], "its sibling is gone");
    other.release_verdict(key, SessionId([1; 16])).await.unwrap();
    assert_eq!(other.abandoned(4_000, 10).await.unwrap(), [row(2)]);
}

async fn unclean_starts_are_counted<S: ShareStore>([store, other]: Two<S>) {
    assert_eq!(store.unclean_starts().await.unwrap(), 0);
    assert_eq!(store.count_unclean_start().await.unwrap(), 1);
    assert_eq!(other.count_unclean_start().await.unwrap(), 2);
    assert_eq!(store.unclean_starts().await.unwrap(), 2);
}
