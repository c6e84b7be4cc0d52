//! The daemon: binds, recovers, serves, and stops in order.

mod changes;
mod dns;
mod identity;
pub mod peers;
mod reload;
mod remote;
mod settings;
mod watches;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use proconsul_core::Text;
use proconsul_core::ids::Uuid;
use proconsul_io_real::dns::Settings;
use proconsul_io_real::driver::End;
use proconsul_io_real::engine::{Engine, Parts, StartError, random};
use proconsul_io_real::files::{DataDir, DataDirError};
use proconsul_io_real::gate::Gate;
use proconsul_io_real::gossip::{self, Sockets};
use proconsul_io_real::http;
use proconsul_io_real::metrics;
use proconsul_io_real::probe::SocketProber;
use proconsul_io_real::process::Process as _;
use proconsul_io_real::resolver::SystemResolver;
use proconsul_io_real::tls::{Acceptor, TlsError};
use proconsul_io_real::wire::{self, Identity, TcpWire};
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::changes::Changes;
pub use self::identity::FILE as NODE_ID_FILE;
use self::peers::{BadPeers, Recovery};
pub use self::reload::Reread;
use self::reload::{Around, Follows};
use crate::client::Client;
use crate::config::{Config, ConfigError, Listen};

/// How long a leave may take (Consul's documentation, «consul leave»).
const LEAVE_TIMEOUT: Duration = Duration::from_secs(15);

/// For how long connections are kept after a leave.
const FAREWELL: Duration = Duration::from_millis(250);
/// How often it is looked whether a recovery has had its effect.
const POLL: Duration = Duration::from_millis(100);

/// Why the daemon cannot start. One line for the operator.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// An address is taken or not ours.
    #[error(transparent)]
    Listen(#[from] http::ListenError),
    /// A DNS address is taken or not ours.
    #[error(
        "cannot listen for DNS on {address}: {error}; stop the other program, or set another address or port"
    )]
    Dns {
        /// The address.
        address: std::net::SocketAddr,
        /// The system's words.
        error: std::io::Error,
    },
    /// DNS within TLS has nothing to show.
    #[error("ports.dns_tls and ports.dns_https need tls.https.cert_file and tls.https.key_file")]
    DnsCertificate,
    /// A recursor cannot be found.
    #[error("{0}; correct recursors")]
    Recursor(String),
    /// The mode of a Unix socket cannot be set.
    #[error("cannot set the mode of {path}: {error}; correct unix_sockets.mode or move the socket")]
    SocketMode {
        /// The socket.
        path: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
    /// The owner of a Unix socket cannot be set.
    #[error(
        "cannot give {path} to its owner: {error}; correct unix_sockets.user and unix_sockets.group, or run as root"
    )]
    SocketOwner {
        /// The socket.
        path: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A port of gossip is taken.
    #[error(transparent)]
    Gossip(#[from] gossip::BindError),
    /// The port of RPC is taken.
    #[error(transparent)]
    Wire(#[from] wire::BindError),
    /// A watch makes no sense.
    #[error(transparent)]
    Watch(#[from] ConfigError),
    /// `peers.json` cannot be used.
    #[error(transparent)]
    Peers(#[from] BadPeers),
    /// The node cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system refuses something.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// A running agent.
pub struct Daemon {
    runtime: Runtime,
    engine: Engine,
    /// Its identity.
    pub id: Uuid,
    sockets: Vec<PathBuf>,
    signals: Signals,
}

/// Signals that the agent answers to.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    around: Arc<Around>,
}

/// A signal that ends the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT: somebody at a terminal.
    Interrupt,
    /// SIGTERM: the system's manager of services.
    Terminate,
}

impl StopSignal {
    /// Its name, as Consul prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            StopSignal::Interrupt => "interrupt",
            StopSignal::Terminate => "terminated",
        }
    }
}

impl Signals {
    /// The next signal that is meant to end the agent.
    async fn stop(&mut self) -> StopSignal {
        loop {
            tokio::select! {
                Some(()) = self.interrupt.recv() => return StopSignal::Interrupt,
                Some(()) = self.terminate.recv() => return StopSignal::Terminate,
                Some(()) = self.hang_up.recv() => {
                    tracing::info!("Caught signal: hangup");
                    // It says itself what came of it.
                    let _ = self.around.reload().await;
                }
            }
        }
    }

    fn catch(around: Arc<Around>) -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            around,
        })
    }
}

impl Daemon {
    /// Starts everything. On return the agent serves; no request that came before was lost. `reread` reads the
    /// configuration again when that is asked for.
    ///
    /// # Errors
    /// Something cannot be bound, used or recovered. Nothing is left running then.
    pub fn start(config: &Config, reread: Reread) -> Result<Daemon, DaemonError> {
        // First: the start may take its time, and what changes meanwhile counts.
        let changes = config.auto_reload.then(|| Changes::new(config));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().thread_name("proconsul-io").enable_all().build()?;
        let entered = runtime.enter();
        // Before the ports: an agent that runs already on this directory mostly has them, too, and its number says more.
        let data_dir = config.data_dir.as_deref().map(DataDir::take).transpose()?;
        let mut listeners = Vec::new();
        let mut sockets = Vec::new();
        for listen in &config.http {
            listeners.push(match listen {
                Listen::Tcp(address) => http::Listener::tcp(*address)?,
                Listen::Unix(path) => {
                    sockets.push(path.clone());
                    let listener = http::Listener::unix(path)?;
                    // Nothing is accepted before owner and mode are right.
                    let (user, group) = config.unix_socket_owner;
                    if user.is_some() || group.is_some() {
                        std::os::unix::fs::chown(path, user, group)
                            .map_err(|error| DaemonError::SocketOwner { path: path.clone(), error })?;
                    }
                    if let Some(mode) = config.unix_socket_mode {
                        std::fs::set_permissions(path, Permissions::from_mode(mode))
                            .map_err(|error| DaemonError::SocketMode { path: path.clone(), error })?;
                    }
                    listener
                }
            });
        }
        let watched = watches::read(&config.settings)?;
        let served = dns::settings(config).map_err(DaemonError::Recursor)?;
        let https = https(config)?;
        if let Some(acceptor) = &https {
            for listen in &config.https {
                if let Listen::Tcp(address) = listen {
                    let listener = http::Listener::tcp(*address)?;
                    listeners.push(listener.over_tls(acceptor.clone(), config.tls.handshake));
                }
            }
        }
        let dns = dns::bind(&runtime, &config.dns_listen)?;
        let private = dns::bind_private(&runtime, config)?;
        let configured = config.node_id;
        let id = identity::establish(configured, data_dir.as_ref().map(DataDir::path), config.server)?;
        let gossip = Sockets::bind(config.serf_lan_bind, config.serf_wan_bind.filter(|_| config.server))?;
        let wire = wire(config, id)?;
        let recovery = match &data_dir {
            Some(dir) if config.server => Recovery::read(dir.path(), id)?,
            _ => None,
        };
        if let (Some(dir), false) = (&data_dir, config.server) {
            warn_of_former_server(dir.path());
        }
        let membership = recovery.as_ref().map(|recovery| recovery.membership.clone());
        let prober = match &config.tls.checks {
            Some(tls) => SocketProber::with_tls(tls)?,
            None => SocketProber::default(),
        };
        let mut engine = Engine::start(Parts {
            config: settings::node(config, id, membership),
            data_dir,
            wire: Box::new(wire),
            gossip: Box::new(gossip),
            resolver: Arc::new(SystemResolver),
            prober: Arc::new(prober),
            runtime: runtime.handle().clone(),
        })?;
        if let Some(recovery) = recovery {
            runtime.spawn(put_aside(recovery, engine.gate.clone()));
        }
        // Before anybody can know that the agent is up, and not before: a long recovery can be interrupted.
        let names = Settings::new(served);
        let own = Client::in_process(engine.gate.clone());
        let watches = watches::Watches::new(runtime.handle().clone(), own.clone());
        watches.replace(watched);
        if let Some(jobs) = engine.jobs.take() {
            runtime.spawn(remote::run(jobs, own, config.node_name.clone()));
        }
        let per_client = Arc::new(AtomicUsize::new(config.limits.http_max_conns_per_client));
        let follows = Follows {
            names: names.clone(),
            per_client: Arc::clone(&per_client),
            https,
            private: private.acceptors.clone(),
            watches,
        };
        let around = Arc::new(Around::new(engine.gate.clone(), reread, config, follows));
        let signals = Signals::catch(Arc::clone(&around))?;
        if let Some(changes) = changes {
            runtime.spawn(changes.follow(Arc::clone(&around)));
        }
        let gate = engine.gate.clone().with_process(around);
        gate.metrics().set(config.telemetry.clone());
        runtime.spawn(metrics::run(gate.clone()));
        let bounds = http::Bounds {
            per_client,
            header_bytes: config.limits.max_header_bytes.unwrap_or(http::HEADERS_BYTES_DEFAULT),
            idle: Some(config.limits.http_idle_timeout).filter(|timeout| !timeout.is_zero()),
        };
        let site = http::Site::new(gate.clone(), bounds).with_cache().with_pages(config.ui_dir.clone());
        for listener in listeners {
            runtime.spawn(http::listen(listener, site.clone()));
        }
        dns::serve(&runtime, dns, private, &names, &gate)?;
        drop(entered);
        Ok(Daemon { runtime, engine, id, sockets, signals })
    }

    /// Waits for a signal to stop; `None` when the node has ended by itself. A hang-up makes the agent read its
    /// configuration again.
    #[must_use]
    pub fn wait(&mut self) -> Option<StopSignal> {
        let Daemon { runtime, engine, signals, .. } = self;
        runtime.block_on(async {
            tokio::select! {
                signal = signals.stop() => Some(signal),
                () = engine.gate.closed() => None,
            }
        })
    }

    /// Leaves the cluster in good order. True when that is done; false when a second signal came, or it took too
    /// long.
    #[must_use]
    pub fn leave(&mut self) -> bool {
        let Daemon { runtime, engine, signals, .. } = self;
        engine.leave();
        runtime.block_on(async {
            tokio::select! {
                () = engine.gate.closed() => true,
                _ = signals.stop() => false,
                () = tokio::time::sleep(LEAVE_TIMEOUT) => false,
            }
        })
    }

    /// Stops the node, then the front-ends, and says how the node ended.
    pub fn stop(self) -> End {
        let end = self.engine.stop();
        if end == End::Left {
            // Whoever asked for it over HTTP is told: the answer is on its way.
            self.runtime.block_on(async { tokio::time::sleep(FAREWELL).await });
        }
        self.runtime.shutdown_background();
        for path in self.sockets {
            // A socket file that stays behind is replaced by the next start.
            let _ = std::fs::remove_file(path);
        }
        end
    }
}

/// Puts `peers.json` aside once the group's first leader has written the new members into the log. Until then a restart
/// needs the file again.
async fn put_aside(recovery: Recovery, gate: Gate) {
    // Nothing is applied before that leader's first entry, which holds the members.
    let before = gate.published().lease.applied;
    while gate.published().lease.applied == before {
        tokio::select! {
            () = gate.closed() => return,
            () = tokio::time::sleep(POLL) => {}
        }
    }
    match recovery.done() {
        Ok(()) => tracing::info!(
            "the members in raft/peers.json are those of the Raft group; the file was put aside"
        ),
        Err(error) => tracing::error!("{error}"),
    }
}

/// What HTTPS listeners show, if there are any and they have something to show.
fn https(config: &Config) -> Result<Option<Acceptor>, DaemonError> {
    match &config.tls.https {
        Some(tls) if !config.https.is_empty() => Ok(Some(Acceptor::new(tls)?)),
        None if !config.https.is_empty() => {
            tracing::warn!("ports.https is set, but not cert_file and key_file: HTTPS is not served");
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// Connections with other agents. Only servers take them; client agents open theirs.
fn wire(config: &Config, id: Uuid) -> Result<TcpWire, DaemonError> {
    let mut instance = [0; 8];
    random(&mut instance)?;
    let me =
        Identity { id, datacenter: Text::new(&config.datacenter), instance: u64::from_ne_bytes(instance) };
    if config.server {
        Ok(TcpWire::bind(config.rpc_bind, me)?)
    } else {
        Ok(TcpWire::client(me, Some(config.bind_addr)))
    }
}

/// A client agent on the directory of a server is asked for now and then: by mistake, or to make a server a client for
/// good. The state of the server is left alone, so that either can be undone.
fn warn_of_former_server(data_dir: &Path) {
    let log = data_dir.join("raft").join("log");
    if std::fs::read_dir(&log).is_ok_and(|mut files| files.next().is_some()) {
        tracing::warn!(
            "this agent is a client, and {} holds the log of a server: start it with -server if that is a mistake, or remove the directory",
            log.display()
        );
    }
}
