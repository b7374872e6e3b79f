//! Stand-ins for everything outside the product, on loopback, speaking the real protocols: the bucket (S3), the AI
//! provider (kie.ai), payments (creem), and sign-in with Google and GitHub. No account, tunnel or network is needed.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let sandbox = sandbox::Sandbox::start(sandbox::Config {
//!     listen: "127.0.0.1:0".parse()?,
//!     dir: "bucket".into(),
//!     ..Default::default()
//! })
//! .await?;
//! let variables = sandbox.variables(); // hand these to the app
//! sandbox.control().fault(sandbox::Fault::KieNoCallback.once());
//! sandbox.shutdown().await;
//! # drop(variables);
//! # Ok(())
//! # }
//! ```

mod consent;
mod control;
mod credentials;
mod creem;
mod fault;
mod github;
mod google;
mod kie;
mod page;
mod picture;
mod s3;
pub mod signature;
mod world;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::middleware;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::Url;

pub use control::Control;
pub use credentials::Credentials;
pub use creem::{CheckoutView, FireError, Paid, PaymentEvent, Period, Product, SubscriptionView, default_products};
pub use fault::{ActiveRule, Fault, Rule, ServedResult};
pub use google::Credential;
pub use kie::{Family, TaskView};
pub use s3::BUCKET;
pub use world::{Call, Delivery, Places, Service, Settings};

use world::World;

/// The base address `spin.toml`'s defaults point at.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3100);

/// How a sandbox is to be.
#[derive(Debug, Clone)]
pub struct Config {
    /// The control endpoint; the stand-ins are on the next five ports. Port 0 takes six free ones.
    pub listen: SocketAddr,
    /// Where the bucket keeps its files. Made if missing.
    pub dir: PathBuf,
    /// Where webhooks and browsers go when the request itself does not say.
    pub app_url: Option<Url>,
    pub credentials: Credentials,
    pub settings: Settings,
    /// What the payment provider sells.
    pub products: Vec<Product>,
    /// Whether to keep silent on the terminal.
    pub quiet: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: DEFAULT_LISTEN,
            dir: ".sandbox".into(),
            app_url: None,
            credentials: Credentials::default(),
            settings: Settings::default(),
            products: default_products(),
            quiet: true,
        }
    }
}

/// A running sandbox. It stops when it is dropped.
pub struct Sandbox {
    world: Arc<World>,
    servers: Vec<JoinHandle<()>>,
}

impl Sandbox {
    /// Binds all ports, then serves. A port that is taken fails the start and is named.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let control = bind(config.listen, 0, "the control endpoint").await?;
        let mut listeners = Vec::new();
        for (service, offset) in Service::ALL.into_iter().zip(1..) {
            listeners.push(bind(config.listen, offset, service.name()).await?);
        }
        let mut places = Vec::new();
        for listener in std::iter::once(&control).chain(&listeners) {
            places.push(format!("http://{}", reachable(listener.local_addr()?)));
        }
        let [control_place, s3, kie, creem, google, github] =
            <[String; 6]>::try_from(places).map_err(|_| anyhow::anyhow!("one place for each of six"))?;
        let places = Places { control: control_place, s3, kie, creem, google, github };
        // s3s-fs wants the folder to be there, and a full path keeps it right if the process moves.
        std::fs::create_dir_all(&config.dir).with_context(|| format!("the folder {}", config.dir.display()))?;
        let dir = config.dir.canonicalize().with_context(|| format!("the folder {}", config.dir.display()))?;
        let world = World::new(places, config.credentials, dir, config.settings, config.products, config.app_url, config.quiet)?;
        let mut servers = vec![serve(&world, control, control::router(&world))];
        for (service, listener) in Service::ALL.into_iter().zip(listeners) {
            let router = match service {
                Service::S3 => s3::router(&world)?,
                Service::Kie => kie::router(&world),
                Service::Creem => creem::router(&world),
                Service::Google => google::router(&world),
                Service::Github => github::router(&world),
            };
            let router = router.layer(middleware::from_fn_with_state((Arc::clone(&world), service), world::remember));
            servers.push(serve(&world, listener, router));
        }
        Ok(Self { world, servers })
    }

    /// The app's variables, named as in `spin.toml`, that point it here: addresses and credentials.
    #[must_use]
    pub fn variables(&self) -> BTreeMap<String, String> {
        self.world.places.variables(&self.world.credentials)
    }

    /// Where everything runs.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.world.places
    }

    /// Where webhooks and browsers go when the request itself does not say.
    pub fn set_app_url(&self, url: Url) {
        self.world.set_app_url(Some(url));
    }

    /// Sets faults, shows what was heard, makes things happen.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.world))
    }

    /// Stops listening, ends what runs in the background, and waits for requests in flight, for a second at most.
    pub async fn shutdown(mut self) {
        self.world.stop();
        for server in std::mem::take(&mut self.servers) {
            let abort = server.abort_handle();
            if tokio::time::timeout(Duration::from_secs(1), server).await.is_err() {
                abort.abort();
            }
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.world.stop();
        for server in &self.servers {
            server.abort();
        }
    }
}

/// The variables of an app that meets the sandbox on its default port: the defaults of `spin.toml`.
#[must_use]
pub fn default_variables() -> BTreeMap<String, String> {
    let place = |offset: u16| format!("http://{}", SocketAddr::new(DEFAULT_LISTEN.ip(), DEFAULT_LISTEN.port() + offset));
    let places = Places { control: place(0), s3: place(1), kie: place(2), creem: place(3), google: place(4), github: place(5) };
    places.variables(&Credentials::default())
}

async fn bind(base: SocketAddr, offset: u16, what: &str) -> anyhow::Result<TcpListener> {
    let port = match base.port() {
        0 => 0,
        port => port.checked_add(offset).with_context(|| format!("no port is left for {what} after {port}"))?,
    };
    let address = SocketAddr::new(base.ip(), port);
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} ({what}); another sandbox may be running there: stop it, or choose another --listen")
    })
}

/// The address to call what listens here: nobody can call "any address".
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn serve(world: &Arc<World>, listener: TcpListener, router: Router) -> JoinHandle<()> {
    let stopped = world.stopped();
    let listener = listener.tap_io(|socket| {
        // Small answers must not wait for the next packet. A socket that refuses is slow, not wrong.
        let _ = socket.set_nodelay(true);
    });
    tokio::spawn(async move {
        let _ = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
    })
}
