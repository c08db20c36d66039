//! From facts to findings. Every check is a function without side effects.

mod broker;
mod certificates;
mod clocks;
mod processes;
mod words;
mod work;

use super::{facts::Facts, finding::Check};

/// All checks, in the order in which an operator should mend what they find.
pub(crate) fn all(facts: &Facts) -> Vec<Check> {
    let broker = &facts.broker;
    vec![
        broker::connection(&broker.connection),
        broker::nodes(&broker.nodes),
        broker::streams(&broker.streams),
        certificates::validity(&facts.certificates, certificates::now_s(facts)),
        processes::orchestrators(&facts.orchestrators, &facts.others, broker.connected.as_ref()),
        processes::parties(&facts.parties),
        processes::seats(&facts.orchestrators, &facts.parties, broker.connected.as_ref()),
        clocks::against_the_broker(facts),
        processes::builds(&facts.orchestrators, &facts.parties),
        work::tenants(&facts.tenants),
        work::wallets(&facts.tenants),
        work::jobs(&facts.tenants, facts.now_ms, facts.stuck_after_ms),
        work::webhooks(&facts.tenants, facts.now_ms),
    ]
}
