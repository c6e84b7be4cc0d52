//! An authority, and the certificates that it signs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, SerialNumber, date_time_ymd,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};
use x509_parser::parse_x509_certificate;

use super::key::{self, Drawn};
use super::pem;

/// The longest validity: what ends later than the year 9999 cannot be written (RFC 5280, section 4.1.2.5).
pub const DAYS_MAX: i64 = 2_900_000;

/// What is said of a certificate that does not count now.
const EXPIRED: &str = "x509: certificate has expired or is not yet valid: look at -days, and at the authority's own \
                       validity";

/// A certificate and its key, as texts of files.
pub struct Made {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// What a new authority is to be.
#[derive(Clone, Debug, Default)]
pub struct AuthorityPlan {
    /// Its name; empty for one that is made up.
    pub common_name: String,
    /// A URI that it stands for.
    pub uri: Option<String>,
    /// Days of validity from now on.
    pub days: i64,
    /// The only DNS names, with those below them, that it may vouch for; empty for all.
    pub names: Vec<String>,
}

/// What a certificate is to be.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Its name, which is one of its DNS names, too.
    pub common_name: String,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Days of validity from now on.
    pub days: i64,
    /// Whether its owner serves and asks; one that is neither shows it to servers by hand.
    pub for_agents: bool,
}

/// Makes an authority that trusts itself.
///
/// # Errors
/// A name that certificates cannot carry, or a system without random numbers.
pub fn found(plan: &AuthorityPlan) -> Result<Made, String> {
    let Drawn { key, pem } = key::draw()?;
    let (serial, number) = serial()?;
    let mut params = params(plan.days, serial)?;
    let name = match plan.common_name.as_str() {
        "" => format!("Consul Agent CA {number}"),
        name => name.to_owned(),
    };
    params.distinguished_name = common_name(&name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if let Some(uri) = &plan.uri {
        let uri = uri.as_str().try_into().map_err(|_| format!("{uri:?} cannot stand in a certificate"))?;
        params.subject_alt_names.push(SanType::URI(uri));
    }
    if !plan.names.is_empty() {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: plan.names.iter().cloned().map(GeneralSubtree::DnsName).collect(),
            excluded_subtrees: Vec::new(),
        });
    }
    let made = params.self_signed(&key).map_err(|error| format!("cannot make the authority: {error}"))?;
    Ok(Made { certificate: pem::encode(pem::CERTIFICATE, made.der()), key: pem })
}

/// An authority that is ready to sign.
pub struct Authority {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    /// Reads an authority from the texts of its files.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn read(certificate: &str, key: &str) -> Result<Authority, String> {
        let blocks = pem::decode(certificate);
        let first = blocks.into_iter().next().ok_or("no PEM-encoded data found")?;
        if first.label != pem::CERTIFICATE {
            return Err("first PEM-block should be CERTIFICATE type".to_owned());
        }
        let certificate = CertificateDer::from(first.der);
        let key = key::read(key)?;
        let (_, parsed) = parse_x509_certificate(&certificate)
            .map_err(|error| format!("the authority's certificate cannot be read: {error}"))?;
        if !parsed.is_ca() {
            return Err("the certificate is not that of an authority".to_owned());
        }
        if *parsed.public_key().subject_public_key.data != *key::public(&key) {
            return Err(
                "x509: certificate signed by unknown authority: certificate and key of the authority do \
                        not belong together"
                    .to_owned(),
            );
        }
        Ok(Authority { certificate, key })
    }

    /// Signs a certificate for a new key.
    ///
    /// # Errors
    /// The result would not be accepted by those who trust this authority: its names are not among those that it may
    /// vouch for, or it is not valid now.
    pub fn issue(&self, plan: &Plan) -> Result<Made, String> {
        let Drawn { key, pem } = key::draw()?;
        Ok(Made { certificate: self.certify(plan, &key)?, key: pem })
    }

    /// Signs a certificate for a key that there is already, by the text of its file; the text of the certificate's.
    ///
    /// # Errors
    /// The key cannot be read, or those of [`Authority::issue`].
    pub fn renew(&self, plan: &Plan, key: &str) -> Result<String, String> {
        self.certify(plan, &key::read(key)?)
    }

    fn certify(&self, plan: &Plan, key: &KeyPair) -> Result<String, String> {
        let (serial, _) = serial()?;
        let mut params = params(plan.days, serial)?;
        if plan.days < 1 {
            return Err(EXPIRED.to_owned());
        }
        params.distinguished_name = common_name(&plan.common_name);
        for name in &plan.dns_names {
            let name = name.as_str().try_into().map_err(|_| format!("{name:?} is no DNS name"))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(plan.addresses.iter().copied().map(SanType::IpAddress));
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        if plan.for_agents {
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        }
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key)
            .map_err(|error| format!("the authority's certificate cannot be used: {error}"))?;
        let made = params
            .signed_by(key, &issuer)
            .map_err(|error| format!("cannot sign the certificate: {error}"))?;
        self.verify(made.der(), &plan.common_name)?;
        Ok(pem::encode(pem::CERTIFICATE, made.der()))
    }

    /// Whether those who trust the authority take this certificate for that of `name`.
    fn verify(&self, certificate: &CertificateDer<'_>, name: &str) -> Result<(), String> {
        let parse = |der| parse_x509_certificate(der).map(|(_, parsed)| parsed);
        let (own, new) = (parse(&self.certificate), parse(certificate));
        let (own, new) = own.and_then(|own| Ok((own, new?))).map_err(|error| error.to_string())?;
        if own.subject().as_raw() != new.issuer().as_raw() {
            return Err(format!(
                "the authority's name, {}, has parts that cannot be copied: make an authority with a simpler name",
                own.subject()
            ));
        }
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).map_err(|error| format!("x509: {error}"))?;
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .expect("there is a root");
        let server = ServerName::try_from(name.to_owned()).map_err(|_| format!("{name:?} is no DNS name"))?;
        let verified = verifier.verify_server_cert(certificate, &[], &server, &[], UnixTime::now());
        verified.map(drop).map_err(|error| match error {
            rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => EXPIRED.to_owned(),
            other => format!("x509: the authority may not vouch for this certificate: {other}"),
        })
    }
}

/// What all certificates have in common.
fn params(days: i64, serial: SerialNumber) -> Result<CertificateParams, String> {
    if !(-DAYS_MAX / 100..=DAYS_MAX).contains(&days) {
        return Err(format!("-days={days} is out of range: write a number from 1 to {DAYS_MAX}"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(now);
    let length = Duration::from_secs(days.unsigned_abs() * 24 * 60 * 60);
    let mut params = CertificateParams::default();
    params.not_before = now;
    params.not_after = if days < 0 { now - length } else { now + length };
    params.serial_number = Some(serial);
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// A serial number of 127 bits (RFC 5280, section 4.1.2.2), drawn by chance.
fn serial() -> Result<(SerialNumber, u128), String> {
    let mut bytes = [0; 16];
    proconsul_io_real::engine::random(&mut bytes)
        .map_err(|error| format!("Error reading random data: {error}"))?;
    bytes[0] &= 0x7f;
    Ok((SerialNumber::from_slice(&bytes), u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(names: &[&str]) -> Authority {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let made = found(&AuthorityPlan { days: 30, names, ..AuthorityPlan::default() }).expect("founded");
        Authority::read(&made.certificate, &made.key).expect("read")
    }

    fn plan(name: &str, days: i64) -> Plan {
        let dns_names = vec![name.to_owned(), "localhost".to_owned()];
        Plan {
            common_name: name.to_owned(),
            dns_names,
            addresses: vec![IpAddr::from([127, 0, 0, 1])],
            days,
            for_agents: true,
        }
    }

    #[test]
    fn a_renewed_certificate_is_another_one_for_the_same_key() {
        let authority = authority(&[]);
        let made = authority.issue(&plan("server.dc1.consul", 10)).expect("signed");
        let renewed = authority.renew(&plan("server.dc1.consul", 20), &made.key).expect("signed");
        assert_ne!(renewed, made.certificate);
        let block = pem::decode(&renewed).remove(0);
        let (_, parsed) = parse_x509_certificate(&block.der).expect("a certificate");
        let key = key::public(&key::read(&made.key).expect("a key"));
        assert_eq!(*parsed.public_key().subject_public_key.data, *key);
        assert!(authority.renew(&plan("server.dc1.consul", 20), &made.certificate).is_err(), "no key");
    }

    #[test]
    fn a_certificate_says_what_was_planned() {
        let authority = authority(&[]);
        let made = authority.issue(&plan("server.dc1.consul", 10)).expect("signed");
        let block = pem::decode(&made.certificate).remove(0);
        let (_, parsed) = parse_x509_certificate(&block.der).expect("a certificate");
        assert_eq!(parsed.subject().to_string(), "CN=server.dc1.consul");
        assert!(!parsed.is_ca());
        let validity = parsed.validity();
        assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 10 * 24 * 60 * 60);
        let names =
            parsed.subject_alternative_name().expect("readable").expect("there").value.general_names.len();
        assert_eq!(names, 3);
        let usage = parsed.extended_key_usage().expect("readable").expect("there").value;
        assert!(usage.server_auth && usage.client_auth);
        assert_eq!(
            key::public(&key::read(&made.key).expect("a key")),
            *parsed.public_key().subject_public_key.data
        );
    }

    #[test]
    fn an_authority_with_constraints_vouches_for_its_names_only() {
        let authority = authority(&["consul", "localhost"]);
        authority.issue(&plan("server.dc1.consul", 10)).expect("below consul");
        let error = authority.issue(&plan("server.example", 10)).map(|_| ()).expect_err("another name");
        assert!(error.contains("may not vouch"), "{error}");
    }

    #[test]
    fn what_nobody_would_accept_is_not_signed() {
        let authority = authority(&[]);
        for (plan, why) in [
            (plan("server.dc1.consul", 0), "x509: certificate has expired"),
            (plan("server.dc1.consul", -1), "x509: certificate has expired"),
            (plan("server.dc1.consul", i64::MAX), "out of range"),
            (plan("a b", 1), "no DNS name"),
        ] {
            let error = authority.issue(&plan).map(|_| ()).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn files_that_do_not_belong_together_are_no_authority() {
        let plan = AuthorityPlan { days: 1, ..AuthorityPlan::default() };
        let (one, two) = (found(&plan).expect("founded"), found(&plan).expect("founded"));
        for (certificate, key, why) in [
            (&one.certificate, &two.key, "do not belong together"),
            (&one.key, &one.key, "first PEM-block should be CERTIFICATE type"),
            (&one.certificate, &one.certificate, "unknown PEM block type for signing key"),
            (&String::new(), &one.key, "no PEM-encoded data found"),
        ] {
            let error = Authority::read(certificate, key).map(|_| ()).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        let own = Authority::read(&one.certificate, &one.key).expect("good");
        let made = own.issue(&super::tests::plan("server.dc1.consul", 1)).expect("signed");
        let error = Authority::read(&made.certificate, &made.key).map(|_| ()).expect_err("no authority");
        assert!(error.contains("not that of an authority"), "{error}");
    }
}
