//! Dealing a wallet: the device draws everything, the backend verifies and stores.

use std::sync::Arc;

use duet_at_rest::{
    SealedRecord,
    device::{OwnerKey, StoredPending, StoredWallet},
};
use duet_protocol::{
    admission::AdmissionToken,
    arithmetic::default_arithmetic,
    card::{Card, ParametersVerdict, VerifiedCard},
    codec,
    dealing::Drawn,
    identity::IdentityKey,
    ids::{PartyId, ShareIndex, TenantId},
    keygen::{self, DealerSetup, Dealt, KeygenStep, Progress, ThirdHolder},
    paillier::ModulusSize,
    receipt::{CommitAck, Receipt, ReceiptBundle},
    share::{KeyShare, PayloadKindTag, Requester},
};
use js_sys::{Array, Function, Uint8Array};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};
use zeroize::Zeroizing;

use crate::{
    backup,
    convert::{array, bytes, encoded, milliseconds, object, parse, system_rng},
    dealing::DrawnWallet,
    failure::{Failure, outcome},
    keys::KeyEncryptionKey,
    primes::paillier_key,
    wallet::DeviceWallet,
};

/// A party whose card was checked: one that answers a device.
#[wasm_bindgen]
pub struct Responder(pub(crate) VerifiedCard);

#[wasm_bindgen]
impl Responder {
    /// Checks a card against its pinned fingerprint (64 hexadecimal digits) and verifies the proof
    /// of its parameters, which takes more than half a second.
    #[wasm_bindgen(unchecked_return_type = "Result<Responder>")]
    #[must_use]
    pub fn verify(card: &[u8], fingerprint: &str) -> JsValue {
        outcome(verified_card(card, fingerprint).map(Self))
    }

    /// The same when this very card was verified before, by this page's own code: in a helper
    /// worker beside the one that asks, whose `Responder.verify` gave this fingerprint.
    #[wasm_bindgen(js_name = verifiedElsewhere, unchecked_return_type = "Result<Responder>")]
    #[must_use]
    pub fn verified_elsewhere(card: &[u8], fingerprint: &str) -> JsValue {
        outcome(believed_card(card, fingerprint).map(Self))
    }

    /// The party's name.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn party(&self) -> String {
        self.0.card().party().to_string()
    }

    /// The verified card's fingerprint, 64 hexadecimal digits.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.card().fingerprint().to_string()
    }
}

fn verified_card(card: &[u8], fingerprint: &str) -> Result<VerifiedCard, Failure> {
    let card: Arc<Card> = Arc::new(codec::decode(card)?);
    Ok(VerifiedCard::verify(card, &parse("fingerprint", fingerprint)?, default_arithmetic())?)
}

/// A card that was verified in a helper of this page.
fn believed_card(card: &[u8], fingerprint: &str) -> Result<VerifiedCard, Failure> {
    let card: Arc<Card> = Arc::new(codec::decode(card)?);
    let fingerprint = parse("fingerprint", fingerprint)?;
    let verdict = ParametersVerdict::of_trusted_verification(fingerprint);
    Ok(VerifiedCard::with_verdict(card, &fingerprint, &verdict, default_arithmetic())?)
}

/// A backend party that gets a share: its card, checked, and its admission token.
#[wasm_bindgen]
pub struct Backend(keygen::Backend);

#[wasm_bindgen]
impl Backend {
    /// Adds a party's admission token to its checked card. The token has to be the party's own,
    /// signed by the card's key; whether it still admits a wallet is for the party to say.
    #[wasm_bindgen(unchecked_return_type = "Result<Backend>")]
    #[must_use]
    pub fn create(responder: &Responder, token: &[u8]) -> JsValue {
        outcome(Self::admitted(responder, token))
    }

    fn admitted(responder: &Responder, token: &[u8]) -> Result<Self, Failure> {
        let token: AdmissionToken = codec::decode(token)?;
        let card = responder.0.card();
        token.admit(card.party(), card.identity(), token.tenant(), 0, 0)?;
        Ok(Self(keygen::Backend { card: responder.0.clone(), token }))
    }

    /// The party's name.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn party(&self) -> String {
        self.0.card.card().party().to_string()
    }

    /// The verified card's fingerprint, 64 hexadecimal digits.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn fingerprint(&self) -> String {
        ParametersVerdict::fingerprint(&self.0.card.verdict()).to_string()
    }
}

/// Whose admission token it is, and which tenant's wallets it admits. The signature on it counts
/// only with the party's card, in `Backend.create`.
#[wasm_bindgen(js_name = admissionFacts, unchecked_return_type = "Result<{ party: string; tenant: string }>")]
#[must_use]
pub fn admission_facts(token: &[u8]) -> JsValue {
    outcome(codec::decode::<AdmissionToken>(token).map_err(Failure::from).map(|token| {
        object([("party", token.party().as_str().into()), ("tenant", token.tenant().as_str().into())])
    }))
}

/// What a wallet is dealt from. The third share goes to the owner's backup unless a partner is
/// named.
#[wasm_bindgen]
pub struct WalletSetup {
    tenant: TenantId,
    device: PartyId,
    service: keygen::Backend,
    partner: Option<keygen::Backend>,
    requesters: Vec<Requester>,
    modulus: ModulusSize,
    owner: OwnerKey,
}

#[wasm_bindgen]
impl WalletSetup {
    /// A wallet of `tenant`, held by the party `device` and a service. The key that signs its
    /// owner's requests is drawn here and stays with the wallet.
    #[wasm_bindgen(unchecked_return_type = "Result<WalletSetup>")]
    #[must_use]
    pub fn create(tenant: &str, device: &str, service: &Backend) -> JsValue {
        outcome(Self::parsed(tenant, device, service))
    }

    fn parsed(tenant: &str, device: &str, service: &Backend) -> Result<Self, Failure> {
        let owner = OwnerKey::generate(&mut system_rng());
        Ok(Self {
            tenant: parse("tenant", tenant)?,
            device: parse("device", device)?,
            service: service.0.clone(),
            partner: None,
            requesters: vec![Requester::new(identity(&owner.public())?)],
            modulus: ModulusSize::Bits2048,
            owner,
        })
    }

    /// Gives the third share to another organisation's party instead of a backup.
    #[wasm_bindgen(js_name = setPartner)]
    pub fn set_partner(&mut self, partner: &Backend) {
        self.partner = Some(partner.0.clone());
    }

    /// Lets the owner, too, have bare digests signed: blind signing.
    #[wasm_bindgen(js_name = allowDigests)]
    pub fn allow_digests(&mut self) {
        if let Some(owner) = self.requesters.first_mut() {
            *owner = owner.clone().with_digest();
        }
    }

    /// Lets another Ed25519 key (32 bytes) ask for signatures over some kinds of payload.
    #[wasm_bindgen(js_name = addRequester, unchecked_return_type = "Result<undefined>")]
    pub fn add_requester(
        &mut self,
        key: &[u8],
        #[wasm_bindgen(unchecked_param_type = "PayloadKind[]")] kinds: Vec<String>,
    ) -> JsValue {
        let parsed = kinds
            .iter()
            .map(|kind| match kind.as_str() {
                "transaction" => Ok(PayloadKindTag::Transaction),
                "personal_message" => Ok(PayloadKindTag::PersonalMessage),
                "typed_data" => Ok(PayloadKindTag::TypedData),
                "digest" => Ok(PayloadKindTag::Digest),
                _ => Err(Failure::malformed("kinds", format_args!("there is no kind `{kind}`"))),
            })
            .collect::<Result<Vec<_>, _>>();
        outcome(parsed.and_then(|kinds| {
            self.requesters.push(Requester { key: identity(key)?, kinds });
            Ok(JsValue::UNDEFINED)
        }))
    }

    /// Makes the Paillier modulus 3072 bits long instead of 2048.
    #[wasm_bindgen(js_name = useLongModulus)]
    pub fn use_long_modulus(&mut self) {
        self.modulus = ModulusSize::Bits3072;
    }

    /// Deals the wallet at `now` (milliseconds since 1970). Takes seconds. Store what comes back
    /// before the first package is sent.
    #[wasm_bindgen(unchecked_return_type = "Result<DealtWallet>")]
    #[must_use]
    pub fn deal(
        self,
        now: f64,
        #[wasm_bindgen(unchecked_param_type = "((progress: KeygenProgress) => void) | undefined")]
        on_progress: Option<Function>,
    ) -> JsValue {
        outcome(self.dealt(now, on_progress))
    }

    /// The first of the steps of dealing with helpers: takes the two primes of the Paillier key,
    /// which helpers searched with `findPrime`, and draws everything else. Wipe the primes
    /// afterwards.
    #[wasm_bindgen(unchecked_return_type = "Result<DrawnWallet>")]
    #[must_use]
    pub fn draw(
        self,
        p: Vec<u8>,
        q: Vec<u8>,
        now: f64,
        #[wasm_bindgen(unchecked_param_type = "((progress: KeygenProgress) => void) | undefined")]
        on_progress: Option<Function>,
    ) -> JsValue {
        let (p, q) = (Zeroizing::new(p), Zeroizing::new(q));
        outcome(self.drawn(&p, &q, now, on_progress))
    }

    fn drawn(
        self,
        p: &[u8],
        q: &[u8],
        now: f64,
        on_progress: Option<Function>,
    ) -> Result<DrawnWallet, Failure> {
        let paillier = paillier_key(self.device.clone(), self.modulus, p, q)?;
        let (setup, owner) = self.dealer(now)?;
        let mut listener = Listener::new(on_progress);
        let drawn = Drawn::draw(&setup, Some(paillier), &mut listener, &mut system_rng());
        Ok(DrawnWallet::new(drawn.map_err(Failure::misuse)?, owner))
    }

    fn dealt(self, now: f64, on_progress: Option<Function>) -> Result<DealtWallet, Failure> {
        let (setup, owner) = self.dealer(now)?;
        let dealt = keygen::deal(&setup, &mut Listener::new(on_progress), &mut system_rng());
        Ok(DealtWallet::new(dealt.map_err(Failure::misuse)?, owner))
    }

    fn dealer(self, now: f64) -> Result<(DealerSetup, OwnerKey), Failure> {
        let setup = DealerSetup {
            tenant: self.tenant,
            device: self.device,
            service: self.service,
            third: self.partner.map_or(ThirdHolder::Backup, ThirdHolder::Partner),
            requesters: self.requesters,
            modulus: self.modulus,
            generation: milliseconds(now)?,
            arithmetic: default_arithmetic(),
        };
        Ok((setup, self.owner))
    }
}

fn identity(key: &[u8]) -> Result<IdentityKey, Failure> {
    IdentityKey::from_bytes(&array("key", key)?).map_err(|why| Failure::malformed("key", why))
}

/// Passes the dealer's progress on to a function.
pub(crate) struct Listener {
    on_progress: Option<Function>,
    candidates: u32,
}

impl Listener {
    pub(crate) const fn new(on_progress: Option<Function>) -> Self {
        Self { on_progress, candidates: 0 }
    }

    fn say(&self, progress: &JsValue) {
        if let Some(function) = &self.on_progress {
            // A listener that throws does not stop the dealing.
            let _ = function.call1(&JsValue::NULL, progress);
        }
    }

    fn say_step(&self, step: &str, share: Option<ShareIndex>) {
        let share = share.map(|index| ("share", u8::from(index).into()));
        self.say(&object([("step", step.into())].into_iter().chain(share)));
    }

    fn say_candidates(&self) {
        self.say(&object([("step", "paillier-key".into()), ("candidates", self.candidates.into())]));
    }
}

impl Progress for Listener {
    fn step(&mut self, step: KeygenStep) {
        match step {
            KeygenStep::Shares => self.say_step("shares", None),
            KeygenStep::PaillierKey => self.say_candidates(),
            KeygenStep::Proofs(index) => self.say_step("proofs", Some(index)),
            KeygenStep::Sealing(index) => self.say_step("sealing", Some(index)),
        }
    }

    fn candidate(&mut self) {
        self.candidates = self.candidates.saturating_add(1);
        self.say_candidates();
    }
}

/// A wallet just dealt.
#[wasm_bindgen]
pub struct DealtWallet {
    pending: Option<PendingWallet>,
    third: Option<Arc<KeyShare>>,
}

impl DealtWallet {
    pub(crate) fn new(dealt: Dealt, owner: OwnerKey) -> Self {
        let pending = PendingWallet(StoredPending::new(dealt.pending, owner));
        Self { pending: Some(pending), third: dealt.backup.map(Arc::new) }
    }
}

#[wasm_bindgen]
impl DealtWallet {
    /// The wallet to store and then to send; once.
    #[wasm_bindgen(js_name = takePending)]
    pub fn take_pending(&mut self) -> Option<PendingWallet> {
        self.pending.take()
    }

    /// Whether the third share goes to a backup file.
    #[wasm_bindgen(getter, js_name = needsBackupFile)]
    #[must_use]
    pub fn needs_backup_file(&self) -> bool {
        self.third.is_some()
    }

    /// The backup file of the third share, sealed by `passphrase`, made at `now`. It was read back:
    /// that is the share's receipt. `free` this wallet afterwards, which wipes the share. Takes
    /// seconds.
    #[wasm_bindgen(js_name = backupFile, unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn backup_file(&self, passphrase: String, now: f64, work_factor: Option<u8>) -> JsValue {
        outcome(milliseconds(now).and_then(|now_ms| match &self.third {
            Some(share) => backup::of_third(share, passphrase, now_ms, work_factor),
            None => Err(Failure::Misuse("the third share has another holder".to_owned())),
        }))
    }
}

/// A wallet that not everybody has committed yet. It does not show its address.
#[wasm_bindgen]
pub struct PendingWallet(StoredPending);

#[wasm_bindgen]
impl PendingWallet {
    /// The wallet's id, 64 hexadecimal digits.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn id(&self) -> String {
        self.0.pending().wallet().to_string()
    }

    /// Who gets which share.
    #[wasm_bindgen(getter, unchecked_return_type = "ShareHolder[]")]
    #[must_use]
    pub fn holders(&self) -> Array {
        crate::wallet::holders(self.0.pending().public())
    }

    /// The tenant.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn tenant(&self) -> String {
        self.0.pending().public().tenant().to_string()
    }

    /// The sealed packages, each to be sent until its receipt is there.
    #[wasm_bindgen(unchecked_return_type = "Delivery[]")]
    #[must_use]
    pub fn deliveries(&self) -> Array {
        self.0
            .pending()
            .deliveries()
            .iter()
            .map(|delivery| {
                object([
                    ("share", u8::from(delivery.index()).into()),
                    ("party", delivery.party().as_str().into()),
                    ("envelope", bytes(delivery.envelope())),
                ])
            })
            .collect()
    }

    /// The order to commit, once every party's receipt is there.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn bundle(&self, receipts: Vec<Uint8Array>) -> JsValue {
        outcome(self.bundled(&receipts))
    }

    fn bundled(&self, receipts: &[Uint8Array]) -> Result<JsValue, Failure> {
        let receipts = decode_all::<Receipt>(receipts)?;
        encoded(&self.0.pending().bundle(&receipts)?)
    }

    /// The wallet, once every party has acknowledged the commit. On a refusal this pending wallet
    /// can be used further.
    #[wasm_bindgen(unchecked_return_type = "Result<DeviceWallet>")]
    #[must_use]
    pub fn finish(&self, bundle: &[u8], acknowledgements: Vec<Uint8Array>) -> JsValue {
        outcome(self.finished(bundle, &acknowledgements))
    }

    fn finished(&self, bundle: &[u8], acknowledgements: &[Uint8Array]) -> Result<DeviceWallet, Failure> {
        let bundle: ReceiptBundle = codec::decode(bundle)?;
        let acknowledgements = decode_all::<CommitAck>(acknowledgements)?;
        // The caller keeps this object, to ask again after a refusal.
        let again = self.0.pending().to_secret_bytes().map_err(Failure::misuse)?;
        let pending = keygen::PendingWallet::from_secret_bytes(&again, default_arithmetic())
            .map_err(Failure::misuse)?;
        let finished = pending.finish(&bundle, &acknowledgements).map_err(|(_, refusal)| refusal)?;
        StoredWallet::new(&finished, self.0.owner().clone()).map(DeviceWallet::new).map_err(Failure::misuse)
    }

    /// The record, sealed, to store before anything is sent.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn seal(&self, key: &KeyEncryptionKey) -> JsValue {
        outcome(self.0.seal(&key.0).map(|record| bytes(record.as_bytes())).map_err(Failure::from))
    }

    /// Opens what `seal` sealed for this wallet id.
    #[wasm_bindgen(unchecked_return_type = "Result<PendingWallet>")]
    #[must_use]
    pub fn open(record: Vec<u8>, key: &KeyEncryptionKey, wallet: &str) -> JsValue {
        outcome(parse("wallet", wallet).and_then(|wallet| {
            StoredPending::open(&SealedRecord::from_bytes(record), &key.0, wallet, default_arithmetic())
                .map(Self)
                .map_err(Failure::from)
        }))
    }
}

pub(crate) fn decode_all<M: codec::Message>(all: &[Uint8Array]) -> Result<Vec<M>, Failure> {
    all.iter().map(|one| codec::decode(&one.to_vec()).map_err(Failure::from)).collect()
}
