//! Dealing a wallet: the device draws everything, the backend verifies and stores.

use std::sync::Arc;

use duet_protocol::{
    admission::AdmissionToken,
    arithmetic::{Arithmetic, default_arithmetic},
    card::{Card, ParametersVerdict, VerifiedCard},
    codec,
    identity::IdentityKey,
    ids::{PartyId, ShareIndex, TenantId},
    keygen::{self, DealerSetup, KeygenStep, Progress, ThirdHolder},
    paillier::ModulusSize,
    receipt::{CommitAck, Receipt, ReceiptBundle},
    share::{PayloadKindTag, Requester},
};
use js_sys::{Array, Function, Uint8Array};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    convert::{array, bytes, milliseconds, object, parse, system_rng},
    failure::{Failure, outcome},
    wallet::DeviceWallet,
};

/// A backend party that gets a share: its card, checked, and its admission token.
#[wasm_bindgen]
pub struct Backend(keygen::Backend);

#[wasm_bindgen]
impl Backend {
    /// Checks a card against its pinned fingerprint (64 hexadecimal digits) and verifies the proof of
    /// its parameters, which takes about a second.
    #[wasm_bindgen(unchecked_return_type = "Result<Backend>")]
    #[must_use]
    pub fn verify(card: &[u8], fingerprint: &str, token: &[u8]) -> JsValue {
        outcome(Self::checked(card, fingerprint, token))
    }

    fn checked(card: &[u8], fingerprint: &str, token: &[u8]) -> Result<Self, Failure> {
        let card: Arc<Card> = Arc::new(codec::decode(card)?);
        let token: AdmissionToken = codec::decode(token)?;
        let fingerprint = parse("fingerprint", fingerprint)?;
        Ok(Self(keygen::Backend {
            card: VerifiedCard::verify(card, &fingerprint, default_arithmetic())?,
            token,
        }))
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

/// What a wallet is dealt from. The third share goes to the owner's backup unless a partner is named.
#[wasm_bindgen]
pub struct WalletSetup {
    tenant: TenantId,
    device: PartyId,
    service: keygen::Backend,
    partner: Option<keygen::Backend>,
    requesters: Vec<Requester>,
    modulus: ModulusSize,
}

#[wasm_bindgen]
impl WalletSetup {
    /// A wallet of `tenant`, held by the party `device` and a service, whose requests are signed by the
    /// owner's Ed25519 key (32 bytes).
    #[wasm_bindgen(unchecked_return_type = "Result<WalletSetup>")]
    #[must_use]
    pub fn create(tenant: &str, device: &str, service: &Backend, owner_key: &[u8]) -> JsValue {
        outcome(Self::parsed(tenant, device, service, owner_key))
    }

    fn parsed(tenant: &str, device: &str, service: &Backend, owner_key: &[u8]) -> Result<Self, Failure> {
        Ok(Self {
            tenant: parse("tenant", tenant)?,
            device: parse("device", device)?,
            service: service.0.clone(),
            partner: None,
            requesters: vec![Requester::new(identity(owner_key)?)],
            modulus: ModulusSize::Bits2048,
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
        #[wasm_bindgen(unchecked_param_type = "(progress: KeygenProgress) => void")] on_progress: Option<
            Function,
        >,
    ) -> JsValue {
        outcome(self.dealt(now, on_progress))
    }

    fn dealt(self, now: f64, on_progress: Option<Function>) -> Result<DealtWallet, Failure> {
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
        let mut listener = Listener { on_progress, candidates: 0 };
        let dealt = keygen::deal(&setup, &mut listener, &mut system_rng())
            .map_err(|error| Failure::Misuse(error.to_string()))?;
        let backup = dealt
            .backup
            .map(|share| share.to_secret_bytes().map_err(|error| Failure::Misuse(error.to_string())))
            .transpose()?;
        Ok(DealtWallet { pending: Some(PendingWallet(dealt.pending)), backup })
    }
}

fn identity(key: &[u8]) -> Result<IdentityKey, Failure> {
    IdentityKey::from_bytes(&array("key", key)?).map_err(|why| Failure::malformed("key", why))
}

/// Passes the dealer's progress on to a function.
struct Listener {
    on_progress: Option<Function>,
    candidates: u32,
}

impl Listener {
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
    backup: Option<zeroize::Zeroizing<Vec<u8>>>,
}

#[wasm_bindgen]
impl DealtWallet {
    /// The wallet to store and then to send; once.
    #[wasm_bindgen(js_name = takePending)]
    pub fn take_pending(&mut self) -> Option<PendingWallet> {
        self.pending.take()
    }

    /// The record of share 3 for the owner's backup, unsealed, if the share has no other holder; once.
    #[wasm_bindgen(js_name = takeBackup)]
    pub fn take_backup(&mut self) -> Option<Uint8Array> {
        self.backup.take().map(|share| Uint8Array::from(share.as_slice()))
    }
}

/// A wallet that not everybody has committed yet. It does not show its address.
#[wasm_bindgen]
pub struct PendingWallet(keygen::PendingWallet);

#[wasm_bindgen]
impl PendingWallet {
    /// The wallet's id, 64 hexadecimal digits.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn id(&self) -> String {
        self.0.wallet().to_string()
    }

    /// The sealed packages, each to be sent until its receipt is there.
    #[wasm_bindgen(unchecked_return_type = "Delivery[]")]
    #[must_use]
    pub fn deliveries(&self) -> Array {
        self.0
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
        let bundle = self.0.bundle(&receipts)?;
        codec::encode(&bundle).map(|b| bytes(&b)).map_err(|error| Failure::Misuse(error.to_string()))
    }

    /// The wallet, once every party has acknowledged the commit. On a refusal this pending wallet can
    /// be used further.
    #[wasm_bindgen(unchecked_return_type = "Result<DeviceWallet>")]
    #[must_use]
    pub fn finish(&self, bundle: &[u8], acknowledgements: Vec<Uint8Array>) -> JsValue {
        outcome(self.finished(bundle, &acknowledgements))
    }

    fn finished(&self, bundle: &[u8], acknowledgements: &[Uint8Array]) -> Result<DeviceWallet, Failure> {
        let bundle: ReceiptBundle = codec::decode(bundle)?;
        let acknowledgements = decode_all::<CommitAck>(acknowledgements)?;
        let again = self.0.to_secret_bytes().map_err(|error| Failure::Misuse(error.to_string()))?;
        let pending = Self::read(&again, default_arithmetic())?;
        pending
            .0
            .finish(&bundle, &acknowledgements)
            .map(DeviceWallet::new)
            .map_err(|(_, refusal)| refusal.into())
    }

    /// The record to seal and store before anything is sent.
    #[wasm_bindgen(js_name = toSecretBytes, unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn to_secret_bytes(&self) -> JsValue {
        outcome(
            self.0
                .to_secret_bytes()
                .map(|record| bytes(&record))
                .map_err(|error| Failure::Misuse(error.to_string())),
        )
    }

    /// Reads what `toSecretBytes` wrote.
    #[wasm_bindgen(js_name = fromSecretBytes, unchecked_return_type = "Result<PendingWallet>")]
    #[must_use]
    pub fn from_secret_bytes(record: &[u8]) -> JsValue {
        outcome(Self::read(record, default_arithmetic()))
    }

    fn read(record: &[u8], arithmetic: &'static dyn Arithmetic) -> Result<Self, Failure> {
        keygen::PendingWallet::from_secret_bytes(record, arithmetic)
            .map(Self)
            .map_err(|why| Failure::malformed("record", why))
    }
}

fn decode_all<M: codec::Message>(all: &[Uint8Array]) -> Result<Vec<M>, Failure> {
    all.iter().map(|one| codec::decode(&one.to_vec()).map_err(Failure::from)).collect()
}
