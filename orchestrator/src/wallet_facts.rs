//! What the parties say of one wallet, and what an orchestrator makes of it: whether a job may be
//! accepted, which pair could sign, which key a result must verify under.

use std::collections::BTreeMap;

use duet_protocol::{
    extended_key::ExtendedPublicKey,
    ids::{PartyId, ShareIndex},
    public_key::{ChainCode, DerivationPath, PublicKey},
};
use duet_queue::{
    intake::unknown_wallet,
    terms::{PairTerms, Terms},
};
use duet_wire::{
    Code, Pair, PayloadKindTag, Refusal, Seat, TenantId, WalletInfo,
    wallet::{InitiatorState, WalletParty, WalletStatus},
};

use crate::api::{PairView, WalletView};

/// One party's answer about a wallet.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Known(Box<WalletInfo>),
    Unknown,
    Silent(Refusal),
}

/// The parties' answers about one wallet.
#[derive(Debug, Clone)]
pub(crate) struct WalletFacts {
    pub(crate) answers: BTreeMap<PartyId, Answer>,
}

impl WalletFacts {
    /// The answers of the parties that know the wallet.
    pub(crate) fn views(&self) -> impl Iterator<Item = &WalletInfo> {
        self.answers.values().filter_map(|answer| match answer {
            Answer::Known(info) => Some(&**info),
            Answer::Unknown | Answer::Silent(_) => None,
        })
    }

    /// Whether every party has answered.
    pub(crate) fn is_complete(&self) -> bool {
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

/// A party that the orchestrator works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartyEntry {
    /// Its name.
    pub party: PartyId,
    /// The share of its wallets that it holds: 2 for a service, 3 for a partner. Its answers count
    /// for that share only, so that no party can take another's seat.
    pub index: ShareIndex,
}

/// Whether the party describes its own share in `info`.
pub(crate) fn speaks_for_itself(info: &WalletInfo, entry: &PartyEntry) -> bool {
    info.index == entry.index && info.party(info.index).is_some_and(|own| own.party == entry.party)
}

#[cfg(test)]
mod tests {
    use duet_protocol::ids::{CardFingerprint, Epoch, PaillierKeyId, WalletId};
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
