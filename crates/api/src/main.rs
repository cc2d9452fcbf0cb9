//! `pvc-api`: reads its configuration, connects to the state store, and serves.

use std::{
    error::Error,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use pvc_api::{Api, Gate, Limits, Server, Tls, openapi, watch};
use pvc_config::{ApiConfig, ApiReport, connect_string, load_api};
use pvc_operate::Cluster;
use pvc_store::{
    Store,
    zookeeper::{Options, ZooKeeperStore},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tracing::{Level, info, warn};

/// As for `pvcd`: it does not become better by trying again.
const UNUSABLE_CONFIGURATION: u8 = 78;

/// How long changes that are being made may go on when the service is to end: the unit gives 5 s.
const END_WITHIN: Duration = Duration::from_secs(3);

/// The HTTP API of a Parallel Virtual Cluster.
#[derive(Parser)]
#[command(name = "pvc-api", version)]
struct Args {
    /// Check the configuration, say what is wrong, and end.
    #[arg(long)]
    check_config: bool,
    /// Print the description of /api/v2 (OpenAPI), and end.
    #[arg(long)]
    openapi: bool,
    /// The configuration.
    #[arg(long, env = "PVC_CONFIG_FILE", default_value = "/etc/pvc/pvc-api.yaml", value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.openapi {
        // Nobody is left to be told when this fails.
        let _ = writeln!(std::io::stdout(), "{:#}", openapi());
        return ExitCode::SUCCESS;
    }
    let report = load_api(&args.config);
    say(&report);
    let Some(config) = report.config else { return ExitCode::from(UNUSABLE_CONFIGURATION) };
    if args.check_config {
        return check(&config);
    }
    let level = if config.debug { Level::DEBUG } else { Level::INFO };
    // The journal has the time.
    tracing_subscriber::fmt().with_max_level(level).with_target(false).with_ansi(false).without_time().init();
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether what the configuration names is there, too.
fn check(config: &ApiConfig) -> ExitCode {
    let Some(files) = &config.tls else { return ExitCode::SUCCESS };
    let loaded = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(Tls::load(files)).map_err(Box::<dyn Error>::from));
    let (said, code) = match loaded {
        Ok(tls) => (tls.to_string(), ExitCode::SUCCESS),
        Err(error) => (format!("error: {error}"), ExitCode::from(UNUSABLE_CONFIGURATION)),
    };
    // Nobody is left to be told when this fails.
    let _ = writeln!(std::io::stderr(), "{said}");
    code
}

fn say(report: &ApiReport) {
    let mut stderr = std::io::stderr().lock();
    let colour = stderr.is_terminal();
    for diagnostic in &report.diagnostics {
        // Nobody is left to be told when this fails.
        let _ = writeln!(stderr, "{}", diagnostic.render(colour));
    }
}

fn run(config: &ApiConfig) -> Result<(), Box<dyn Error>> {
    // Answers are made from what ZooKeeper says: two threads wait as well as many.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let place = connect_string(&config.coordinators);
        let store: Arc<dyn Store> = ZooKeeperStore::start(Options::new(place.as_str()));
        let limits = Limits::default();
        let gate = Gate::new(config.authentication.as_ref(), config.listen.ip().is_loopback(), limits);
        let cluster = Cluster::new(store, place);
        let (gate, tls, scheme) = match &config.tls {
            Some(files) => {
                let tls = Tls::load(files).await?;
                info!("TLS: {tls}");
                (gate.behind_tls(), Some(tls), "https")
            }
            None => (gate, None, "http"),
        };
        let server = Server::bind(config.listen, tls)
            .await
            .map_err(|error| format!("cannot listen on {}: {error}", config.listen))?;
        info!("the API is served on {scheme}://{}", server.address()?);
        let api = Arc::new(Api::new(cluster, gate, limits));
        tokio::select! {
            () = watch(&api) => {}
            never = server.serve(Arc::clone(&api)) => match never {},
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if timeout(END_WITHIN, api.end()).await.is_err() {
            warn!("the API ends in the middle of changes, or before the state tree has taken who made them");
        }
        info!("the API ends");
        Ok(())
    })
}
