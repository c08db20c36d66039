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
    ids::{PartyId, WalletId},
};
use duet_wire::{
    Code, Refusal, TenantId, WalletInfo,
    card_request::{CardReply, CardRequest, MAX_WALLETS_PER_PAGE},
    remembered,
};
use futures::future::join_all;
use tokio::{sync::watch, time::Instant};

use crate::{
    prober::Prober,
    wallet_facts::{Answer, PartyEntry, WalletFacts, speaks_for_itself},
};

/// How old an answer may be when a job is refused because of it. So a burst of refusals does not
/// cause as many questions.
const MOMENT: Duration = Duration::from_secs(1);

/// How many wallets are remembered, some 2 KiB each. Beyond that the one fetched longest ago is
/// dropped.
const MAX_REMEMBERED_WALLETS: usize = 16_384;

/// How many pages one party is asked for to build one page of a tenant's wallets.
const MAX_PAGES_PER_LISTING: usize = 64;

struct Remembered {
    facts: WalletFacts,
    asked_at: Instant,
    /// Whether the facts are outdated, so that they have to be fetched again.
    is_outdated: bool,
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
