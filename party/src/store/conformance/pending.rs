//! Pending verdicts, the gate that writes, what a lock destroys and counts, and the bound on
//! answers.

use super::*;

type Two<S> = [Arc<S>; 2];

pub(super) async fn all<S: ShareStore>(make: impl AsyncFn() -> Two<S>) {
    the_gate_counts(make().await).await;
    a_lock_destroys_the_key_and_what_is_pending(make().await).await;
    failures_are_counted_for_every_wallet_ever_enrolled(make().await).await;
    a_culprit_is_quarantined(make().await).await;
    nothing_of_a_quarantined_card_is_decrypted(make().await).await;
    an_accepted_culprit_is_recorded_once(make().await).await;
    a_witnessed_lock_counts_and_quarantines(make().await).await;
    locks_that_blame_no_card_get_suspects(make().await).await;
    answers_are_bounded(make().await).await;
    what_an_opening_left_behind_is_found(make().await).await;
    unclean_starts_are_counted(make().await).await;
}

pub(super) fn pending(key: PaillierKeyId, session: u8, at_ms: u64) -> NewPending {
    let session = SessionId([session; 16]);
    let record = sealed(&pending_label(session), b"pending");
    NewPending { session, key, card: CardFingerprint([6; 32]), record, at_ms }
}

pub(super) async fn is_pending<S: ShareStore>(store: &S, session: u8) -> bool {
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
    // An acceptance before the first lock has no effect.
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

/// A lock under one key stops the sessions with its card that have begun under other keys.
async fn nothing_of_a_quarantined_card_is_decrypted<S: ShareStore>([store, other]: Two<S>) {
    let (first, second) = (put_key(&*store, 1).await, put_key(&*store, 2).await);
    let third = put_key(&*store, 3).await;
    let culprit = CardFingerprint([8; 32]);
    let of = answers(1, AnswerRole::Initiator);
    let decrypt = async |session: u8, card| {
        let answer = NewPending { card, ..pending(third, session, 1) };
        other.answering(of).put_pending(&answer).await
    };
    decrypt(1, culprit).await.unwrap();
    store.lock_paillier_key(&lock(first, SessionId([9; 16]), b"evidence", 1)).await.unwrap();
    for session in 2..=20 {
        let refused = decrypt(session, culprit).await;
        assert!(matches!(refused, Err(StoreError::Quarantined(card)) if card == culprit), "{refused:?}");
        assert!(!is_pending(&*store, session).await);
    }
    assert_eq!(other.readiness(), Readiness::Ready, "a refusal is no failure of the store");
    decrypt(2, CardFingerprint([7; 32])).await.unwrap();
    // What was refused counts as no answer: fourteen are left of sixteen.
    store.accept_culprit(culprit, 2).await.unwrap();
    for session in 3..=16 {
        decrypt(session, culprit).await.unwrap();
    }
    assert!(matches!(decrypt(17, culprit).await, Err(StoreError::TooManyAnswers)));
    store.lock_paillier_key(&lock(second, SessionId([9; 16]), b"evidence", 3)).await.unwrap();
    store.accept_culprit(culprit, 4).await.unwrap();
    let answer = NewPending { card: culprit, ..pending(third, 18, 1) };
    let refused = other.answering(answers(2, AnswerRole::Initiator)).put_pending(&answer).await;
    assert!(matches!(refused, Err(StoreError::Quarantined(_))), "the second lock is final: {refused:?}");
}

async fn an_accepted_culprit_is_recorded_once<S: ShareStore>([store, other]: Two<S>) {
    let card = CardFingerprint([8; 32]);
    let (first, second) = (put_key(&*store, 1).await, put_key(&*store, 2).await);
    let chain = ChainId([1; 16]);
    store.begin_audit(chain, &draft(1, "genesis"), None).await.unwrap();
    let recorded = async || {
        let records = other.audit_records(chain, 1, 100).await.unwrap();
        records.iter().map(|record| String::from_utf8(record.body.clone()).unwrap()).collect::<Vec<_>>()
    };
    let accept = async || {
        let noting = store.noting(Draft::new(3, Event::CulpritAccepted { card }));
        noting.accept_culprit(card, 3).await.unwrap()
    };
    accept().await;
    assert!(recorded().await.is_empty(), "ahead of a lock nothing is accepted");
    store.lock_paillier_key(&lock(first, SessionId([1; 16]), b"evidence", 2)).await.unwrap();
    assert!(accept().await.is_trusted() && accept().await.is_trusted());
    let event = format!(r#"{{"at_ms":3,"event":{{"kind":"culprit_accepted","card":"{card}"}}}}"#);
    assert_eq!(recorded().await, std::slice::from_ref(&event), "once, with the word that counts");
    store.lock_paillier_key(&lock(second, SessionId([2; 16]), b"evidence", 4)).await.unwrap();
    assert!(accept().await.is_final());
    assert_eq!(recorded().await, [event]);

    // What cannot be recorded is not accepted.
    let (third, stranger) = (put_key(&*store, 3).await, CardFingerprint([5; 32]));
    let locked = Lock { card: Some(stranger), ..lock(third, SessionId([3; 16]), b"evidence", 5) };
    store.lock_paillier_key(&locked).await.unwrap();
    store.mark_restored().await.unwrap();
    let noting = store.noting(Draft::new(6, Event::CulpritAccepted { card: stranger }));
    assert!(matches!(noting.accept_culprit(stranger, 6).await, Err(StoreError::NotReady(_))));
    assert!(!other.standing(stranger).await.unwrap().is_trusted());
}

async fn a_witnessed_lock_counts_and_quarantines<S: ShareStore>([store, other]: Two<S>) {
    for id in [1, 2, 3] {
        store.prepare_wallet(&new_wallet(id, id, None)).await.unwrap();
        store.commit_wallet(WalletId([id; 32]), b"ack", 1).await.unwrap();
    }
    let wallet = |id: u8| WalletId([id; 32]);
    let card = CardFingerprint([5; 32]);
    let key = PaillierKeyId([1; 16]);
    let label = RecordLabel::of_party(RecordKind::PaillierKey, key.as_bytes());
    let scope = PaillierScope::Responder { card, tenant: "acme".to_owned() };
    store.put_paillier_key(key, &scope, &sealed(&label, b"key"), PaillierState::Ready, 1).await.unwrap();
    let of_device = put_key(&*store, 2).await;
    store.agree_enrolment(wallet(1), &party("partner"), key).await.unwrap();
    store.offer_enrolment(wallet(2), &party("partner"), key).await.unwrap();
    store.agree_enrolment(wallet(2), &party("partner"), of_device).await.unwrap();
    store.put_pending(&pending(key, 1, 1)).await.unwrap();
    let witnessed = BTreeSet::from([key]);
    assert_eq!(store.lock_witnessed(&witnessed, 2).await.unwrap(), [key]);
    assert_eq!(other.lock_witnessed(&witnessed, 3).await.unwrap(), []);
    let failures = async || {
        let mut failures = Vec::new();
        for id in [1, 2, 3] {
            failures.push(other.wallet(wallet(id)).await.unwrap().unwrap().failures);
        }
        failures
    };
    assert_eq!(failures().await, [1, 1, 0], "every wallet that was ever enrolled under it, once");
    assert_eq!(other.losses(wallet(2)).await.unwrap(), [0]);
    assert_eq!(other.standing(card).await.unwrap(), Standing { locks: 1, is_accepted: false });
    assert!(!is_pending(&*other, 1).await, "nothing is judged under a key that is locked");
    // A bad verdict that comes after it is no second failure.
    store.lock_paillier_key(&lock(key, SessionId([1; 16]), b"evidence", 4)).await.unwrap();
    assert_eq!(failures().await, [1, 1, 0]);
    // A device's key names no responder.
    assert_eq!(store.lock_witnessed(&BTreeSet::from([of_device]), 5).await.unwrap(), [of_device]);
    assert_eq!(failures().await, [1, 2, 0]);
    assert_eq!(store.culprits().await.unwrap().len(), 1);
    let unblamed = UnblamedLock { key: of_device, wallet: wallet(9), evidence: None };
    assert_eq!(other.unblamed_locks().await.unwrap(), [unblamed]);
}

async fn locks_that_blame_no_card_get_suspects<S: ShareStore>([store, other]: Two<S>) {
    let (service, partner) = (CardFingerprint([2; 32]), CardFingerprint([3; 32]));
    let without_card = |key, session: u8, evidence: &[u8]| Lock {
        card: None,
        wallet: None,
        ..lock(key, SessionId([session; 16]), evidence, 1)
    };
    let locks = async |card| other.standing(card).await.unwrap().locks;
    let mut keys = Vec::new();
    for id in 1..=4 {
        keys.push(put_key(&*store, id).await);
    }
    let [first, second, third, ready] = keys[..] else { panic!("four keys") };
    for (key, session) in [(first, 1), (second, 2)] {
        store.lock_paillier_key(&without_card(key, session, b"evidence")).await.unwrap();
    }
    let unblamed =
        |key| UnblamedLock { key, wallet: WalletId([9; 32]), evidence: Some(b"evidence".to_vec()) };
    assert_eq!(other.unblamed_locks().await.unwrap(), [unblamed(first), unblamed(second)]);

    // Two locks with the same two suspects are final for neither: one of the two did nothing.
    for key in [first, first, second, ready] {
        store.blame(key, &[service, partner]).await.unwrap();
    }
    assert_eq!(other.unblamed_locks().await.unwrap(), []);
    for card in [service, partner] {
        assert_eq!(other.standing(card).await.unwrap(), Standing { locks: 1, is_accepted: false });
    }
    let standing = Standing { locks: 1, is_accepted: false };
    let both = [service, partner].map(|card| Culprit { card, standing });
    assert_eq!(other.culprits().await.unwrap(), both);
    assert!(other.accept_culprit(service, 2).await.unwrap().is_trusted());
    assert!(!other.standing(partner).await.unwrap().is_trusted());

    // One card is blamed as if the lock had named it, for good.
    store.lock_paillier_key(&without_card(third, 3, b"evidence")).await.unwrap();
    store.blame(third, &[service]).await.unwrap();
    store.blame(third, &[partner]).await.unwrap();
    store.blame(third, &[partner, service]).await.unwrap();
    assert_eq!((locks(service).await, locks(partner).await), (2, 1));
    // Nothing is blamed for a key that is not locked.
    store.blame(ready, &[partner]).await.unwrap();
    assert_eq!(locks(partner).await, 1);

    // The scope of a service's key names the responder, whatever the lock says.
    let key = PaillierKeyId([5; 16]);
    let label = RecordLabel::of_party(RecordKind::PaillierKey, key.as_bytes());
    let scope = PaillierScope::Responder { card: partner, tenant: "acme".to_owned() };
    store.put_paillier_key(key, &scope, &sealed(&label, b"key"), PaillierState::Ready, 1).await.unwrap();
    store.lock_paillier_key(&without_card(key, 4, b"")).await.unwrap();
    assert_eq!(locks(partner).await, 2);
    assert_eq!(other.unblamed_locks().await.unwrap(), []);
}

async fn answers_are_bounded<S: ShareStore>([store, other]: Two<S>) {
    let key = put_key(&*store, 1).await;
    let give = async |number: u8, request: u8| {
        let charge = Charge {
            session: SessionId([number; 16]),
            wallet: WalletId([1; 32]),
            digest: [3; 32],
            charged_at_ms: 1,
        };
        let store = if number.is_multiple_of(2) { &store } else { &other };
        store.answering(answers(request, AnswerRole::Responder)).charge(&charge).await
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
        let decrypting = store.answering(answers(1, AnswerRole::Initiator));
        let written = decrypting.put_pending(&pending(key, number, 1)).await;
        if number <= 16 {
            written.unwrap();
            store.release_verdict(key, SessionId([number; 16])).await.unwrap();
        } else {
            assert!(matches!(written, Err(StoreError::TooManyAnswers)), "{written:?}");
            assert!(!is_pending(&*store, number).await, "so nothing may be decrypted");
        }
    }
    // Long after the request has expired no party answers it any more.
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
