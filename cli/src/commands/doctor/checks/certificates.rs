//! How long certificates are valid.

use super::words::{counted, span};
use crate::commands::doctor::{
    facts::{CertificateFacts, Facts},
    finding::{Cause, Check, Finding},
};

/// How long before its end a certificate is worth a look, in seconds: thirty days.
const ENDING_S: i64 = 30 * 86_400;

/// The time, in seconds since 1970: the broker's if it is known, else this machine's.
pub(super) fn now_s(facts: &Facts) -> i64 {
    let broker = facts.broker.nodes.as_ref().ok().and_then(|nodes| nodes.first());
    let now_ms = broker.map_or(facts.now_ms, |answer| answer.value.now_ms);
    i64::try_from(now_ms / 1000).unwrap_or(i64::MAX)
}

/// Whether each certificate is valid now, and stays so for a while.
pub(super) fn validity(certificates: &[CertificateFacts], now_s: i64) -> Check {
    let findings = certificates.iter().filter_map(|certificate| finding(certificate, now_s)).collect();
    let first_end =
        certificates.iter().filter_map(|certificate| certificate.validity.as_ref().ok()).map(|v| v.1).min();
    let ends =
        first_end.map_or_else(String::new, |end| format!(", the first ends in {}", length(end - now_s)));
    Check {
        name: "certificates",
        summary: format!("{}{ends}", counted(certificates.len(), "certificate")),
        findings,
    }
}

fn finding(CertificateFacts { source, validity }: &CertificateFacts, now_s: i64) -> Option<Finding> {
    let source = source.as_str();
    let remedy = "Certificates that `duet init` made: `duet credentials prepare tls --dir DIR` (`route-tls` between \
                  nodes), then `switch` and `retire`, with the restarts that each step names. Others: have their \
                  authority renew them, and restart the server that presents them.";
    match validity {
        Err(why) => Some(Finding::warning(
            Cause::CertificateUnreadable,
            source,
            why,
            "Check the file, or that the server at this address speaks TLS.",
        )),
        Ok((_, not_after)) if *not_after < now_s => Some(Finding::failed(
            Cause::CertificateInvalid,
            source,
            format!("it expired {} ago", length(now_s - not_after)),
            remedy,
        )),
        Ok((not_before, _)) if *not_before > now_s => Some(Finding::failed(
            Cause::CertificateInvalid,
            source,
            format!("it is valid only in {}", length(not_before - now_s)),
            "Check the clocks of the machine that made it and of the broker's nodes.",
        )),
        Ok((_, not_after)) if *not_after < now_s + ENDING_S => Some(Finding::warning(
            Cause::CertificateEnding,
            source,
            format!("it expires in {}", length(not_after - now_s)),
            remedy,
        )),
        Ok(_) => None,
    }
}

fn length(seconds: i64) -> String {
    span(u64::try_from(seconds).unwrap_or_default().saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::finding::Status;

    const DAY: i64 = 86_400;

    fn look(validity: Result<(i64, i64), String>) -> Vec<(Cause, Status)> {
        let certificate = CertificateFacts { source: "DIR/tls/server.pem".to_owned(), validity };
        let check = super::validity(&[certificate], 1000 * DAY);
        check.findings.iter().map(|finding| (finding.cause, finding.status)).collect()
    }

    #[test]
    fn a_certificate_is_valid_for_a_while() {
        assert_eq!(look(Ok((999 * DAY, 1031 * DAY))), []);
        assert_eq!(look(Ok((999 * DAY, 1005 * DAY))), [(Cause::CertificateEnding, Status::Warning)]);
        assert_eq!(look(Ok((0, 999 * DAY))), [(Cause::CertificateInvalid, Status::Failed)]);
        assert_eq!(look(Ok((1001 * DAY, 2000 * DAY))), [(Cause::CertificateInvalid, Status::Failed)]);
        assert_eq!(look(Err("no PEM".to_owned())), [(Cause::CertificateUnreadable, Status::Warning)]);
    }
}
