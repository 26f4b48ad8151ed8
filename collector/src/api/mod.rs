//! HTTP for people and programs: the router, and what every answer has in common.
//!
//! It reads what others publish, reads files over read-only connections, and sends orders to the pipeline.
//! It never writes. Every path but those for machines stands in `/openapi.json`, which the code makes.

mod admin;
mod alert_orders;
mod alerts;
mod approvals;
mod authority;
mod backup;
mod body;
mod caller;
mod desk;
mod events;
mod export;
mod fleet_series;
mod guesses;
mod listener;
mod log;
mod machine;
mod node_orders;
mod nodes;
mod params;
mod patience;
mod problem;
mod rules;
mod series;
mod silences;
mod stock;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;
mod witness;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

pub use admin::{AdminError, AdminSocket, first_token, socket_path};
use arc_swap::ArcSwap;
use axum::Router;
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{get, post};
pub use caller::Peer;
pub use listener::Listener;
pub use tls::{HttpCertificate, HttpTlsError};
use tokio::sync::{Semaphore, mpsc, watch};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::desk::Desk;
use self::guesses::{Guesses, Network};
use self::params::short;
use self::problem::Problem;
use self::witness::Refusals;
use crate::access::Access;
use crate::authority::Authority;
use crate::board::{AlertBoard, SilenceBoard};
use crate::clock::Clock;
use crate::health::Health;
use crate::orders::Orders;
use crate::registry::{Actor, TokenId, What};
use crate::rules::RulesInForce;
use crate::stats::Stats;
use crate::view::FleetView;
use crate::window::Word;

/// Requests that wait for something to happen, long polls and streams together; each costs a few kilobytes.
const WAITING_MAX: usize = 512;
/// Lines about wrong tokens on their way to the log. What finds no room is left out: there were lines before.
const NOTES_WAITING_MAX: usize = 16;

/// What the rest of the collector lets the API see.
#[derive(Clone, Debug)]
pub struct Published {
    pub clock: Clock,
    pub health: Arc<Health>,
    pub stats: Arc<Stats>,
    pub fleet: Arc<ArcSwap<FleetView>>,
    pub board: Arc<ArcSwap<AlertBoard>>,
    pub silences: Arc<ArcSwap<SilenceBoard>>,
    pub access: Arc<Access>,
    pub rules: RulesInForce,
    pub orders: Orders,
    /// The id of the newest event.
    pub newest_event: watch::Receiver<u64>,
    /// Drawn anew when the state was restored from a copy.
    pub incarnation: u64,
    /// Signs for nodes, when this collector has one.
    pub authority: Option<Arc<Authority>>,
    pub state_dir: PathBuf,
    /// Whoever keeps the window is told here of the damage that readers meet.
    pub window: Arc<Word>,
}

/// The state of every handler.
pub(crate) type Api = Arc<ApiState>;

#[derive(Debug)]
pub(crate) struct ApiState {
    published: Published,
    desk: Desk,
    waiting: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    texts: Arc<Semaphore>,
    previews: Arc<Semaphore>,
    guesses: Mutex<Guesses>,
    refusals: Mutex<Refusals>,
    notes: mpsc::Sender<(Actor, What)>,
    document: String,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Dunlin", description = "What a Dunlin collector knows of its fleet.", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    components(schemas(crate::shape::Problem)),
    tags(
        (name = "nodes", description = "The fleet."),
        (name = "inventory", description = "What stands on the nodes, and since when."),
        (name = "alerts", description = "What is wrong, and what people say of it."),
        (name = "rules", description = "What is wrong with a node, said by people."),
        (name = "feed", description = "What happened: gapless, in order, to be resumed."),
        (name = "access", description = "Tokens, and who did what."),
        (name = "machines", description = "For load balancers and scrapers.")
    )
)]
struct Document;

impl ApiState {
    /// How long a network that showed a wrong token has to stay away; 0 is not at all.
    fn note_wrong_token(&self, network: Network, from: Option<IpAddr>) -> u64 {
        let now = self.published.clock.mono();
        let (network, guessed) = self.guesses.lock().unwrap_or_else(PoisonError::into_inner).wrong(network, now);
        if let Some(times) = guessed.line {
            let actor = Actor { name: String::from("unknown"), token: None, from };
            let (action, why) = (String::from("token.refused"), format!("wrong tokens, {times} in a row"));
            let what = What::NoteRefused { action, target: network.to_string(), why, times: 1 };
            self.notes.try_send((actor, what)).ok();
        }
        guessed.wait_ms
    }

    /// How many refusals a line of the log is to tell of, when it is time for one.
    fn refused(&self, token: Option<TokenId>, action: &'static str) -> Option<u64> {
        let now = self.published.clock.mono();
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).note(token, action, now)
    }
}

/// Everything that is served. A listener says with `Peer` where a request came from. Inside of a runtime.
pub fn router(published: Published) -> Router {
    let (router, document) = documented();
    let (notes, noted) = mpsc::channel(NOTES_WAITING_MAX);
    tokio::spawn(deliver(published.orders.clone(), noted));
    let state = ApiState {
        desk: Desk::new(&published.state_dir, &published.window),
        published,
        waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        exports: Arc::new(Semaphore::new(export::EXPORTS_MAX)),
        texts: Arc::new(Semaphore::new(body::TEXTS_MAX)),
        previews: Arc::new(Semaphore::new(rules::preview::PREVIEWS_MAX)),
        guesses: Mutex::default(),
        refusals: Mutex::default(),
        notes,
        document,
    };
    let state = Arc::new(state);
    router
        .layer(from_fn_with_state(Arc::clone(&state), witness::watch))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(from_fn(body::refuse_large))
        .layer(map_response(with_common_headers))
        .with_state(state)
}

/// `/openapi.json`, as `docs/openapi.json` holds it.
#[must_use]
pub fn openapi() -> String {
    documented().1
}

fn documented() -> (Router<Api>, String) {
    let (router, mut document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(machine::healthy))
        .routes(routes!(machine::ready))
        .routes(routes!(machine::metrics))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::one, node_orders::label, node_orders::forget))
        .routes(routes!(nodes::metrics))
        .routes(routes!(series::series))
        .routes(routes!(fleet_series::fleet_series))
        .routes(routes!(export::export))
        .routes(routes!(stock::containers))
        .routes(routes!(stock::processes))
        .routes(routes!(stock::ports))
        .routes(routes!(node_orders::revoke))
        .routes(routes!(node_orders::approve))
        .routes(routes!(approvals::approve))
        .routes(routes!(node_orders::adopt))
        .routes(routes!(node_orders::maintain, node_orders::end_maintenance))
        .routes(routes!(alerts::list))
        .routes(routes!(alerts::one))
        .routes(routes!(alerts::context))
        .routes(routes!(events::events))
        .routes(routes!(stream::stream))
        .routes(routes!(silences::list, silences::create))
        .routes(routes!(silences::one, silences::edit, silences::expire))
        .routes(routes!(alert_orders::acknowledge, alert_orders::unacknowledge))
        .routes(routes!(alert_orders::acknowledge_all))
        .routes(routes!(rules::list, rules::sets::put))
        .routes(routes!(rules::one))
        .routes(routes!(rules::preview::preview))
        .routes(routes!(rules::sets::list))
        .routes(routes!(rules::sets::one, rules::sets::delete))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::delete))
        .routes(routes!(log::log))
        .routes(routes!(authority::show))
        .routes(routes!(authority::turn))
        .split_for_parts();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("`dunlin-api.` and 27 characters"));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
    let mut text = document.to_pretty_json().expect("a document of plain text is JSON");
    text.push('\n');
    // The backup and the log are for the admin socket alone.
    let router = router.route("/api/v1/rules/preview", get(rules::called_preview));
    let router = router.route("/openapi.json", get(machine::document)).route("/-/backup", post(backup::take));
    let router = router.route("/-/lately", get(machine::lately));
    (router, text)
}

async fn deliver(orders: Orders, mut notes: mpsc::Receiver<(Actor, What)>) {
    while let Some((actor, what)) = notes.recv().await {
        // A line that cannot be stored is one that nobody misses while nothing can be stored.
        orders.ask(actor, what).await.ok();
    }
}

async fn unknown_path(uri: Uri) -> Problem {
    Problem::not_found(format!("there is no {:?} here; /openapi.json lists what there is", short(uri.path())))
}

async fn unknown_method(method: Method, uri: Uri) -> Problem {
    let (method, path) = (short(method.as_str()), short(uri.path()));
    Problem::method_not_allowed(format!("{method} is not for {path:?}; /openapi.json lists what is"))
}

/// Answers are for whoever asked, and are what they say they are.
async fn with_common_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
