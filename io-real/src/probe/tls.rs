//! Connections of checks that speak TLS.

use std::sync::{Arc, LazyLock};

use proconsul_core::agent::Tls;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::dial;
use crate::tls::{Unverified, explain, system_roots};

/// A connection, whatever it speaks.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What HTTP/2 is called in a handshake (RFC 9113, section 3.3).
pub(super) const H2: &[u8] = b"h2";

/// How a check speaks TLS: what its definition says, and whose certificate it shows.
#[derive(Clone, Copy)]
pub(super) struct Secure<'a> {
    pub(super) tls: &'a Tls,
    /// The agent's own certificate and authorities, if checks are to use them.
    pub(super) own: Option<&'a ClientConfig>,
}

impl<'a> From<&'a Tls> for Secure<'a> {
    fn from(tls: &'a Tls) -> Secure<'a> {
        Secure { tls, own: None }
    }
}

/// Connects to `host:port`, over TLS if that is asked for. Fails with words.
pub(super) async fn connect(
    address: &str,
    tls: Option<Secure<'_>>,
    protocol: Option<&[u8]>,
) -> Result<Box<dyn Stream>, String> {
    let stream = dial::dial(address).await?;
    match tls {
        None => Ok(Box::new(stream)),
        Some(tls) => handshake(stream, address, tls, protocol, &SYSTEM).await,
    }
}

/// Authorities that the system trusts, as they were when the first check needed them.
static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| Arc::new(system_roots()));

async fn handshake(
    stream: TcpStream,
    address: &str,
    Secure { tls, own }: Secure<'_>,
    protocol: Option<&[u8]>,
    roots: &Arc<RootCertStore>,
) -> Result<Box<dyn Stream>, String> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = match tls.server_name.as_str() {
        "" => host.trim_start_matches('[').trim_end_matches(']'),
        name => name,
    };
    let server = ServerName::try_from(name.to_owned())
        .map_err(|_| format!("tls: {name:?} cannot be the name of a server"))?;
    let mut config = match own {
        Some(own) if !tls.skip_verify => own.clone(),
        _ => anonymous(tls, roots),
    };
    config.alpn_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
    let connected = TlsConnector::from(Arc::new(config)).connect(server, stream).await;
    match connected {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(explain(&error, name)),
    }
}

/// What a check is configured with that shows nothing of its own.
fn anonymous(tls: &Tls, roots: &Arc<RootCertStore>) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider knows both versions");
    let builder = if tls.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    } else {
        builder.with_root_certificates(Arc::clone(roots))
    };
    builder.with_no_client_auth()
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::SocketAddr;

    use rustls::ServerConfig;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::server::TlsStream;

    use super::*;

    /// A certificate that nobody has signed, for this name.
    fn certificate(name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a name");
        (made.cert.der().clone(), PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into()))
    }

    fn acceptor(
        (certificate, key): (CertificateDer<'static>, PrivateKeyDer<'static>),
        protocol: &[u8],
    ) -> TlsAcceptor {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows both versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate and its key");
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// A listener whose connections are handed to `serve`.
    pub(in super::super) async fn serving<F>(
        protocol: &[u8],
        serve: impl Fn(TlsStream<TcpStream>) -> F + Send + Sync + 'static,
    ) -> SocketAddr
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let acceptor = acceptor(certificate("self.test"), protocol);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                if let Ok(stream) = acceptor.accept(stream).await {
                    tokio::spawn(serve(stream));
                }
            }
        });
        address
    }

    async fn shake(address: SocketAddr, tls: &Tls, roots: &Arc<RootCertStore>) -> Result<(), String> {
        let stream = TcpStream::connect(address).await.expect("it listens");
        handshake(stream, &address.to_string(), tls.into(), None, roots).await.map(drop)
    }

    #[tokio::test]
    async fn a_certificate_must_be_trusted_and_of_the_name_unless_nobody_cares() {
        let made = certificate("self.test");
        let mut roots = RootCertStore::empty();
        roots.add(made.0.clone()).expect("a certificate");
        let (trusting, roots) = (Arc::new(roots), Arc::new(RootCertStore::empty()));
        let acceptor = acceptor(made, b"x");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                let _ = acceptor.accept(stream).await;
            }
        });
        let tls = |skip_verify, name: &str| Tls { skip_verify, server_name: name.into() };
        let unknown = Err("x509: certificate signed by unknown authority".to_owned());
        assert_eq!(shake(address, &tls(false, "self.test"), &trusting).await, Ok(()));
        assert_eq!(shake(address, &tls(false, "self.test"), &roots).await, unknown);
        assert_eq!(shake(address, &tls(true, ""), &roots).await, Ok(()));
        let other = Err("x509: certificate is not valid for 127.0.0.1".to_owned());
        assert_eq!(shake(address, &tls(false, ""), &trusting).await, other);
        let nonsense = shake(address, &tls(true, "a b"), &roots).await.expect_err("no name");
        assert!(nonsense.contains("cannot be the name of a server"), "{nonsense}");
    }

    #[tokio::test]
    async fn whoever_does_not_speak_tls_is_told_from_those_who_do() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let _ = stream.write_all(b"220 mail.test ESMTP\r\n").await;
            let (_kept, _) = listener.accept().await.expect("accepted");
        });
        let tls = Tls { skip_verify: true, server_name: Default::default() };
        let error = shake(address, &tls, &SYSTEM).await.expect_err("no TLS");
        assert_eq!(error, "tls: first record does not look like a TLS handshake");
    }
}
