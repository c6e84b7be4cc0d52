//! The section `tls`: what listeners show, and whom they take.

use std::path::PathBuf;
use std::time::Duration;

use proconsul_io_real::tls::{Authorities, ClientTls, Pair, ServerTls, Version, cipher_suite};

use super::ConfigError;
use super::build::Settings;

/// How the agent speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The listeners of the HTTP interface; without a certificate there is no HTTPS.
    pub https: Option<ServerTls>,
    /// How long a client may take to shake hands; zero: any time.
    pub handshake: Duration,
    /// What health checks show, and whom they trust, if they are to be the agent (`enable_agent_tls_for_checks`).
    pub checks: Option<ClientTls>,
}

/// Reads the section.
pub(super) fn tls(settings: &Settings, warnings: &mut Vec<String>) -> Result<Tls, ConfigError> {
    let https = Section { settings, name: "https" };
    let server = https.pair().map(|pair| ServerTls {
        pair,
        clients: https.bool("verify_incoming").then(|| https.authorities()),
        version: https.version(),
        cipher_suites: https.cipher_suites(),
        protocols: vec![b"http/1.1".to_vec()],
    });
    let unavailable = https.cipher_suites().into_iter().filter(|name| cipher_suite(name) == Some(false));
    let unavailable: Vec<String> = unavailable.collect();
    if !unavailable.is_empty() {
        warnings.push(format!(
            "tls_cipher_suites: left out, since they are not safe: {}",
            unavailable.join(", ")
        ));
    }
    if ["tls10", "tls11", "TLSv1_0", "TLSv1_1"].contains(&https.text("tls_min_version").as_str()) {
        warnings
            .push("tls_min_version: versions before TLS 1.2 are not safe; 1.2 is the oldest here".to_owned());
    }
    let internal = Section { settings, name: "internal_rpc" };
    let checks = settings.bool("enable_agent_tls_for_checks").then(|| ClientTls {
        authorities: internal.authorities(),
        pair: internal.pair(),
        skip_verify: false,
    });
    Ok(Tls { https: server, handshake: settings.duration("limits.https_handshake_timeout"), checks })
}

/// Cipher suites that nobody knows.
pub(super) fn unknown_suites(settings: &Settings) -> Option<String> {
    let sections = ["defaults", "https", "internal_rpc", "grpc"];
    let names = sections.map(|name| Section { settings, name }.cipher_suites());
    names.into_iter().flatten().find(|name| cipher_suite(name).is_none())
}

/// What is wrong with the section once an agent is to start with it: Consul's own `validate` does not look at this.
pub(super) fn trouble(settings: &Settings) -> Option<ConfigError> {
    let internal = Section { settings, name: "internal_rpc" };
    let https = Section { settings, name: "https" };
    let has_ca = !internal.authorities().is_empty() || !https.authorities().is_empty();
    let verifies_out = internal.bool("verify_outgoing") || internal.bool("verify_server_hostname");
    if verifies_out && !has_ca {
        let error = ConfigError::new("VerifyOutgoing set, and no CA certificate provided!");
        return Some(
            error.hint("verify_outgoing and verify_server_hostname need tls.defaults.ca_file or ca_path."),
        );
    }
    let verifies_in = [&internal, &https].into_iter().find(|section| section.bool("verify_incoming"));
    if let Some(section) = verifies_in {
        if section.authorities().is_empty() {
            let error = ConfigError::new("VerifyIncoming set but no CA certificates were provided");
            return Some(error.hint("verify_incoming needs tls.defaults.ca_file or ca_path."));
        }
        if section.pair().is_none() {
            let error = ConfigError::new(
                "VerifyIncoming requires either a Cert and Key pair in the configuration file, or \
                 auto_encrypt/auto_config be enabled",
            );
            return Some(error.hint("Set tls.defaults.cert_file and key_file."));
        }
    }
    for name in ["defaults", "https", "internal_rpc", "grpc"] {
        let version = settings.text(&format!("tls.{name}.tls_min_version"));
        const KNOWN: [&str; 10] =
            ["", "tls10", "tls11", "tls12", "tls13", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3", "TLS_AUTO"];
        if !KNOWN.contains(&version.as_str()) {
            return Some(ConfigError::new(format!(
                "TLSMinVersion: value {version} not supported, please specify one of [tls10, tls11, tls12, tls13]"
            )));
        }
    }
    None
}

/// One part of the section, behind which stand the defaults.
struct Section<'a> {
    settings: &'a Settings,
    name: &'a str,
}

impl Section<'_> {
    fn text(&self, key: &str) -> String {
        let own = self.settings.text(&format!("tls.{}.{key}", self.name));
        if own.is_empty() { self.settings.text(&format!("tls.defaults.{key}")) } else { own }
    }

    fn bool(&self, key: &str) -> bool {
        let own = self.settings.written(&format!("tls.{}.{key}", self.name));
        match own.and_then(serde_json::Value::as_bool) {
            Some(own) => own,
            None => self.settings.bool(&format!("tls.defaults.{key}")),
        }
    }

    fn pair(&self) -> Option<Pair> {
        let file = |key: &str| Some(self.text(key)).filter(|text| !text.is_empty()).map(PathBuf::from);
        Some(Pair { certificate: file("cert_file")?, key: file("key_file")? })
    }

    fn authorities(&self) -> Authorities {
        let path = |key: &str| Some(self.text(key)).filter(|text| !text.is_empty()).map(PathBuf::from);
        Authorities {
            files: path("ca_file").into_iter().collect(),
            directories: path("ca_path").into_iter().collect(),
        }
    }

    fn version(&self) -> Version {
        match self.text("tls_min_version").as_str() {
            "tls13" | "TLSv1_3" => Version::Tls13,
            _ => Version::Tls12,
        }
    }

    fn cipher_suites(&self) -> Vec<String> {
        let text = self.text("tls_cipher_suites");
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn settings(value: Value) -> Settings {
        Settings(value.as_object().expect("an object").clone())
    }

    #[test]
    fn a_section_is_read_with_the_defaults_behind_it() {
        let all = settings(json!({"tls": {
            "defaults": {"cert_file": "c", "key_file": "k", "ca_file": "a", "verify_incoming": true},
            "https": {"cert_file": "h", "tls_min_version": "TLSv1_3"},
        }, "limits": {"https_handshake_timeout": "7s"}}));
        let read = tls(&all, &mut Vec::new()).expect("good");
        let https = read.https.expect("a certificate");
        assert_eq!((https.pair.certificate, https.pair.key), ("h".into(), "k".into()));
        assert_eq!(https.clients.expect("they are verified").files, [PathBuf::from("a")]);
        assert_eq!((https.version, read.handshake), (Version::Tls13, Duration::from_secs(7)));
        let open = settings(json!({"tls": {
            "defaults": {"cert_file": "c", "key_file": "k", "ca_file": "a", "verify_incoming": true},
            "https": {"verify_incoming": false},
        }}));
        assert_eq!(tls(&open, &mut Vec::new()).expect("good").https.expect("a certificate").clients, None);
        assert_eq!(tls(&settings(json!({})), &mut Vec::new()).expect("good").https, None);
    }

    #[test]
    fn what_an_agent_would_not_start_with_is_named() {
        for (value, why) in [
            (json!({"defaults": {"verify_outgoing": true}}), "VerifyOutgoing set, and no CA"),
            (json!({"internal_rpc": {"verify_server_hostname": true}}), "VerifyOutgoing set, and no CA"),
            (json!({"defaults": {"verify_incoming": true}}), "VerifyIncoming set but no CA"),
            (json!({"https": {"verify_incoming": true}}), "VerifyIncoming set but no CA"),
            (
                json!({"defaults": {"verify_incoming": true, "ca_file": "a"}}),
                "requires either a Cert and Key",
            ),
            (json!({"defaults": {"tls_min_version": "tls9"}}), "TLSMinVersion: value tls9 not supported"),
        ] {
            let error = trouble(&settings(json!({"tls": value}))).expect(why).to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(trouble(&settings(json!({}))).is_none());
    }

    #[test]
    fn cipher_suites_are_looked_at() {
        let suites = |text: &str| settings(json!({"tls": {"defaults": {"tls_cipher_suites": text}}}));
        let good = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA";
        assert_eq!(unknown_suites(&suites(good)), None);
        assert_eq!(unknown_suites(&suites("NOPE")), Some("NOPE".to_owned()));
        let mut warnings = Vec::new();
        tls(&suites(good), &mut warnings).expect("good");
        assert!(warnings[0].contains("not safe: TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"), "{warnings:?}");
    }
}
