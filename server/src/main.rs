//! The `syncline` binary. The only place that names concrete back ends.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt::{self, Display};
use std::future::Future;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, Signal as ProcessSignal, getrlimit, setrlimit};
use serde_json::{Value, json};
use sync_core::model::EpochReason;
use syncline_server::auth::dev_issuer::DevIssuer;
use syncline_server::auth::jwt::Verifier;
use syncline_server::auth::setup;
use syncline_server::backup::{self, BackupArgs, BackupError, RestoreArgs};
use syncline_server::causes::with_causes;
use syncline_server::checks::Checks;
use syncline_server::cli::{self, DeviceArgs};
use syncline_server::clock::{Clock as _, SystemClock, SystemRandom, SystemSleep};
use syncline_server::config::{AuthConfig, Config, Duration, FanoutConfig, HookConfig, ServerConfig, StoreUrl};
use syncline_server::copy::{Copied, copy};
use syncline_server::data_folder::DataFolder;
use syncline_server::deps::{Deps, Stopping};
use syncline_server::fanout;
use syncline_server::hook::HttpHook;
use syncline_server::http::Entrance;
use syncline_server::metrics::Metrics;
use syncline_server::open::{self, DATABASE, OpenStore};
use syncline_server::service::hook::PushHook;
use syncline_server::service::{Service, ServiceParts, ServiceSettings};
use syncline_server::store::TablesVersion;
use syncline_server::store::metered::MeteredStore;
use syncline_server::tls::Tls;
use syncline_server::{http, telemetry};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

/// Many small values live for a request, on several threads: it takes less time and gives more memory back than the
/// system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Offline-first sync that you host yourself: the server, and a device on the command line
#[derive(Parser)]
#[command(name = "syncline", version, after_long_help = HELP)]
struct Cli {
    /// Print JSON, and errors as {"error":{"code","message"}} on standard error
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the server
    Serve(ServeArgs),
    /// Print a token of the dev issuer, to sign in with where `serve --dev` runs
    Token(TokenArgs),
    /// Say that the data folder was put back from a backup, before the server starts on it
    Fence(FenceArgs),
    Backup(BackupArgs),
    Restore(RestoreArgs),
    Migrate(MigrateArgs),
    Copy(CopyArgs),
    /// Say whether the server would start, line by line, without starting it
    ///
    /// Takes what `serve` takes, prints a line for each thing that was looked at, and ends with 2 if one is wrong.
    CheckConfig(ServeArgs),
    Device(DeviceArgs),
}

/// Start the server
///
/// The first line on standard output is its address; the log is on standard error.
#[derive(Args)]
struct ServeArgs {
    /// Settings that differ from the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:8650]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The data folder [default: syncline-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Take tokens of the embedded dev issuer, which `syncline token` signs for any user. Not for real users' data
    #[arg(long)]
    dev: bool,
}

#[derive(Args)]
struct TokenArgs {
    #[command(flatten)]
    login: Login,
    /// The data folder of the server, which need not run [default: syncline-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How long the token is good
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    expires: Duration,
}

/// For whom a token is.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Login {
    /// The user who signs in
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    user: Option<String>,
    /// The back-end job that signs in; it may read and write for every user
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    service: Option<String>,
}

/// Say that a data folder or a database was put back from a backup, before servers start on it
///
/// Devices then find out that the server lost what was written since the backup, and keep what they know of it.
#[derive(Args)]
struct FenceArgs {
    /// The data folder
    #[arg(long, value_name = "DIR", required_unless_present = "config", conflicts_with = "config")]
    data: Option<PathBuf>,
    /// Settings that name the store instead
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The backup was put back to undo what came after it: devices do not offer that again
    #[arg(long)]
    discard: bool,
}

/// Make the tables of the store, or bring them up to date
///
/// To be run before the first start, and after each update before the servers are started anew. The store is the one of
/// the configuration.
#[derive(Args)]
struct MigrateArgs {
    /// Settings that differ from the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Copy a store to an empty one, which then takes its place
///
/// From then on the source can be read and takes no writes, also after the copy. Devices go on with the target as if
/// nothing had happened. A copy that was interrupted goes on when it is started again. Stores are sqlite:FOLDER (stop the
/// server first), mysql://USER:PASSWORD@HOST:PORT/DATABASE, and dynamodb://TABLE?region=REGION.
#[derive(Args)]
struct CopyArgs {
    /// The store that is copied
    #[arg(long, value_name = "STORE", env = "SYNCLINE_COPY_FROM", hide_env_values = true)]
    from: StoreUrl,
    /// The store that takes its place: `syncline migrate` has made its tables
    #[arg(
        long,
        value_name = "STORE",
        env = "SYNCLINE_COPY_TO",
        hide_env_values = true,
        required_unless_present = "give_up"
    )]
    to: Option<StoreUrl>,
    /// Do not copy after all: let the source take writes again
    #[arg(long, conflicts_with = "to")]
    give_up: bool,
}

const HELP: &str = "\
Try it out:
  syncline serve --dev
  syncline token --user ada > ada.token

Exit codes:
  0  success
  1  failure, for a reason that no other code names
  2  the command, its input or the configuration is wrong
  3  synced, and a question of the policy `ask` waits for an answer
  4  synced, and the server refused changes, which are parked
  5  the server could not be reached, or could not serve, in time
  6  not signed in: no token, or it is not taken
  7  no such record, dataset or entry";

const FAILURE: u8 = 1;
const USAGE: u8 = 2;

/// How often a copy says how far it is.
const COPY_TOLD_EVERY: std::time::Duration = std::time::Duration::from_secs(5);
/// How often tombstones are purged.
const PURGE_EVERY: std::time::Duration = std::time::Duration::from_secs(60 * 60);

/// Files that are open besides connections: the database for each who reads, the log, the event loop.
const FILES_BESIDE: u64 = 64;

/// Why a command failed, and how it ends.
struct Failed {
    exit: u8,
    message: String,
}

impl<E: Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { exit: FAILURE, message: with_causes(&error) }
    }
}

impl Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

fn usage(error: impl Into<Failed>) -> Failed {
    Failed { exit: USAGE, ..error.into() }
}

fn main() -> ExitCode {
    let Cli { json, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && std::env::args_os().any(|it| it == "--json") => {
            let message = error.to_string();
            let message = message.strip_prefix("error: ").unwrap_or(&message).trim_end().to_owned();
            return fail(Failed { exit: USAGE, message }, true);
        }
        Err(error) => error.exit(),
    };
    let result = match command {
        Command::Serve(args) => serve(args, json),
        Command::Token(args) => token(&args, json),
        Command::Fence(args) => fence(&args, json),
        Command::Backup(args) => back_up(&args, json),
        Command::Restore(args) => restore(&args, json),
        Command::Migrate(args) => migrate(&args, json),
        Command::Copy(args) => copy_store(&args, json),
        Command::CheckConfig(args) => check_config(args, json),
        Command::Device(args) => return ExitCode::from(cli::run(args, json) as u8),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => fail(failed, json),
    }
}

fn fail(Failed { exit, message }: Failed, json: bool) -> ExitCode {
    let code = if exit == USAGE { "InvalidParameter" } else { "InternalError" };
    let line = if json {
        json!({"error": {"code": code, "message": message}}).to_string()
    } else {
        format!("syncline: {message}")
    };
    // If standard error is closed, the exit code has to do.
    drop(writeln!(io::stderr(), "{line}"));
    ExitCode::from(exit)
}

fn serve(args: ServeArgs, json: bool) -> Result<(), Failed> {
    let ServeArgs { config: file, listen, data, dev } = args;
    let mut config = Config::load(file.as_deref(), std::env::vars_os()).map_err(usage)?;
    config.server.listen = listen.unwrap_or(config.server.listen);
    config.server.data = data.unwrap_or(config.server.data);
    telemetry::start(&config.log).map_err(usage)?;
    if !dev && config.auth.lets_nobody_in() {
        return Err(Failed { exit: USAGE, message: NO_ISSUER.to_owned() });
    }
    allow_open_files(config.server.connections_max);
    let tls = tls(&config.server)?;
    let folder = || DataFolder::open(&config.server.data);
    let dev_issuer = if dev { Some(Arc::new(DevIssuer::open(&folder()?, &SystemRandom)?)) } else { None };
    let verifier = Arc::new(setup::verifier(&config.auth, dev_issuer.as_deref()).map_err(usage)?);
    let runtime = Runtime::new()?;
    let opened = runtime.block_on(open_store(&config))?;
    let service = Arc::new(service(&opened, &config)?);
    let deps = Deps {
        service: Arc::clone(&service),
        verifier,
        clock: Arc::new(SystemClock),
        dev_issuer,
        server: config.server,
        rates: config.rates,
        stopping: Stopping::default(),
    };
    // A data folder has one server, which has nobody to tell anything.
    let fanout = config.store.is_shared().then_some(config.fanout);
    let served = runtime.block_on(run(deps, tls, config.auth.keys_refresh, fanout, json));
    // What still runs ends before the store that it uses. The store ends with the last of its users: here.
    drop(runtime);
    drop(service);
    drop(opened);
    tracing::info!("stopped");
    served
}

/// Each connection is an open file, of which the system allows few by itself.
fn allow_open_files(connections_max: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = current == maximum || setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let allowed = if raised { maximum } else { current }.unwrap_or(u64::MAX);
    if allowed < connections_max as u64 + FILES_BESIDE {
        tracing::warn!(allowed, connections_max, "the system allows fewer open files than `connections_max` needs");
    }
}

/// Serves until a signal comes.
async fn run(
    deps: Deps,
    tls: Option<Arc<Tls>>,
    keys_refresh: Duration,
    fanout: Option<FanoutConfig>,
    json: bool,
) -> Result<(), Failed> {
    let told = stop_signal()?;
    let hangup = signal(SignalKind::hangup())?;
    // To write beyond a limit of the size of files is an error then, and not the end.
    let _size_limit = signal(SignalKind::from_raw(ProcessSignal::XFSZ.as_raw()))?;
    let config = deps.server.clone();
    let listener = bind(config.listen).await?;
    let address = format!("{}://{}", if tls.is_some() { "https" } else { "http" }, listener.local_addr()?);
    let mut beside = JoinSet::new();
    let fanout = fanout.map(|config| fanout::start(&config, &deps.service, &SystemRandom));
    if let Some(metrics_listen) = config.metrics_listen.filter(|_| !config.metrics_here()) {
        let listener = bind(metrics_listen).await?;
        tracing::info!("metrics at http://{}/metrics", listener.local_addr()?);
        let (router, config) = (http::metrics_router(deps.clone()), config.clone());
        // Who looks at the numbers does not count in them.
        let entrance = Entrance { listener, tls: None, metrics: Arc::default() };
        beside.spawn(async move { http::serve(entrance, router, &config, std::future::pending()).await });
    }
    print(json, &address, || json!({"address": address}))?;
    tracing::info!(address, dev = deps.dev_issuer.is_some(), "serving at {address}");
    beside.spawn(purge_often(Arc::clone(&deps.service)));
    beside.spawn(reload_often(hangup, tls.clone()));
    beside.spawn(refresh_keys_often(Arc::clone(&deps.verifier), keys_refresh));
    let (stopping, service, stop_delay) = (deps.stopping.clone(), Arc::clone(&deps.service), config.stop_delay.get());
    let stop = async move {
        told.await;
        stopping.begin();
        tokio::time::sleep(stop_delay).await;
        // Streams of events have no end of their own, and would be waited for.
        service.hints().close();
    };
    let entrance = Entrance { listener, tls, metrics: Arc::clone(deps.service.metrics()) };
    http::serve(entrance, http::router(deps, &address), &config, stop).await;
    // Whoever listens at other servers is to hear what was written here last.
    if let Some(fanout) = fanout {
        fanout.stop().await;
    }
    beside.shutdown().await;
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failed> {
    let failed = |error| Failed { exit: FAILURE, message: format!("cannot listen on {address}: {error}") };
    TcpListener::bind(address).await.map_err(failed)
}

/// Reads the certificate again whenever the operator asks for it. Without one, there is nothing to read.
async fn reload_often(mut hangup: Signal, tls: Option<Arc<Tls>>) {
    while hangup.recv().await.is_some() {
        match tls.as_ref().map(|tls| tls.reload()) {
            None => {}
            Some(Ok(())) => tracing::info!("read the certificate and its key again"),
            Some(Err(error)) => tracing::error!(error = with_causes(&error), "the certificate stays as it was"),
        }
    }
}

async fn purge_often(service: Arc<Service>) {
    loop {
        match service.purge().await {
            Ok(0) => {}
            Ok(steps) => tracing::info!(steps, "purged old tombstones"),
            Err(error) => tracing::error!(error = with_causes(&error), "failed to purge old tombstones"),
        }
        tokio::time::sleep(PURGE_EVERY).await;
    }
}

async fn refresh_keys_often(verifier: Arc<Verifier>, every: Duration) {
    loop {
        verifier.refresh_keys(SystemClock.now()).await;
        tokio::time::sleep(every.get()).await;
    }
}

/// Ready when the process is told to end.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}

fn token(args: &TokenArgs, json: bool) -> Result<(), Failed> {
    let issuer = DevIssuer::open(&data_folder(args.data.as_deref())?, &SystemRandom)?;
    let now = SystemClock.now();
    let expires_at = now.plus_ms(args.expires.ms());
    let token = match &args.login {
        Login { service: Some(name), .. } => issuer.service_token(name, now, expires_at)?,
        Login { user, .. } => issuer.token(user.as_deref().unwrap_or_default(), now, expires_at)?,
    };
    print(json, &token, || json!({"token": token, "expires_at": expires_at}))
}

fn fence(args: &FenceArgs, json: bool) -> Result<(), Failed> {
    let config = Config::load(args.config.as_deref(), std::env::vars_os()).map_err(usage)?;
    telemetry::start(&config.log).map_err(usage)?;
    let url = args.data.clone().map_or_else(|| store_url(&config), StoreUrl::Sqlite);
    check_there(&url)?;
    let runtime = Runtime::new()?;
    let opened = runtime.block_on(open::open(&url)).map_err(|error| named(&url, error))?;
    let why = if args.discard { EpochReason::RolledBack } else { EpochReason::Fenced };
    let datasets = runtime.block_on(service(&opened, &config)?.fence(why))?;
    print(json, &format!("fenced {datasets} datasets"), || json!({"datasets": datasets, "why": why}))
}

/// The store of the configuration.
fn store_url(config: &Config) -> StoreUrl {
    config.store.url.clone().unwrap_or_else(|| StoreUrl::Sqlite(config.server.data.clone()))
}

/// Fails where opening a store would make an empty one.
fn check_there(url: &StoreUrl) -> Result<(), Failed> {
    match url {
        StoreUrl::Sqlite(data) if !data.join(DATABASE).is_file() => {
            Err(Failed { exit: USAGE, message: format!("there is no database in {}", data.display()) })
        }
        _ => Ok(()),
    }
}

fn back_up(args: &BackupArgs, json: bool) -> Result<(), Failed> {
    let BackupArgs { target, data } = args;
    let config = Config::load(None, std::env::vars_os()).map_err(usage)?;
    let data = match (data, &config.store.url) {
        (Some(data), _) => data,
        (None, Some(url)) => {
            let message = format!("{url} is backed up with the tools of its database; --data names a data folder");
            return Err(Failed { exit: USAGE, message });
        }
        (None, None) => &config.server.data,
    };
    let bytes = backup::back_up(data, target, DATABASE, open::copy_file).map_err(of_backup)?;
    let target = target.display().to_string();
    print(json, &format!("backed up {bytes} bytes to {target}"), || json!({"backup": target, "bytes": bytes}))
}

fn restore(args: &RestoreArgs, json: bool) -> Result<(), Failed> {
    let RestoreArgs { backup, data, replace, discard } = args;
    let config = Config::load(None, std::env::vars_os()).map_err(usage)?;
    telemetry::start(&config.log).map_err(usage)?;
    if !backup.join(DATABASE).is_file() {
        return Err(of_backup(BackupError::NoDatabase(backup.clone())));
    }
    let why = if *discard { EpochReason::RolledBack } else { EpochReason::Fenced };
    let check_and_fence = |draft: &DataFolder| -> Result<usize, Failed> {
        open::check_file(&draft.path().join(DATABASE))?;
        let service = service(&open::open_unlocked(draft)?, &config)?;
        Ok(Runtime::new()?.block_on(service.fence(why))?)
    };
    let prepare = |draft: &DataFolder| check_and_fence(draft).map_err(RestoreFailed);
    let restored = backup::restore(backup, &DataFolder::open(data)?, DATABASE, *replace, prepare);
    let (datasets, aside) = restored.map_err(|RestoreFailed(failed)| failed)?;
    let aside = aside.map(|path| path.display().to_string());
    let mut text = format!("restored {}, and fenced {datasets} datasets", data.display());
    if let Some(aside) = &aside {
        text = format!("{text}; what was there is in {aside}");
    }
    print(json, &text, || json!({"datasets": datasets, "why": why, "replaced": aside}))
}

/// Why a restore did not come to its end.
struct RestoreFailed(Failed);

impl From<BackupError> for RestoreFailed {
    fn from(error: BackupError) -> Self {
        Self(of_backup(error))
    }
}

fn of_backup(error: BackupError) -> Failed {
    if error.is_usage() { usage(error) } else { error.into() }
}

fn migrate(args: &MigrateArgs, json: bool) -> Result<(), Failed> {
    let config = Config::load(args.config.as_deref(), std::env::vars_os()).map_err(usage)?;
    telemetry::start(&config.log).map_err(usage)?;
    let url = store_url(&config);
    let migrated = Runtime::new()?.block_on(open::migrate(&url));
    let TablesVersion { found, known } = migrated.map_err(|error| named(&url, error))?;
    let text = match found {
        _ if found == known => format!("{url} was up to date"),
        0 => format!("{url} has its tables now"),
        _ => format!("{url} was brought from version {found} to {known}"),
    };
    print(json, &text, || json!({"store": url.to_string(), "found": found, "version": known}))
}

fn copy_store(args: &CopyArgs, json: bool) -> Result<(), Failed> {
    let config = Config::load(None, std::env::vars_os()).map_err(usage)?;
    telemetry::start(&config.log).map_err(usage)?;
    let CopyArgs { from, to, give_up: _ } = args;
    check_there(from)?;
    let runtime = Runtime::new()?;
    let open_one = |url: &StoreUrl| runtime.block_on(open::open(url)).map_err(|error| named(url, error));
    let Some(to) = to else {
        runtime.block_on(open_one(from)?.store.transfer().set_read_only(false))?;
        return print(
            json,
            &format!("{from} takes writes again"),
            || json!({"from": from.to_string(), "gave_up": true}),
        );
    };
    if from.to_string() == to.to_string() {
        return Err(Failed { exit: USAGE, message: format!("{from} cannot be copied to itself") });
    }
    let (source, target) = (open_one(from)?, open_one(to)?);
    let mut told = std::time::Instant::now();
    let progress = |Copied { datasets, records, .. }| {
        if told.elapsed() >= COPY_TOLD_EVERY {
            told = std::time::Instant::now();
            tracing::info!(datasets, records, "copied {} so far", cli::count(datasets, "dataset"));
        }
    };
    let copied = runtime.block_on(copy(&*source.store, &*target.store, progress));
    let Copied { owners, datasets, records } = copied.map_err(|error| {
        let failed = Failed::from(error);
        let message = format!(
            "{failed}; if the copy had begun, {from} takes no writes: start it again, or `syncline copy --from {from} \
             --give-up`"
        );
        Failed { message, ..failed }
    })?;
    let text = format!(
        "copied {} with {} that were not there yet; {from} takes no more writes, start the servers with {to}",
        cli::count(datasets, "dataset"),
        cli::count(records, "record")
    );
    print(
        json,
        &text,
        || json!({"from": from.to_string(), "to": to.to_string(), "owners": owners, "datasets": datasets, "records": records}),
    )
}

fn check_config(args: ServeArgs, json: bool) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let file = args.config.as_ref().map_or_else(|| "defaults".to_owned(), |file| file.display().to_string());
    let config = Config::load(args.config.as_deref(), std::env::vars_os()).map_err(Failed::from);
    match config {
        Ok(config) => {
            checks.note("configuration", Ok::<_, Failed>(format!("{file} and the environment")));
            check_parts(args, config, &mut checks);
        }
        Err(failed) => checks.note("configuration", Err(failed)),
    }
    print(json, &checks.to_text(), || checks.to_json())?;
    if checks.is_ok() {
        return Ok(());
    }
    Err(Failed { exit: USAGE, message: "the server would not start".to_owned() })
}

fn check_parts(args: ServeArgs, config: Config, checks: &mut Checks) {
    let ServeArgs { config: _, listen, data, dev } = args;
    let data = data.unwrap_or_else(|| config.server.data.clone());
    checks.note("log", telemetry::check(&config.log).map(|()| config.log.level.clone()));
    if dev || config.store.url.is_none() {
        let there = DataFolder::try_out(&data).map_err(Failed::from);
        let state = |there| if there { "can be written" } else { "will be made" };
        checks.note("data folder", there.map(|there| format!("{} {}", data.display(), state(there))));
    }
    checks.note("store", check_store(config.store.url.as_ref(), &data));
    let secure = |tls: Option<_>| if tls.is_some() { "certificate and key belong together" } else { "off" };
    checks.note("fanout", check_fanout(&config));
    checks.note("tls", tls(&config.server).map(|tls| secure(tls).to_owned()));
    let listen = listen.unwrap_or(config.server.listen);
    for (what, address) in [("listen", Some(listen)), ("metrics", config.server.metrics_listen)] {
        let Some(address) = address.filter(|address| what == "listen" || *address != listen) else { continue };
        let bound = std::net::TcpListener::bind(address);
        checks.note(what, bound.map(|_| format!("{address} is free")).map_err(|error| format!("{address}: {error}")));
    }
    let asked = |hook: Option<_>| if hook.is_some() { "is set up, and not asked now" } else { "off" };
    checks.note("hook", hook(&config.hook).map(|hook| asked(hook).to_owned()));
    check_issuers(&config.auth, dev, checks);
}

/// Connects to the store, and says what a server would find.
fn check_store(url: Option<&StoreUrl>, data: &Path) -> Result<String, Failed> {
    let in_folder = StoreUrl::Sqlite(data.to_owned());
    let version = Runtime::new()?.block_on(open::version(url.unwrap_or(&in_folder)));
    let place = url.map_or_else(|| data.join(DATABASE).display().to_string(), ToString::to_string);
    match (version.map_err(|error| named(&place, error))?, url) {
        (TablesVersion { found, known }, _) if found == known => Ok(format!("{place} is up to date")),
        (TablesVersion { found: 0, .. }, None) => Ok(format!("{place} will be made")),
        (TablesVersion { found, known }, None) => {
            Ok(format!("{place} will be brought from version {found} to {known}"))
        }
        (TablesVersion { found: 0, .. }, Some(_)) => {
            Err(Failed { exit: USAGE, message: format!("{place} has no tables yet: run `syncline migrate`") })
        }
        (TablesVersion { found, known }, Some(_)) => {
            let message = format!("{place} has version {found} and not {known}: run `syncline migrate`");
            Err(Failed { exit: USAGE, message })
        }
    }
}

/// Connects to what tells other servers what happens here.
fn check_fanout(config: &Config) -> Result<String, Failed> {
    let FanoutConfig { url, poll_interval } = &config.fanout;
    let Some(url) = url else {
        return Ok(if config.store.is_shared() {
            format!("off: the store is asked every {poll_interval} for what other servers have written")
        } else {
            "off: a data folder has one server".to_owned()
        });
    };
    Runtime::new()?.block_on(fanout::try_out(url)).map_err(|error| named(url, error))?;
    Ok(format!("{url} tells other servers on the channel `{}`", url.channel()))
}

/// A failure, and of what.
fn named(what: &dyn Display, error: impl Error) -> Failed {
    let Failed { exit, message } = error.into();
    Failed { exit, message: format!("{what}: {message}") }
}

/// Whose tokens are taken, and whether their keys can be had.
fn check_issuers(config: &AuthConfig, dev: bool, checks: &mut Checks) {
    if dev {
        checks.note("issuer", Ok::<_, Failed>("the dev issuer".to_owned()));
    } else if config.lets_nobody_in() {
        checks.note("issuer", Err(Failed { exit: USAGE, message: NO_ISSUER.to_owned() }));
    }
    let tried = setup::verifier(config, None).map_err(Failed::from).and_then(|verifier| {
        let runtime = Runtime::new()?;
        Ok(runtime.block_on(verifier.try_keys(SystemClock.now())))
    });
    match tried {
        Ok(tried) => {
            for (issuer, keys) in tried {
                let problem =
                    |error| Failed { message: format!("{issuer}: {}", Failed::from(error).message), exit: USAGE };
                checks.note("issuer", keys.map(|()| format!("{issuer}: its keys are there")).map_err(problem));
            }
        }
        Err(failed) => checks.note("issuer", Err(failed)),
    }
}

fn data_folder(chosen: Option<&Path>) -> Result<DataFolder, Failed> {
    let config = Config::load(None, std::env::vars_os()).map_err(usage)?;
    Ok(DataFolder::open(chosen.unwrap_or(&config.server.data))?)
}

/// Opens the store of the configuration.
async fn open_store(config: &Config) -> Result<OpenStore, Failed> {
    let Some(url) = &config.store.url else {
        return Ok(open::open(&StoreUrl::Sqlite(config.server.data.clone())).await?);
    };
    open::open(url).await.map_err(|error| named(url, error))
}

fn service(opened: &OpenStore, config: &Config) -> Result<Service, Failed> {
    let mut metrics = Metrics::new(opened.bytes());
    if let Some(units) = opened.units() {
        metrics.print_units(units);
    }
    let metrics = Arc::new(metrics);
    let parts = ServiceParts {
        store: Arc::new(MeteredStore::new(Arc::clone(&opened.store), Arc::clone(&metrics))),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        sleep: Arc::new(SystemSleep),
        hook: hook(&config.hook)?,
        metrics,
    };
    let settings = ServiceSettings {
        limits: config.limits.clone(),
        tombstone_age_ms: config.retention.tombstones.ms(),
        ..ServiceSettings::default()
    };
    Ok(Service::new(parts, settings))
}

fn hook(config: &HookConfig) -> Result<Option<Arc<dyn PushHook>>, Failed> {
    Ok(HttpHook::new(config).map_err(usage)?.map(|hook| Arc::new(hook) as Arc<dyn PushHook>))
}

fn tls(config: &ServerConfig) -> Result<Option<Arc<Tls>>, Failed> {
    let (Some(certificate), Some(key)) = (&config.tls_certificate, &config.tls_key) else { return Ok(None) };
    Ok(Some(Arc::new(Tls::load(certificate, key).map_err(usage)?)))
}

/// Prints the one line that a command is for.
fn print(json: bool, text: &str, as_json: impl FnOnce() -> Value) -> Result<(), Failed> {
    let line = if json { as_json().to_string() } else { text.to_owned() };
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

const NO_ISSUER: &str = "it is not configured whose tokens are taken. To try Syncline out, start it with --dev and \
    sign in with `syncline token --user NAME`. For real users add [[auth.issuers]] with issuer and audiences to a file \
    given with --config";
