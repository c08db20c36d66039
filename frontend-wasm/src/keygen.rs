//! Dealing a wallet: the device draws everything, the backend verifies and stores.

use duet_at_rest::device::OwnerKey;
use duet_protocol::{
    admission::AdmissionToken,
    arithmetic::default_arithmetic,
    card::ParametersCheck,
    codec,
    dealing::Drawn,
    identity::IdentityKey,
    ids::{PartyId, TenantId},
    keygen::{self, DealerSetup, ThirdHolder},
    paillier::ModulusSize,
    share::{PayloadKindTag, Requester},
};
use js_sys::Function;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};
use zeroize::Zeroizing;

use crate::{
    convert::{array, milliseconds, parse, system_rng},
    dealing::DrawnWallet,
    dealt::DealtWallet,
    failure::{Failure, outcome},
    listener::Listener,
    object::object,
    primes::paillier_key,
    responder::Responder,
};

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
        ParametersCheck::fingerprint(&self.0.card.check()).to_string()
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
