//! Dealing in steps: the proofs for the receivers are tasks for helpers beside the one that deals.

use duet_at_rest::device::OwnerKey;
use duet_protocol::{
    arithmetic::default_arithmetic,
    codec,
    dealing::{Drawn, Encrypted},
    ids::ShareIndex,
    proof_task::{MadeProofs, ProofTask},
};
use js_sys::{Array, Function, Uint8Array};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};
use zeroize::Zeroizing;

use crate::{
    convert::{decode_all, encoded, system_rng, task_bytes},
    dealt::DealtWallet,
    failure::{Failure, outcome},
    listener::Listener,
    object::object,
};

/// Does the proof task of a [`DrawnWallet`] or a rotation, which comes from this page's own code
/// only. Takes more than a second. The task is **secret**: wipe it afterwards. What comes back is
/// not.
#[wasm_bindgen(js_name = makeProofs, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn make_proofs(task: Vec<u8>) -> JsValue {
    outcome(made(&Zeroizing::new(task)))
}

fn made(task: &[u8]) -> Result<JsValue, Failure> {
    let task: ProofTask = codec::decode(task)?;
    encoded(&task.prove(default_arithmetic(), &mut system_rng()).map_err(Failure::misuse)?)
}

/// A wallet whose shares and keys are drawn; nothing of it is proved or sealed yet.
#[wasm_bindgen]
pub struct DrawnWallet {
    drawn: Drawn,
    owner: OwnerKey,
}

impl DrawnWallet {
    pub(crate) const fn new(drawn: Drawn, owner: OwnerKey) -> Self {
        Self { drawn, owner }
    }

    fn task_list(&self) -> Result<Array, Failure> {
        self.drawn
            .proof_tasks()
            .map(|(share, task)| Ok(object([("share", share_number(share)), ("task", task_bytes(&task)?)])))
            .collect()
    }
}

fn share_number(index: ShareIndex) -> JsValue {
    u8::from(index).into()
}

#[wasm_bindgen]
impl DrawnWallet {
    /// The proofs to make, one task for each receiver, each for `makeProofs` in a helper. They are
    /// **secret**: hand them to helpers of this page and wipe them.
    #[wasm_bindgen(unchecked_return_type = "Result<{ share: 2 | 3; task: Uint8Array }[]>")]
    #[must_use]
    pub fn tasks(&self) -> JsValue {
        outcome(self.task_list())
    }

    /// Encrypts the device's share for each receiver, while the helpers prove.
    #[wasm_bindgen(unchecked_return_type = "Result<EncryptedWallet>")]
    #[must_use]
    pub fn encrypt(self) -> JsValue {
        let Self { drawn, owner } = self;
        let encrypted = drawn.encrypt(&mut system_rng()).map_err(Failure::misuse);
        outcome(encrypted.map(|encrypted| EncryptedWallet { encrypted, owner }))
    }
}

/// A drawn wallet that lacks only its proofs.
#[wasm_bindgen]
pub struct EncryptedWallet {
    encrypted: Encrypted,
    owner: OwnerKey,
}

#[wasm_bindgen]
impl EncryptedWallet {
    /// Seals the packages, with what `makeProofs` made of every task. Store what comes back before
    /// the first package is sent.
    #[wasm_bindgen(unchecked_return_type = "Result<DealtWallet>")]
    #[must_use]
    pub fn assemble(
        self,
        proofs: Vec<Uint8Array>,
        #[wasm_bindgen(unchecked_param_type = "((progress: KeygenProgress) => void) | undefined")]
        on_progress: Option<Function>,
    ) -> JsValue {
        outcome(self.assembled(&proofs, on_progress))
    }

    fn assembled(self, proofs: &[Uint8Array], on_progress: Option<Function>) -> Result<DealtWallet, Failure> {
        let proofs = decode_all::<MadeProofs>(proofs)?;
        let mut listener = Listener::new(on_progress);
        let dealt =
            self.encrypted.assemble(proofs, &mut listener, &mut system_rng()).map_err(Failure::misuse)?;
        Ok(DealtWallet::new(dealt, self.owner))
    }
}
