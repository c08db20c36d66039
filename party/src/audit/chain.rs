//! Begins a party's audit chain.

use duet_wire::audit::{ChainId, Continues, Draft, Event};
use rand_core::Rng as _;

use crate::{compute::system_rng, context::Context, error::PartyError, identity::Identity};

/// Begins the party's chain if it has none, or if the store was restored after the last one.
///
/// # Errors
/// When the store cannot be read or written.
pub(crate) async fn open(context: &Context, identity: &Identity) -> Result<(), PartyError> {
    let store = context.store();
    let newest = store.audit_chains().await?.pop();
    if newest.is_some_and(|chain| !chain.closed) {
        return Ok(());
    }
    let mut id = [0; 16];
    system_rng().fill_bytes(&mut id);
    let opened = Event::Opened {
        writer: identity.party().to_string(),
        instance: None,
        key: *identity.card.identity().as_bytes(),
        card: Some(identity.card.fingerprint()),
        continues: newest.map(|chain| Continues { after: chain.head }),
    };
    let genesis = Draft::new(context.clock.now_ms(), opened);
    store.begin_audit(ChainId(id), &genesis, newest.map(|chain| chain.head.chain)).await?;
    Ok(())
}
