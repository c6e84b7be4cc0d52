//! HTTPS: whom the commands trust, and what they show.

use proconsul_io_real::tls::{Authorities, ClientTls, Pair, explain};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How a command speaks HTTPS.
#[derive(Clone)]
pub(super) struct Https {
    connector: TlsConnector,
    /// The name that the certificate must carry, if it is not the host's.
    server_name: Option<String>,
}

impl std::fmt::Debug for Https {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Https").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// The options that concern HTTPS, with the environment behind them.
#[derive(Clone, Debug, Default)]
pub(super) struct HttpsOptions {
    pub(super) ca_file: Option<String>,
    pub(super) ca_path: Option<String>,
    pub(super) client_cert: Option<String>,
    pub(super) client_key: Option<String>,
    pub(super) server_name: Option<String>,
    pub(super) skip_verify: bool,
}

impl Https {
    pub(super) fn new(options: HttpsOptions) -> Result<Https, String> {
        let authorities = Authorities {
            files: options.ca_file.into_iter().map(Into::into).collect(),
            directories: options.ca_path.into_iter().map(Into::into).collect(),
        };
        let pair = options
            .client_cert
            .zip(options.client_key)
            .map(|(certificate, key)| Pair { certificate: certificate.into(), key: key.into() });
        let tls = ClientTls { authorities, pair, skip_verify: options.skip_verify };
        let connector = tls.connector().map_err(|error| error.to_string())?;
        Ok(Https { connector, server_name: options.server_name })
    }

    /// The same, but the certificate has to carry the name of this host whatever host shows it, unless a name was asked for.
    pub(super) fn named_after(mut self, host: &str) -> Https {
        self.server_name.get_or_insert_with(|| name_of(host).to_owned());
        self
    }

    /// Shakes hands with the server behind a connection to `host:port`.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name = self.server_name.as_deref().unwrap_or_else(|| name_of(host));
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("x509: {name:?} cannot be the name of a server"))?;
        self.connector.connect(server, stream).await.map_err(|error| explain(&error, name))
    }
}

/// The name in `host:port`.
fn name_of(host: &str) -> &str {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.trim_start_matches('[').trim_end_matches(']')
}
