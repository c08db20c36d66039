//! The directory: the parties' answers about wallets. It fetches them when needed, keeps them for a
//! while, and fetches them again when a party finds them stale.
//!
//! Nothing here authorises a signature; the parties check all of it themselves. The orchestrator
//! uses the answers to refuse jobs early, to fill in manifests, and to find the key that a result
//! must verify under.

use core::time::Duration;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use duet_bus::Bus;
use duet_protocol::{
    codec,
    extended_key::ExtendedPublicKey,
    ids::{PartyId, ShareIndex, WalletId},
    public_key::{ChainCode, DerivationPath, PublicKey},
};
use duet_queue::{
    intake::unknown_wallet,
    terms::{PairTerms, Terms},
};
use duet_wire::{
    Code, Pair, PayloadKindTag, Refusal, Seat, TenantId, WalletInfo,
    card_request::{CardReply, CardRequest, MAX_WALLETS_PER_PAGE},
    remembered,
    wallet::{InitiatorState, WalletParty, WalletStatus},
};
use futures::future::join_all;
use tokio::{sync::watch, time::Instant};

use crate::{
    api::{PairView, WalletView},
    prober::Prober,
};

/// How old an answer may be when a job is refused because of it. So a burst of refusals does not
/// cause as many questions.
const MOMENT: Duration = Duration::from_secs(1);

/// How many wallets are remembered, some 2 KiB each. Beyond that the one fetched longest ago is
/// dropped.
const MAX_REMEMBERED_WALLETS: usize = 16_384;

/// How many pages one party is asked for to build one page of a tenant's wallets.
const MAX_PAGES_PER_LISTING: usize = 64;

/// One party's answer about a wallet.
#[derive(Debug, Clone)]
enum Answer {
    Known(Box<WalletInfo>),
    Unknown,
    Silent(Refusal),
}

/// The parties' answers about one wallet.
#[derive(Debug, Clone)]
pub(crate) struct WalletFacts {
    answers: BTreeMap<PartyId, Answer>,
}

impl WalletFacts {
    /// The answers of the parties that know the wallet.
    fn views(&self) -> impl Iterator<Item = &WalletInfo> {
        self.answers.values().filter_map(|answer| match answer {
            Answer::Known(info) => Some(&**info),
            Answer::Unknown | Answer::Silent(_) => None,
        })
    }

    /// Whether every party has answered.
    fn is_complete(&self) -> bool {
        !self.answers.values().any(|answer| matches!(answer, Answer::Silent(_)))
    }

    /// Whether all parties that know the wallet agree on its key and on its device's card. If they
    /// disagree, one of them lies. Then a signature that does not verify by one party's answer
    /// proves no party's fault.
    pub(crate) fn is_undisputed(&self) -> bool {
        let said = |view: &WalletInfo| {
            let device = view.party(ShareIndex::Device).map(|device| device.signing_key);
            (view.public_key, view.chain_code, device)
        };
        let mut all = self.views().map(said);
        all.next().is_none_or(|first| all.all(|other| other == first))
    }

    /// Whether any party says that the wallet belongs to `tenant`.
    pub(crate) fn belongs_to(&self, tenant: &TenantId) -> bool {
        self.views().any(|view| view.tenant == *tenant)
    }

    /// The tenant that the wallet's parties name.
    pub(crate) fn tenant(&self) -> Option<&TenantId> {
        self.views().map(|view| &view.tenant).next()
    }

    /// Whether every party that answered says that it has no such wallet.
    pub(crate) fn is_unknown(&self) -> bool {
        self.views().next().is_none() && self.answers.values().any(|answer| matches!(answer, Answer::Unknown))
    }

    /// Why it is unknown whether the wallet exists; `None` when it is known.
    pub(crate) fn silence(&self) -> Option<&Refusal> {
        if self.views().next().is_some() {
            return None;
        }
        self.answers.values().find_map(|answer| match answer {
            Answer::Silent(refusal) => Some(refusal),
            Answer::Known(_) | Answer::Unknown => None,
        })
    }

    /// Whether `requester` may request signatures over `kind`, by any party's answer.
    pub(crate) fn allows(&self, requester: &[u8; 32], kind: PayloadKindTag) -> Result<(), Refusal> {
        let mut known = false;
        for info in self.views().flat_map(|view| &view.requesters).filter(|info| info.key == *requester) {
            known = true;
            if info.kinds.contains(&kind) {
                return Ok(());
            }
        }
        Err(if known {
            Refusal::new(
                Code::KindNotAllowed,
                "the wallet does not let this requester sign this kind of payload",
            )
        } else {
            Refusal::new(Code::RequesterNotAllowed, "the wallet does not know this requester's key")
        })
    }

    /// The answer of the holder of share `index`, or why there is none.
    fn view_of(&self, index: ShareIndex) -> Result<&WalletInfo, Refusal> {
        if let Some(view) = self.views().find(|view| view.index == index) {
            return Ok(view);
        }
        for holder in self.views().filter_map(|view| view.party(index)) {
            match self.answers.get(&holder.party) {
                Some(Answer::Silent(refusal)) => return Err(refusal.clone()),
                Some(Answer::Unknown) => {
                    let message = format!("{} does not have its share of this wallet", holder.party);
                    return Err(Refusal::new(Code::UnknownWallet, message));
                }
                Some(Answer::Known(_)) | None => {}
            }
        }
        if let Some(refusal) = self.silence() {
            return Err(refusal.clone());
        }
        Err(Refusal::new(Code::NotEnrolled, format!("no party here holds share {index} of this wallet")))
    }

    /// The terms of a session of `pair`, or why there can be none now.
    pub(crate) fn terms(&self, pair: Pair) -> Result<Terms, Refusal> {
        let responder = self.view_of(pair.responder())?;
        committed(responder)?;
        let seat = |view: &WalletInfo, index| {
            view.party(index)
                .map(|holder: &WalletParty| Seat { party: holder.party.clone(), index })
                .ok_or_else(|| {
                    Refusal::new(Code::NotEnrolled, format!("no party holds share {index} of this wallet"))
                })
        };
        let seats = (seat(responder, pair.initiator())?, seat(responder, pair.responder())?);
        let enrolled = responder.responds_to.iter().filter(|enrolled| enrolled.initiator == pair.initiator());
        let not_enrolled = || {
            let message =
                format!("{} holds no enrolment of {} for this wallet", seats.1.party, seats.0.party);
            Refusal::new(Code::NotEnrolled, message)
        };
        if pair.initiator() == ShareIndex::Device {
            let paillier_key = enrolled.map(|e| e.paillier_key).next().ok_or_else(not_enrolled)?;
            let (initiator, responder_seat) = seats;
            return Ok(Terms { epoch: responder.epoch, paillier_key, initiator, responder: responder_seat });
        }
        let initiator = self.view_of(pair.initiator())?;
        committed(initiator)?;
        if initiator.public_key != responder.public_key || initiator.epoch != responder.epoch {
            let message = format!("{} and {} describe this wallet differently", seats.0.party, seats.1.party);
            return Err(Refusal::new(Code::StaleEpoch, message));
        }
        let enrolled: Vec<_> = enrolled.map(|e| e.paillier_key).collect();
        let key = initiator
            .initiates
            .iter()
            .filter(|key| key.responders.contains(&seats.1.party))
            .max_by_key(|key| (enrolled.contains(&key.paillier_key), key.state == InitiatorState::Ready))
            .ok_or_else(not_enrolled)?;
        match key.state {
            InitiatorState::Ready => {}
            InitiatorState::Locked => {
                let message = format!("the Paillier key of {} is locked; rotate it", seats.0.party);
                return Err(Refusal::new(Code::Locked, message));
            }
            InitiatorState::NeedsRotation => {
                let message = format!("{} was restored from a backup; rotate its key", seats.0.party);
                return Err(Refusal::new(Code::NeedsRotation, message));
            }
        }
        if !enrolled.contains(&key.paillier_key) {
            let message = format!("{} does not know the present key of {} yet", seats.1.party, seats.0.party);
            return Err(Refusal::new(Code::StalePaillierKey, message));
        }
        let paillier_key = key.paillier_key;
        let (initiator, responder_seat) = seats;
        Ok(Terms { epoch: responder.epoch, paillier_key, initiator, responder: responder_seat })
    }

    /// [`Self::terms`] of each pair.
    pub(crate) fn pair_terms(&self) -> PairTerms {
        Pair::ALL.into_iter().map(|pair| (pair, self.terms(pair))).collect()
    }

    /// The key that a signature of `pair` verifies under: the wallet's child at `path`, as the
    /// pair's responder describes the wallet.
    pub(crate) fn verifying_key(&self, pair: Pair, path: &DerivationPath) -> Result<PublicKey, Refusal> {
        let view = self.view_of(pair.responder())?;
        child(view, path)
    }

    /// Checks that the child at `path` exists, by any party's answer.
    pub(crate) fn derivable(&self, path: &DerivationPath) -> Result<(), Refusal> {
        let view = self.views().next().ok_or_else(unknown_wallet)?;
        child(view, path).map(drop)
    }

    /// The Ed25519 key of the card of the party in `seat` of a session of `pair`. It comes from
    /// that party's own answer, or for the device from the responder's.
    pub(crate) fn card_key(&self, pair: Pair, seat: &Seat) -> Result<[u8; 32], Refusal> {
        let speaker = if seat.index == ShareIndex::Device { pair.responder() } else { seat.index };
        let view = self.view_of(speaker)?;
        view.party(seat.index)
            .filter(|holder| holder.party == seat.party)
            .map(|holder| holder.signing_key)
            .ok_or_else(|| Refusal::new(Code::CardMismatch, "the wallet has another party in that seat"))
    }

    /// The keys of the device's card that the wallet's parties name: one key, unless a party lies.
    pub(crate) fn device_keys(&self) -> Vec<[u8; 32]> {
        let mut keys: Vec<_> = self
            .views()
            .filter_map(|view| view.party(ShareIndex::Device))
            .map(|device| device.signing_key)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The root key of `tenant`'s wallet, if every holder of a share describes it alike. So no
    /// party alone can choose a wallet's addresses, unless it is the only one that holds a share.
    ///
    /// # Errors
    /// When the tenant has no such wallet, when any party is silent, when a holder does not know
    /// the wallet or has not committed it, or when two describe it differently.
    pub(crate) fn agreed_root(&self, tenant: &TenantId) -> Result<ExtendedPublicKey, Refusal> {
        if let Some(silence) = self.silence() {
            return Err(silence.clone());
        }
        if !self.belongs_to(tenant) {
            return Err(unknown_wallet());
        }
        // A party that does not answer might contradict those that do, also about who holds shares.
        if let Some(Answer::Silent(refusal)) =
            self.answers.values().find(|answer| matches!(answer, Answer::Silent(_)))
        {
            return Err(refusal.clone());
        }
        if !self.is_undisputed() || self.views().any(|view| view.tenant != *tenant) {
            tracing::warn!("the parties describe a wallet differently: one of them lies about it");
            return Err(disputed());
        }
        for index in [ShareIndex::Service, ShareIndex::Partner] {
            if self.views().any(|view| view.party(index).is_some()) {
                committed(self.view_of(index)?)?;
            }
        }
        let view = self.views().next().ok_or_else(unknown_wallet)?;
        PublicKey::from_bytes(&view.public_key)
            .map(|key| ExtendedPublicKey::root(key, ChainCode(view.chain_code)))
            .map_err(|_| disputed())
    }

    /// The wallet as `tenant` sees it, if the tenant owns it.
    pub(crate) fn view(&self, tenant: &TenantId) -> Option<WalletView> {
        let own = || self.views().filter(|view| view.tenant == *tenant);
        let first = own().next()?;
        let all_committed = own().all(|view| view.status == WalletStatus::Committed);
        let pairs = Pair::ALL.map(|pair| match self.terms(pair) {
            Ok(_) => PairView { pair, usable: true, reason: None },
            Err(reason) => PairView { pair, usable: false, reason: Some(reason) },
        });
        Some(WalletView {
            id: first.id,
            address: PublicKey::from_bytes(&first.public_key).map_or(first.address, |key| key.address()),
            public_key: first.public_key,
            chain_code: first.chain_code,
            epoch: first.epoch,
            tenant: first.tenant.clone(),
            status: if all_committed { WalletStatus::Committed } else { WalletStatus::Prepared },
            parties: first.parties.each_ref().map(|holder| holder.as_ref().map(|h| h.party.clone())),
            requesters: first.requesters.clone(),
            pairs: pairs.into(),
        })
    }
}

fn committed(view: &WalletInfo) -> Result<(), Refusal> {
    if view.status == WalletStatus::Committed {
        return Ok(());
    }
    let message = format!("the holder of share {} has not committed this wallet yet", view.index);
    Err(Refusal::new(Code::NotEnrolled, message))
}

/// The refusal to show a wallet's key while its parties describe it differently.
pub(crate) fn disputed() -> Refusal {
    let message = "the parties describe this wallet differently, so one of them lies; use none of its addresses \
                   before their operators have found out which";
    Refusal::new(Code::PeerMisbehaved, message)
}

fn child(view: &WalletInfo, path: &DerivationPath) -> Result<PublicKey, Refusal> {
    PublicKey::from_bytes(&view.public_key)
        .and_then(|root| root.child(&ChainCode(view.chain_code), path))
        .map(|(key, _)| key)
        .map_err(|error| Refusal::new(Code::InvalidPayload, error.to_string()))
}

struct Remembered {
    facts: WalletFacts,
    asked_at: Instant,
    /// Whether the facts are outdated, so that they have to be fetched again.
    is_outdated: bool,
}

/// A party that the orchestrator works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartyEntry {
    /// Its name.
    pub party: PartyId,
    /// The share of its wallets that it holds: 2 for a service, 3 for a partner. Its answers count
    /// for that share only, so that no party can take another's seat.
    pub index: ShareIndex,
}

/// The parties and their answers.
pub(crate) struct Directory {
    parties: Vec<(PartyEntry, Arc<Prober>)>,
    changed: watch::Sender<()>,
    max_age: Duration,
    remembered: Mutex<HashMap<WalletId, Remembered>>,
}

impl Directory {
    pub(crate) fn new(bus: &Bus, parties: Vec<PartyEntry>, max_age: Duration) -> Self {
        let changed = watch::Sender::new(());
        let with_prober = |entry: PartyEntry| {
            let prober = Prober::new(bus.clone(), entry.party.clone(), changed.clone());
            (entry, prober)
        };
        let parties = parties.into_iter().map(with_prober).collect();
        Self { parties, changed, max_age, remembered: Mutex::new(HashMap::new()) }
    }

    /// The names of the configured parties.
    pub(crate) fn parties(&self) -> impl Iterator<Item = &PartyId> {
        self.parties.iter().map(|(entry, _)| &entry.party)
    }

    /// The facts about `wallet`. Fetches them when they are not known or too old.
    pub(crate) async fn wallet(&self, wallet: WalletId) -> WalletFacts {
        self.wallet_besides(wallet, BTreeMap::new()).await
    }

    /// The facts about `wallet` for a job in the queue. What a party said that is silent now does
    /// not count, and it is not asked.
    pub(crate) async fn wallet_to_sign(&self, wallet: WalletId) -> WalletFacts {
        let silent: BTreeMap<_, _> = self
            .silences()
            .filter_map(|(party, silence)| Some((party.clone(), Answer::Silent(silence?))))
            .collect();
        let mut facts = self.wallet_besides(wallet, silent.clone()).await;
        facts.answers.extend(silent);
        facts
    }

    /// The facts about `wallet`. Of the parties whose answers are not known, those in `silent` are
    /// not asked.
    async fn wallet_besides(&self, wallet: WalletId, mut silent: BTreeMap<PartyId, Answer>) -> WalletFacts {
        match self.remembered(wallet) {
            Some(facts) if facts.is_complete() => facts,
            // Only the parties that gave no answer are asked again, and every one about an unknown
            // wallet.
            Some(facts) => {
                let known = facts.answers.into_iter();
                silent.extend(known.filter(|(_, answer)| !matches!(answer, Answer::Silent(_))));
                self.ask_about(wallet, silent).await
            }
            None => self.ask_about(wallet, silent).await,
        }
    }

    /// Asks `party` whether it still answers, since it offers no seats any more.
    pub(crate) async fn ask_whether_present(&self, party: &PartyId) {
        if let Some((_, prober)) = self.parties.iter().find(|(entry, _)| entry.party == *party) {
            prober.ask_whether_present().await;
        }
    }

    /// Records that a worker of `party` offers seats. Returns whether the party is configured.
    pub(crate) fn hear_offer(&self, party: &PartyId) -> bool {
        let known = self.parties.iter().find(|(entry, _)| entry.party == *party);
        if let Some((_, prober)) = known {
            prober.hear_offer();
        }
        known.is_some()
    }

    /// Records that an invitation to a session of `wallet` found no worker of `party`.
    pub(crate) fn doubt(&self, party: &PartyId, wallet: WalletId) {
        if let Some((_, prober)) = self.parties.iter().find(|(entry, _)| entry.party == *party) {
            prober.doubt(wallet);
        }
    }

    /// What `party` remembers of the broker. Nothing if its version keeps nothing.
    ///
    /// # Errors
    /// Why it does not answer.
    pub(crate) async fn recall(&self, party: &PartyId) -> Result<Vec<remembered::Remembered>, Refusal> {
        let prober = self.parties.iter().find(|(entry, _)| entry.party == *party).map(|(_, prober)| prober);
        let Some(prober) = prober else { return Ok(Vec::new()) };
        let reply = prober.request(&remembered::Recall).await.map_err(|unanswered| unanswered.refusal)?;
        // A worker of the version before refuses the question.
        Ok(codec::decode::<remembered::Recalled>(&reply)
            .map(|recalled| recalled.remembered)
            .unwrap_or_default())
    }

    /// The parties, and why each is silent that is.
    pub(crate) fn silences(&self) -> impl Iterator<Item = (&PartyId, Option<Refusal>)> {
        self.parties.iter().map(|(_, prober)| (prober.party(), prober.silence()))
    }

    /// Changes when a party becomes silent, and when it answers again.
    pub(crate) fn silence_changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The facts about `wallet` for accepting a job, which can wait for the parties. While no party
    /// answers, it uses their last answers.
    pub(crate) async fn wallet_or_last_word(&self, wallet: WalletId) -> WalletFacts {
        let facts = self.wallet(wallet).await;
        if facts.silence().is_none() {
            return facts;
        }
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(&wallet).map_or(facts, |entry| entry.facts.clone())
    }

    /// The facts about `wallet`, at most [`MOMENT`] old. Callers use it before they refuse a job
    /// because of an older answer.
    pub(crate) async fn wallet_anew(&self, wallet: WalletId) -> WalletFacts {
        if let Some(facts) = self.remembered(wallet)
            && facts.is_complete()
            && self.asked_within(wallet, MOMENT)
        {
            return facts;
        }
        self.refresh(wallet).await
    }

    fn asked_within(&self, wallet: WalletId, age: Duration) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(&wallet).is_some_and(|entry| entry.asked_at.elapsed() < age)
    }

    /// Recent facts about `wallet`, if a party knows it.
    fn remembered(&self, wallet: WalletId) -> Option<WalletFacts> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = remembered.get(&wallet)?;
        let is_known = entry.facts.views().next().is_some();
        let counts = is_known && !entry.is_outdated && entry.asked_at.elapsed() < self.max_age;
        counts.then(|| entry.facts.clone())
    }

    /// Marks the facts about `wallet` as outdated, so that they are fetched again.
    pub(crate) fn forget(&self, wallet: WalletId) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = remembered.get_mut(&wallet) {
            entry.is_outdated = true;
        }
    }

    /// Marks the facts about `wallet` as outdated, unless they are at most [`MOMENT`] old. So many
    /// jobs that wait for one wallet do not cause as many questions.
    pub(crate) fn forget_older(&self, wallet: WalletId) {
        if !self.asked_within(wallet, MOMENT) {
            self.forget(wallet);
        }
    }

    /// Asks every party about `wallet`.
    pub(crate) async fn refresh(&self, wallet: WalletId) -> WalletFacts {
        self.ask_about(wallet, BTreeMap::new()).await
    }

    /// Asks the parties about `wallet` that are not among the `known` answers.
    async fn ask_about(&self, wallet: WalletId, known: BTreeMap<PartyId, Answer>) -> WalletFacts {
        let unknown = self.parties.iter().filter(|(entry, _)| !known.contains_key(&entry.party));
        let asked = join_all(unknown.map(|(entry, prober)| async move {
            let party = &entry.party;
            let answer = match prober.wallet(wallet).await {
                Ok(CardReply::Wallet { wallet: info })
                    if info.id == wallet && speaks_for_itself(&info, entry) =>
                {
                    Answer::Known(info)
                }
                Ok(CardReply::Refused(Refusal { code: Code::UnknownWallet | Code::NotFound, .. })) => {
                    Answer::Unknown
                }
                Ok(CardReply::Refused(refusal)) => Answer::Silent(refusal),
                Ok(_) => {
                    tracing::warn!(%party, %wallet, "a party's answer about a wallet is not of the expected kind");
                    Answer::Silent(Refusal::new(
                        Code::PeerMisbehaved,
                        format!("the answer of {party} is not of the expected kind"),
                    ))
                }
                Err(refusal) => Answer::Silent(refusal),
            };
            (party.clone(), answer)
        }))
        .await;
        let is_all = known.values().all(|answer| matches!(answer, Answer::Silent(_)));
        let facts = WalletFacts { answers: known.into_iter().chain(asked).collect() };
        self.remember(wallet, facts.clone(), is_all);
        facts
    }

    /// Remembers the facts. `is_all` is whether they are all new. Otherwise some are as old as the
    /// remembered ones.
    fn remember(&self, wallet: WalletId, facts: WalletFacts, is_all: bool) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if facts.silence().is_some() {
            if let Some(entry) = remembered.get_mut(&wallet) {
                entry.is_outdated = true;
            }
            return;
        }
        if facts.is_unknown() {
            remembered.remove(&wallet);
            return;
        }
        if remembered.len() >= MAX_REMEMBERED_WALLETS
            && !remembered.contains_key(&wallet)
            && let Some(oldest) = remembered.iter().min_by_key(|(_, r)| r.asked_at).map(|(id, _)| *id)
        {
            remembered.remove(&oldest);
        }
        let earlier = remembered.get(&wallet).filter(|_| !is_all).map(|entry| entry.asked_at);
        let asked_at = earlier.unwrap_or_else(Instant::now);
        remembered.insert(wallet, Remembered { facts, asked_at, is_outdated: false });
    }

    /// A page of `tenant`'s wallets after `after`, and whether there are more.
    ///
    /// # Errors
    /// When no party answers.
    pub(crate) async fn list(
        &self,
        tenant: &TenantId,
        after: Option<WalletId>,
        limit: usize,
    ) -> Result<(Vec<WalletFacts>, bool), Refusal> {
        let listings = join_all(self.parties.iter().map(|(entry, prober)| async move {
            (entry.party.clone(), list_of(entry, prober, tenant, after, limit).await)
        }))
        .await;
        let mut found: BTreeMap<WalletId, BTreeMap<PartyId, Answer>> = BTreeMap::new();
        let (mut silent, mut more, mut answered) = (Vec::new(), false, false);
        // A party that listed its wallets only up to some id says nothing about later ones.
        let mut told_up_to: Option<WalletId> = None;
        for (party, listing) in listings {
            match listing {
                Ok((wallets, party_has_more)) => {
                    answered = true;
                    if party_has_more && let Some(last) = wallets.last() {
                        more = true;
                        told_up_to = Some(told_up_to.map_or(last.id, |id| id.min(last.id)));
                    }
                    for info in wallets {
                        found
                            .entry(info.id)
                            .or_default()
                            .insert(party.clone(), Answer::Known(Box::new(info)));
                    }
                }
                Err(refusal) => silent.push((party, refusal)),
            }
        }
        if !answered {
            return Err(silent.into_iter().next().map_or_else(
                || Refusal::new(Code::NoPairAvailable, "no parties are configured"),
                |(_, refusal)| refusal,
            ));
        }
        let mut wallets = Vec::new();
        for (id, mut answers) in found {
            if wallets.len() == limit || told_up_to.is_some_and(|last| id > last) {
                more = true;
                break;
            }
            for party in self.parties() {
                let refusal =
                    silent.iter().find(|(name, _)| name == party).map(|(_, refusal)| refusal.clone());
                answers
                    .entry(party.clone())
                    .or_insert_with(|| refusal.map_or(Answer::Unknown, Answer::Silent));
            }
            wallets.push(WalletFacts { answers });
        }
        Ok((wallets, more))
    }
}

/// Up to `limit` + 1 of `tenant`'s wallets at `party`, and whether there are more.
async fn list_of(
    entry: &PartyEntry,
    prober: &Prober,
    tenant: &TenantId,
    mut after: Option<WalletId>,
    limit: usize,
) -> Result<(Vec<WalletInfo>, bool), Refusal> {
    let party = &entry.party;
    if let Some(silence) = prober.silence() {
        return Err(silence);
    }
    let mut own = Vec::new();
    for _ in 0..MAX_PAGES_PER_LISTING {
        let request = CardRequest::Wallets { after, limit: MAX_WALLETS_PER_PAGE };
        let (page, more) = match prober.ask(&request).await.map_err(|unanswered| unanswered.refusal)? {
            CardReply::Wallets { wallets, more } => (wallets, more),
            CardReply::Refused(refusal) => return Err(refusal),
            _ => {
                return Err(Refusal::new(
                    Code::PeerMisbehaved,
                    format!("the answer of {party} is not of the expected kind"),
                ));
            }
        };
        let last = page.last().map(|info| info.id);
        // A page that does not advance would be requested for ever.
        let leads_on = last.is_some() && last > after;
        own.extend(page.into_iter().filter(|info| info.tenant == *tenant && speaks_for_itself(info, entry)));
        if own.len() > limit {
            return Ok((own, true));
        }
        if !more || !leads_on {
            return Ok((own, false));
        }
        after = last;
    }
    Ok((own, true))
}

/// Whether the party describes its own share in `info`.
fn speaks_for_itself(info: &WalletInfo, entry: &PartyEntry) -> bool {
    info.index == entry.index && info.party(info.index).is_some_and(|own| own.party == entry.party)
}

#[cfg(test)]
mod tests {
    use duet_protocol::ids::{CardFingerprint, Epoch, PaillierKeyId};
    use duet_wire::wallet::{Initiates, RequesterInfo, RespondsTo};

    use super::*;

    const DEVICE_KEY: PaillierKeyId = PaillierKeyId([1; 16]);
    const SERVICE_KEY: PaillierKeyId = PaillierKeyId([2; 16]);

    fn name(text: &str) -> PartyId {
        text.parse().unwrap()
    }

    /// An answer of the holder of `index` about the wallet.
    fn info(index: ShareIndex) -> WalletInfo {
        let holder = |party: &str, key: u8| {
            Some(WalletParty { party: name(party), card: CardFingerprint([key; 32]), signing_key: [key; 32] })
        };
        let enrolled = |initiator, paillier_key| RespondsTo { initiator, paillier_key };
        let mut info = WalletInfo {
            id: WalletId([7; 32]),
            epoch: Epoch(0),
            // The generator: any point serves.
            public_key: hex::decode("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
                .unwrap()
                .try_into()
                .unwrap(),
            chain_code: [3; 32],
            address: [4; 20],
            tenant: "acme".parse().unwrap(),
            parties: [holder("device", 1), holder("service", 2), holder("partner", 3)],
            requesters: vec![RequesterInfo { key: [5; 32], kinds: vec![PayloadKindTag::Transaction] }],
            index,
            status: WalletStatus::Committed,
            responds_to: vec![enrolled(ShareIndex::Device, DEVICE_KEY)],
            initiates: vec![],
        };
        if index == ShareIndex::Partner {
            info.responds_to.push(enrolled(ShareIndex::Service, SERVICE_KEY));
        } else {
            info.initiates.push(Initiates {
                paillier_key: SERVICE_KEY,
                responders: vec![name("partner")],
                state: InitiatorState::Ready,
            });
        }
        info
    }

    fn facts(service: Answer, partner: Answer) -> WalletFacts {
        WalletFacts { answers: [(name("service"), service), (name("partner"), partner)].into() }
    }

    fn known(info: WalletInfo) -> Answer {
        Answer::Known(Box::new(info))
    }

    fn both() -> WalletFacts {
        facts(known(info(ShareIndex::Service)), known(info(ShareIndex::Partner)))
    }

    #[test]
    fn a_key_is_disputed_when_two_describe_it_differently() {
        assert!(both().is_undisputed());
        assert!(facts(known(info(ShareIndex::Service)), Answer::Unknown).is_undisputed());
        let lies: [fn(&mut WalletInfo); 3] = [
            |info| info.public_key[32] ^= 1,
            |info| info.chain_code[0] ^= 1,
            |info| {
                if let Some(device) = &mut info.parties[0] {
                    device.signing_key = [9; 32];
                }
            },
        ];
        for lie in lies {
            let mut lying = info(ShareIndex::Service);
            lie(&mut lying);
            assert!(!facts(known(lying), known(info(ShareIndex::Partner))).is_undisputed());
        }
    }

    #[test]
    fn a_root_is_what_every_holder_says() {
        let tenant: TenantId = "acme".parse().unwrap();
        let refused = |facts: WalletFacts| facts.agreed_root(&tenant).unwrap_err().code;
        let root = both().agreed_root(&tenant).unwrap();
        assert_eq!(root.public_key().to_bytes(), info(ShareIndex::Service).public_key);
        let honest = || known(info(ShareIndex::Service));
        let mut prepared = info(ShareIndex::Partner);
        prepared.status = WalletStatus::Prepared;
        assert_eq!(refused(facts(honest(), known(prepared))), Code::NotEnrolled);
        let lies: [fn(&mut WalletInfo); 4] = [
            |info| info.public_key[0] ^= 1,
            |info| info.chain_code[0] ^= 1,
            |info| info.tenant = "other".parse().unwrap(),
            |info| {
                info.public_key[0] ^= 1;
                info.parties[1] = None;
            },
        ];
        for lie in lies {
            let mut lying = info(ShareIndex::Partner);
            lie(&mut lying);
            assert_eq!(refused(facts(honest(), known(lying.clone()))), Code::PeerMisbehaved);
            // A liar gains nothing while the other holder is away, or does not know the wallet.
            let away = Answer::Silent(Refusal::new(Code::PartyAway, "away"));
            if lying.tenant == tenant {
                assert_eq!(refused(facts(away, known(lying.clone()))), Code::PartyAway);
            }
            if lying.parties[1].is_some() && lying.tenant == tenant {
                assert!(facts(Answer::Unknown, known(lying)).agreed_root(&tenant).is_err());
            }
        }
        assert_eq!(refused(facts(Answer::Unknown, Answer::Unknown)), Code::UnknownWallet);
        let other = "other".parse().unwrap();
        assert_eq!(both().agreed_root(&other).unwrap_err().code, Code::UnknownWallet);
    }

    /// Why `pair` cannot sign when the service's answer is changed by `change`.
    fn refusal(pair: Pair, change: impl FnOnce(&mut WalletInfo)) -> Code {
        let mut service = info(ShareIndex::Service);
        change(&mut service);
        facts(known(service), known(info(ShareIndex::Partner))).terms(pair).unwrap_err().code
    }

    #[test]
    fn every_pair_has_its_terms() {
        let facts = both();
        for (pair, key, initiator, responder) in [
            (Pair::DeviceService, DEVICE_KEY, "device", "service"),
            (Pair::DevicePartner, DEVICE_KEY, "device", "partner"),
            (Pair::ServicePartner, SERVICE_KEY, "service", "partner"),
        ] {
            let terms = facts.terms(pair).unwrap();
            assert_eq!(terms.paillier_key, key);
            assert_eq!((terms.initiator.party, terms.responder.party), (name(initiator), name(responder)));
        }
    }

    #[test]
    fn what_keeps_a_pair_from_signing_is_named() {
        let pair = Pair::ServicePartner;
        assert_eq!(refusal(pair, |info| info.initiates[0].state = InitiatorState::Locked), Code::Locked);
        assert_eq!(
            refusal(pair, |info| info.initiates[0].state = InitiatorState::NeedsRotation),
            Code::NeedsRotation
        );
        assert_eq!(refusal(pair, |info| info.initiates.clear()), Code::NotEnrolled);
        assert_eq!(
            refusal(pair, |info| info.initiates[0].paillier_key = PaillierKeyId([9; 16])),
            Code::StalePaillierKey
        );
        assert_eq!(refusal(pair, |info| info.epoch = Epoch(1)), Code::StaleEpoch);
        assert_eq!(refusal(pair, |info| info.status = WalletStatus::Prepared), Code::NotEnrolled);
        assert_eq!(refusal(Pair::DeviceService, |info| info.responds_to.clear()), Code::NotEnrolled);
    }

    #[test]
    fn a_silent_party_is_told_from_one_that_does_not_know() {
        let silence = Refusal::new(Code::Deadline, "no answer");
        let facts_with_silence = facts(Answer::Silent(silence.clone()), known(info(ShareIndex::Partner)));
        assert_eq!(facts_with_silence.terms(Pair::ServicePartner), Err(silence));
        // The pair that does not need it can sign.
        assert!(facts_with_silence.terms(Pair::DevicePartner).is_ok());
        let unknown = facts(Answer::Unknown, known(info(ShareIndex::Partner)));
        assert_eq!(unknown.terms(Pair::ServicePartner).unwrap_err().code, Code::UnknownWallet);
        assert!(!unknown.is_unknown());
        assert!(facts(Answer::Unknown, Answer::Unknown).is_unknown());
        // Every party that answers says so.
        let silent = || Answer::Silent(Refusal::new(Code::PartyAway, "away"));
        assert!(facts(Answer::Unknown, silent()).is_unknown());
        assert!(!facts(silent(), silent()).is_unknown());
    }

    #[test]
    fn a_party_speaks_for_its_own_share_only() {
        let service = PartyEntry { party: name("service"), index: ShareIndex::Service };
        assert!(speaks_for_itself(&info(ShareIndex::Service), &service));
        assert!(!speaks_for_itself(&info(ShareIndex::Partner), &service));
        let mut usurper = info(ShareIndex::Service);
        usurper.parties[1].as_mut().unwrap().party = name("partner");
        assert!(!speaks_for_itself(&usurper, &service));
        let partner = PartyEntry { party: name("partner"), index: ShareIndex::Partner };
        assert!(!speaks_for_itself(&usurper, &partner));
    }

    #[test]
    fn card_keys_are_the_seats() {
        let facts = both();
        let seat = |party: &str, index| Seat { party: name(party), index };
        let pair = Pair::DeviceService;
        assert_eq!(facts.card_key(pair, &seat("device", ShareIndex::Device)), Ok([1; 32]));
        assert_eq!(facts.card_key(pair, &seat("service", ShareIndex::Service)), Ok([2; 32]));
        assert!(facts.card_key(pair, &seat("partner", ShareIndex::Service)).is_err());
        assert_eq!(facts.device_keys(), [[1; 32]]);
    }

    #[test]
    fn requesters_and_kinds_are_told_apart() {
        let facts = both();
        assert_eq!(facts.allows(&[5; 32], PayloadKindTag::Transaction), Ok(()));
        let refused = |key: &[u8; 32], kind| facts.allows(key, kind).unwrap_err().code;
        assert_eq!(refused(&[5; 32], PayloadKindTag::Digest), Code::KindNotAllowed);
        assert_eq!(refused(&[6; 32], PayloadKindTag::Transaction), Code::RequesterNotAllowed);
    }
}
