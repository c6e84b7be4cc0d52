//! The certificate of the agent: who signed it, for whom, and until when it counts.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use proconsul_io_real::tls::{Acceptor, ServerTls};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::Report;
use crate::config::Config;
use crate::x509::pem;

const LOOK: &str = "certificates";
/// So many days before its end a certificate should be renewed.
const DAYS_WARNING: i64 = 30;

/// Looks at what the HTTPS listener would show.
pub fn look(config: &Config, report: &mut Report) {
    let Some(tls) = &config.tls.https else {
        if !config.https.is_empty() {
            report.error(
                LOOK,
                "ports.https is set, but no certificate",
                "set tls.defaults.cert_file and key_file",
            );
        }
        return;
    };
    // What the agent does at its start; it says itself what cannot be used.
    if let Err(error) = Acceptor::new(tls) {
        report.error(
            LOOK,
            error.to_string(),
            "correct the files, or make a new pair with `proconsul tls cert create`",
        );
        return;
    }
    chain(config, tls, report);
}

fn chain(config: &Config, tls: &ServerTls, report: &mut Report) {
    let file = &tls.pair.certificate;
    let shown = file.display();
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let chain: Vec<CertificateDer<'static>> = pem::decode(&text)
        .into_iter()
        .filter(|block| block.label == pem::CERTIFICATE)
        .map(|block| CertificateDer::from(block.der))
        .collect();
    let Some((own, between)) = chain.split_first() else { return };
    let Ok((_, parsed)) = parse_x509_certificate(own) else {
        report.error(
            LOOK,
            format!("{shown} cannot be read"),
            "make a new pair with `proconsul tls cert create`",
        );
        return;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    let days = (validity.not_after.timestamp() - now).div_euclid(86_400);
    let renew = "make a new pair with `proconsul tls cert create`, and let the agent reload";
    if validity.not_before.timestamp() > now {
        report.error(
            LOOK,
            format!("{shown} counts only from {}", validity.not_before),
            "look at the clock, or wait",
        );
    } else if days < 0 {
        report.error(LOOK, format!("{shown} has expired: {}", validity.not_after), renew);
    } else if days < DAYS_WARNING {
        report.warn(LOOK, format!("{shown} expires in {days} days"), renew);
    } else {
        report.ok(LOOK, format!("{shown} counts for {days} days more"));
    }
    let names: Vec<String> = parsed
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|names| {
            let name = |name: &GeneralName<'_>| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            };
            names.value.general_names.iter().filter_map(name).collect()
        })
        .unwrap_or_default();
    let wanted = format!("server.{}.{}", config.datacenter, config.dns.domain);
    if config.server && !names.contains(&wanted) {
        let found = format!(
            "{shown} does not carry the name {wanted}, which agents that verify servers look for; it has: {}",
            names.join(", ")
        );
        report.warn(
            LOOK,
            found,
            format!(
                "`proconsul tls cert create -server -dc={} -domain={}`",
                config.datacenter, config.dns.domain
            ),
        );
    }
    if let Some(authorities) = &tls.clients {
        let Ok(roots) = authorities.load() else { return };
        let Some(name) = names.first().and_then(|name| ServerName::try_from(name.clone()).ok()) else {
            return;
        };
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
                .build();
        let Ok(verifier) = verifier else { return };
        match verifier.verify_server_cert(own, between, &name, &[], UnixTime::now()) {
            Ok(_) => report.ok(LOOK, format!("{shown} is signed by the authority of ca_file")),
            Err(error) => report.error(
                LOOK,
                format!("{shown} is not accepted by those who trust ca_file: {error}"),
                "sign it with that authority's key, or name the authority that has signed it",
            ),
        }
    }
}
