//! Decides which refusals are recorded one by one. The others are only counted, so that a client
//! that floods a process with bad requests cannot fill the log.

use std::collections::{BTreeMap, HashMap};

use duet_protocol::ids::{SessionId, WalletId};

use super::{Asked, Event};
use crate::{Code, Manifest, Refusal, SignedRequest, SigningRequest};

/// How many refusals of one source are recorded one by one within [`WINDOW_MS`]. Further ones are
/// counted.
const PER_SOURCE: u32 = 8;
/// How many refusals of all sources are recorded one by one within [`WINDOW_MS`]. At some 500 bytes
/// each, a flood fills 30 MB in a day.
const IN_ALL: u32 = 40;
/// How long refusals are counted together, in milliseconds.
const WINDOW_MS: u64 = 60_000;

/// A refused request, and who sent it by the request's own claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What kind of request: `invitation`, `share`, `card`, `job`, `approval`, `report`, `device`
    /// or `token`.
    pub what: &'static str,
    /// Who asked, and for what.
    pub asked: Option<Asked>,
    /// The session.
    pub session: Option<SessionId>,
    /// The wallet.
    pub wallet: Option<WalletId>,
    /// The rule of the wallet's policy that refused.
    pub rule: Option<String>,
    /// Why.
    pub refusal: Refusal,
}

impl Refused {
    /// A refused request of which only the kind is known.
    #[must_use]
    pub const fn new(what: &'static str, refusal: Refusal) -> Self {
        Self { what, asked: None, session: None, wallet: None, rule: None, refusal }
    }

    /// A refused signing request. Its content is not verified: that may be why it was refused.
    #[must_use]
    pub fn request(what: &'static str, signed: &SignedRequest, refusal: Refusal) -> Self {
        let asked = SigningRequest::from_json(&signed.body).ok().map(|request| Asked::by(signed, &request));
        Self { asked, ..Self::new(what, refusal) }
    }

    /// A refused invitation with this manifest. Its content is not verified either.
    #[must_use]
    pub fn invitation(manifest: &[u8], refusal: Refusal) -> Self {
        let what = "invitation";
        match Manifest::decode(manifest) {
            Ok(manifest) => Self {
                session: Some(manifest.session),
                wallet: Some(manifest.wallet),
                ..Self::request(what, &manifest.request, refusal)
            },
            Err(_) => Self::new(what, refusal),
        }
    }

    fn source(&self) -> Source {
        self.asked.as_ref().map_or(Source::What(self.what), |asked| Source::Requester(asked.requester))
    }
}

impl From<Refused> for Event {
    fn from(refused: Refused) -> Self {
        let Refused { what, asked, session, wallet, rule, refusal } = refused;
        Self::Refused {
            what: what.to_owned(),
            // Left out when `asked` already names the wallet.
            wallet: wallet.filter(|wallet| asked.as_ref().is_none_or(|asked| asked.wallet != *wallet)),
            asked,
            session,
            code: refusal.code,
            rule,
            message: refusal.message,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Source {
    Requester([u8; 32]),
    What(&'static str),
}

/// Decides which refusals are recorded one by one.
#[derive(Debug)]
pub struct Refusals {
    since_ms: u64,
    recorded: u32,
    /// Holds at most as many entries as refusals were recorded.
    sources: HashMap<Source, u32>,
    suppressed: BTreeMap<Code, u64>,
}

impl Refusals {
    /// Starts counting at `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { since_ms: now_ms, recorded: 0, sources: HashMap::new(), suppressed: BTreeMap::new() }
    }

    /// Returns the event to record for a refusal, or `None` when it is only counted.
    pub fn take(&mut self, refused: Refused) -> Option<Event> {
        let source = refused.source();
        let known = self.sources.get(&source).copied().unwrap_or_default();
        if self.recorded >= IN_ALL || known >= PER_SOURCE {
            self.count(refused.refusal.code, 1);
            return None;
        }
        self.recorded += 1;
        self.sources.insert(source, known + 1);
        Some(refused.into())
    }

    /// Counts refusals of which only the code is known.
    pub fn count(&mut self, code: Code, refusals: u64) {
        *self.suppressed.entry(code).or_default() += refusals;
    }

    /// Returns the event with the number of counted refusals, once the window is over or `is_last`.
    pub fn window(&mut self, now_ms: u64, is_last: bool) -> Option<Event> {
        if !is_last && now_ms.saturating_sub(self.since_ms) < WINDOW_MS {
            return None;
        }
        let refusals = core::mem::replace(self, Self::new(now_ms)).suppressed;
        (!refusals.is_empty()).then_some(Event::RefusalsSuppressed { refusals })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(requester: u8) -> Refused {
        let asked = Asked {
            requester: [requester; 32],
            tenant: "acme".parse().unwrap(),
            job: crate::JobId([1; 16]),
            wallet: WalletId([1; 32]),
        };
        Refused { asked: Some(asked), ..Refused::new("job", Refusal::new(Code::KindNotAllowed, "no")) }
    }

    #[test]
    fn a_flood_is_counted_and_does_not_silence_others_at_once() {
        let mut refusals = Refusals::new(0);
        let recorded = (0..1000).filter(|_| refusals.take(refused(1)).is_some()).count();
        assert_eq!(recorded, 8, "one source");
        assert!(refusals.take(refused(2)).is_some(), "another one");
        let recorded = (0..=255).filter(|requester| refusals.take(refused(*requester)).is_some()).count();
        assert_eq!(recorded, 31, "all of them");
        assert_eq!(refusals.window(59_999, false), None);
        let suppressed = BTreeMap::from([(Code::KindNotAllowed, 992 + 225)]);
        assert_eq!(refusals.window(60_000, false), Some(Event::RefusalsSuppressed { refusals: suppressed }));
        assert!(refusals.take(refused(1)).is_some(), "a new window");
        assert_eq!(refusals.window(60_001, true), None, "nothing was suppressed in it");
    }
}
