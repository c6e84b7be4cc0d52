//! TLS of listeners and clients, from files that may be replaced while the agent runs.
//!
//! Versions are 1.2 and 1.3. Errors are in the words that Consul's users know.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::words::io_reason;

/// Why TLS cannot be set up. One line for the operator.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct TlsError(String);

/// Whom to trust: certificates of authorities in files, and in the files of directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorities {
    /// Files in PEM.
    pub files: Vec<PathBuf>,
    /// Directories of such files.
    pub directories: Vec<PathBuf>,
}

impl Authorities {
    /// Whether none are named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.directories.is_empty()
    }

    /// Reads them all.
    ///
    /// # Errors
    /// A file or directory cannot be read, or holds no certificate.
    pub fn load(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for file in &self.files {
            add(&mut roots, file)?;
        }
        for directory in &self.directories {
            let failed =
                |error: io::Error| TlsError(format!("lstat {}: {}", directory.display(), io_reason(&error)));
            let mut files = Vec::new();
            for entry in std::fs::read_dir(directory).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                if path.is_file() {
                    files.push(path);
                }
            }
            files.sort();
            for file in files {
                add(&mut roots, &file)?;
            }
        }
        Ok(roots)
    }
}

fn add(roots: &mut RootCertStore, file: &Path) -> Result<(), TlsError> {
    let shown = file.display();
    let text = std::fs::read(file).map_err(|error| {
        TlsError(format!("Error loading from {shown}: open {shown}: {}", io_reason(&error)))
    })?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    let bad = || TlsError(format!("Error loading from {shown}: it holds no certificates in PEM"));
    for certificate in found.ok_or_else(bad)? {
        roots.add(certificate).map_err(|_| bad())?;
    }
    Ok(())
}

/// A certificate and its key, in files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Pair {
    fn load(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let failed = |why: String| TlsError(format!("Failed to load cert/key pair: {why}"));
        let read = |path: &Path| {
            std::fs::read(path)
                .map_err(|error| failed(format!("open {}: {}", path.display(), io_reason(&error))))
        };
        let (certificate, key) = (read(&self.certificate)?, read(&self.key)?);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate).collect();
        let chain = chain
            .ok()
            .filter(|chain| !chain.is_empty())
            .ok_or_else(|| failed(format!("{} holds no certificate in PEM", self.certificate.display())))?;
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|_| failed(format!("{} holds no private key in PEM", self.key.display())))?;
        Ok((chain, key))
    }
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

impl Version {
    fn spoken(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Version::Tls12 => rustls::ALL_VERSIONS,
            Version::Tls13 => &TLS13,
        }
    }
}

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// What it shows.
    pub pair: Pair,
    /// Whose clients it takes, if clients have to show a certificate.
    pub clients: Option<Authorities>,
    /// The oldest version.
    pub version: Version,
    /// Names of the cipher suites of TLS 1.2 to use; empty for all. Those of TLS 1.3 are always used.
    pub cipher_suites: Vec<String>,
    /// Protocols to agree on (ALPN), the preferred one first.
    pub protocols: Vec<Vec<u8>>,
}

impl ServerTls {
    fn config(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(provider(&self.cipher_suites)?);
        let (chain, key) = self.pair.load()?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.version.spoken())
            .map_err(|error| TlsError(format!("TLS: {error}")))?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let roots = Arc::new(authorities.load()?);
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots, provider).build().map_err(|_| {
                        TlsError("VerifyIncoming set but no CA certificates were provided".to_owned())
                    })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| mismatch(&error))?;
        config.alpn_protocols.clone_from(&self.protocols);
        Ok(config)
    }
}

/// Why a pair cannot be used.
fn mismatch(error: &Error) -> TlsError {
    let why = match error {
        Error::InconsistentKeys(_) => "tls: private key does not match public key".to_owned(),
        other => format!("tls: {other}"),
    };
    TlsError(format!("Failed to load cert/key pair: {why}"))
}

/// Names of cipher suites that are known and not available: they work with CBC.
const UNAVAILABLE: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
];

/// Whether a cipher suite can be configured, and whether it is available then.
#[must_use]
pub fn cipher_suite(name: &str) -> Option<bool> {
    if UNAVAILABLE.contains(&name) {
        return Some(false);
    }
    let known = ring::ALL_CIPHER_SUITES.iter().filter(|suite| suite.tls13().is_none());
    known.map(|suite| format!("{:?}", suite.suite())).any(|known| known == name).then_some(true)
}

fn provider(cipher_suites: &[String]) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    if !cipher_suites.is_empty() {
        provider.cipher_suites.retain(|suite| {
            suite.tls13().is_some()
                || cipher_suites.iter().any(|name| *name == format!("{:?}", suite.suite()))
        });
        if provider.cipher_suites.is_empty() {
            return Err(TlsError("tls_cipher_suites: none of them is available".to_owned()));
        }
    }
    Ok(provider)
}

/// Takes connections over TLS. Cheap to clone; all clones follow [`Acceptor::replace`].
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ArcSwap<ServerConfig>>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub fn new(tls: &ServerTls) -> Result<Acceptor, TlsError> {
        Ok(Acceptor { config: Arc::new(ArcSwap::from_pointee(tls.config()?)) })
    }

    /// Takes connections like `with` from now on. Those that are open go on.
    pub fn replace(&self, with: &Acceptor) {
        self.config.store(with.config.load_full());
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// The other side does not speak TLS, or shows nothing that is accepted.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        TlsAcceptor::from(self.config.load_full()).accept(stream).await
    }
}

/// How a client speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Whom to trust; the system's authorities if none are named.
    pub authorities: Authorities,
    /// What to show to servers that ask for it.
    pub pair: Option<Pair>,
    /// Take any certificate.
    pub skip_verify: bool,
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub fn config(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider knows both versions");
        let builder = if self.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        } else if self.authorities.is_empty() {
            builder.with_root_certificates(system_roots())
        } else {
            builder.with_root_certificates(self.authorities.load()?)
        };
        match &self.pair {
            None => Ok(builder.with_no_client_auth()),
            Some(pair) => {
                let (chain, key) = pair.load()?;
                builder.with_client_auth_cert(chain, key).map_err(|error| mismatch(&error))
            }
        }
    }

    /// The same, ready to connect.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub fn connector(&self) -> Result<TlsConnector, TlsError> {
        Ok(TlsConnector::from(Arc::new(self.config()?)))
    }
}

/// Authorities that the system trusts. Some systems have certificates that make no sense to anybody.
pub(crate) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read all authorities that the system trusts");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

/// What operators know the errors of a handshake with `name` as.
#[must_use]
pub fn explain(error: &io::Error, name: &str) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        // An authority of the same name with another key is another authority.
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "x509: certificate signed by unknown authority".to_owned()
        }
        Some(Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )) => "x509: certificate has expired or is not yet valid".to_owned(),
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => format!("x509: certificate is not valid for {name}"),
        Some(Error::InvalidMessage(_)) => "tls: first record does not look like a TLS handshake".to_owned(),
        Some(Error::AlertReceived(alert)) => format!("remote error: tls: {alert:?}"),
        Some(other) => format!("tls: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => io_reason(error),
    }
}

/// Takes any certificate; that the other side has its key is still proven.
#[derive(Debug)]
pub(crate) struct Unverified(pub(crate) Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    }

    /// An authority `ca.pem`, and pairs that it has signed for `self.test`: `a`, `b`.
    fn files() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).expect("written");
        let key = KeyPair::generate().expect("random numbers");
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).expect("signed");
        write("ca.pem", pem("CERTIFICATE", ca.der()));
        let issuer = Issuer::new(params, key);
        for name in ["a", "b"] {
            let key = KeyPair::generate().expect("random numbers");
            let params = CertificateParams::new(["self.test".to_owned()]).expect("a name");
            let made = params.signed_by(&key, &issuer).expect("signed");
            write(&format!("{name}.pem"), pem("CERTIFICATE", made.der()));
            write(&format!("{name}-key.pem"), pem("PRIVATE KEY", key.serialized_der()));
        }
        write("text", "nothing".to_owned());
        dir
    }

    fn pair(dir: &Path, certificate: &str, key: &str) -> Pair {
        Pair { certificate: dir.join(certificate), key: dir.join(key) }
    }

    fn authorities(dir: &Path, file: &str) -> Authorities {
        Authorities { files: vec![dir.join(file)], directories: Vec::new() }
    }

    fn server(dir: &Path, verify: bool) -> ServerTls {
        ServerTls {
            pair: pair(dir, "a.pem", "a-key.pem"),
            clients: verify.then(|| authorities(dir, "ca.pem")),
            version: Version::Tls12,
            cipher_suites: Vec::new(),
            protocols: Vec::new(),
        }
    }

    /// What one byte there and back comes to.
    async fn exchange(acceptor: &Acceptor, client: &ClientTls) -> Result<Vec<u8>, String> {
        let (near, far) = tokio::io::duplex(1 << 14);
        let acceptor = acceptor.clone();
        let serving = tokio::spawn(async move {
            let mut stream = acceptor.accept(far).await?;
            let byte = stream.read_u8().await?;
            stream.write_u8(byte + 1).await?;
            let seen = stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec());
            stream.shutdown().await.map(|()| seen)
        });
        let name = ServerName::try_from("self.test").expect("a name");
        let talk = async {
            let mut stream = client.connector().expect("files").connect(name, near).await?;
            stream.write_u8(1).await?;
            assert_eq!(stream.read_u8().await?, 2);
            Ok(stream.get_ref().1.peer_certificates().expect("shown")[0].to_vec())
        };
        let result = talk.await.map_err(|error: io::Error| explain(&error, "self.test"));
        let _ = serving.await.expect("no panic");
        result
    }

    #[tokio::test]
    async fn clients_and_servers_know_each_other_by_their_authority() {
        let dir = files();
        let dir = dir.path();
        let plain = ClientTls { authorities: authorities(dir, "ca.pem"), ..ClientTls::default() };
        let shown = ClientTls { pair: Some(pair(dir, "b.pem", "b-key.pem")), ..plain.clone() };
        let blind = ClientTls { skip_verify: true, ..ClientTls::default() };
        let open = Acceptor::new(&server(dir, false)).expect("files");
        let closed = Acceptor::new(&server(dir, true)).expect("files");
        assert!(exchange(&open, &plain).await.is_ok());
        assert!(exchange(&open, &blind).await.is_ok());
        assert!(exchange(&closed, &shown).await.is_ok());
        let error = exchange(&closed, &plain).await.expect_err("nothing to show");
        assert!(error.contains("CertificateRequired") || error.contains("EOF"), "{error}");
        let strangers = ClientTls { authorities: authorities(dir, "b.pem"), ..ClientTls::default() };
        assert_eq!(
            exchange(&open, &strangers).await.expect_err("another authority"),
            "x509: certificate signed by unknown authority"
        );
    }

    #[tokio::test]
    async fn a_replaced_certificate_is_shown_to_the_next_client() {
        let dir = files();
        let dir = dir.path();
        let client = ClientTls { authorities: authorities(dir, "ca.pem"), ..ClientTls::default() };
        let first = Acceptor::new(&server(dir, false)).expect("files");
        let copy = first.clone();
        let before = exchange(&copy, &client).await.expect("served");
        let other = ServerTls { pair: pair(dir, "b.pem", "b-key.pem"), ..server(dir, false) };
        first.replace(&Acceptor::new(&other).expect("files"));
        assert_ne!(exchange(&copy, &client).await.expect("served"), before);
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let dir = files();
        let dir = dir.path();
        let with = |pair: Pair| ServerTls { pair, ..server(dir, false) };
        for (tls, why) in [
            (with(pair(dir, "none.pem", "a-key.pem")), "Failed to load cert/key pair: open "),
            (with(pair(dir, "a.pem", "none.pem")), "none.pem: no such file or directory"),
            (with(pair(dir, "text", "a-key.pem")), "holds no certificate"),
            (with(pair(dir, "a.pem", "text")), "holds no private key"),
            (with(pair(dir, "a.pem", "b-key.pem")), "private key does not match public key"),
            (
                ServerTls { clients: Some(authorities(dir, "none")), ..server(dir, true) },
                "Error loading from ",
            ),
            (
                ServerTls { clients: Some(authorities(dir, "text")), ..server(dir, true) },
                "holds no certificates",
            ),
            (ServerTls { clients: Some(Authorities::default()), ..server(dir, true) }, "VerifyIncoming set"),
        ] {
            let error = Acceptor::new(&tls).map(|_| ()).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn cipher_suites_are_known_by_name() {
        assert_eq!(cipher_suite("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"), Some(true));
        assert_eq!(cipher_suite("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"), Some(false));
        assert_eq!(cipher_suite("TLS13_AES_128_GCM_SHA256"), None);
        assert_eq!(cipher_suite("NOPE"), None);
        let one = provider(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".to_owned()]).expect("one");
        assert_eq!(one.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).count(), 1);
    }
}
