//! The HTTP API: one table of routes, and what holds for all of them.
//!
//! A request passes the checks of its connection (hosts and origins), then the role of its route, then the limit of its
//! body, and then reaches its handler. A path that is not in the table has no role and no handler.

mod body;
mod handlers;
mod page;
mod response;

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Extension, Request, State};
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};

use super::audit::Action;
use super::counters::count;
use super::peer::Peer;
use super::service::Service;
use api::bodies::SelectionList;
use api::candidates::CandidateList;
use api::operation::{self, Operation, OperationAtPath};
use api::{Problem, Role, path};
use body::{BODY_BYTES_MAX, read_body};
use handlers::Description;
use response::HttpProblem;

/// Characters of a refused request that the audit log has.
const TARGET_CHARS_MAX: usize = 1000;

/// With the value `line`, an answer in lines ends with a line that has its trailers: browsers do not show trailers.
const END: HeaderName = HeaderName::from_static("retrocap-end");

/// A method of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// GET, and HEAD.
    Get,
    /// POST
    Post,
    /// DELETE
    Delete,
}

impl Verb {
    /// The method in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Delete => "delete",
        }
    }

    fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The path.
    pub path: &'static str,
    /// The method.
    pub verb: Verb,
    /// The role that a client needs; `None` if anybody who can connect is answered.
    pub role: Option<Role>,
    /// What the operation takes and gives.
    pub operation: &'static Operation,
    handler: fn(MethodFilter) -> MethodRouter<Arc<Service>>,
    /// Bytes of a body at most.
    body_bytes_max: u64,
    /// Whether the handler reads the body itself, because it sets memory aside first.
    reads_body: bool,
}

const fn route(
    verb: Verb,
    path: &'static str,
    role: Role,
    operation: &'static Operation,
    handler: fn(MethodFilter) -> MethodRouter<Arc<Service>>,
) -> Route {
    Route { role: Some(role), ..open_route(verb, path, operation, handler) }
}

/// A route for everybody who can connect.
const fn open_route(
    verb: Verb,
    path: &'static str,
    operation: &'static Operation,
    handler: fn(MethodFilter) -> MethodRouter<Arc<Service>>,
) -> Route {
    Route { path, verb, role: None, operation, handler, body_bytes_max: BODY_BYTES_MAX, reads_body: false }
}

/// Every route of the API.
pub const ROUTES: &[Route] = &[
    route(Verb::Get, path::STATUS, Role::Status, &operation::STATUS, |verb| on(verb, handlers::status)),
    route(Verb::Get, path::SPOOL, Role::Status, &operation::SPOOL, |verb| on(verb, handlers::spool)),
    Route {
        reads_body: true,
        ..route(Verb::Get, path::PACKETS, Role::Packets, &operation::PACKETS, |verb| on(verb, handlers::packets))
    },
    Route {
        body_bytes_max: SelectionList::BODY_BYTES_MAX,
        reads_body: true,
        ..route(Verb::Post, path::PACKETS, Role::Packets, &operation::SELECTIONS, |verb| on(verb, handlers::selections))
    },
    route(Verb::Get, path::FLOWS, Role::Flows, &operation::FLOWS, |verb| on(verb, handlers::flows)),
    route(Verb::Get, path::HUNT, Role::Packets, &operation::HUNT, |verb| on(verb, handlers::hunt)),
    route(Verb::Post, path::HUNT_RULE, Role::Packets, &operation::HUNT_RULE, |verb| on(verb, handlers::hunt_rule)),
    Route {
        body_bytes_max: CandidateList::BODY_BYTES_MAX,
        reads_body: true,
        ..route(Verb::Post, path::HUNT, Role::Packets, &operation::CANDIDATES, |verb| on(verb, handlers::candidates))
    },
    route(Verb::Get, path::FILES, Role::Packets, &operation::FILES, |verb| on(verb, handlers::files)),
    route(Verb::Get, path::FILE, Role::Packets, &operation::FILE, |verb| on(verb, handlers::file)),
    route(Verb::Get, path::PINS, Role::Pin, &operation::PINS, |verb| on(verb, handlers::pins)),
    route(Verb::Post, path::PINS, Role::Pin, &operation::PIN, |verb| on(verb, handlers::add_pin)),
    route(Verb::Delete, path::PINS, Role::Pin, &operation::UNPIN, |verb| on(verb, handlers::remove_pin)),
    route(Verb::Get, path::COLUMNS, Role::Flows, &operation::COLUMNS, |verb| on(verb, handlers::columns)),
    route(Verb::Get, path::TIMELINE, Role::Flows, &operation::TIMELINE, |verb| on(verb, handlers::timeline)),
    route(Verb::Get, path::LINES, Role::Packets, &operation::LINES, |verb| on(verb, handlers::lines)),
    route(Verb::Get, path::STREAMS, Role::Packets, &operation::STREAMS, |verb| on(verb, handlers::streams)),
    route(Verb::Get, path::MESSAGES, Role::Packets, &operation::MESSAGES, |verb| on(verb, handlers::messages)),
    route(Verb::Get, path::PAGE, Role::Status, &operation::PAGE, |verb| on(verb, page::visitor)),
    route(Verb::Post, path::PAGE, Role::Status, &operation::PAGE_LINK, |verb| on(verb, page::link)),
    open_route(Verb::Post, path::PAGE_SESSION, &operation::PAGE_EXCHANGE, |verb| on(verb, page::exchange)),
    open_route(Verb::Delete, path::PAGE_SESSION, &operation::PAGE_END, |verb| on(verb, page::end)),
    open_route(Verb::Get, path::PAGE_INDEX, &operation::PAGE_INDEX, |verb| on(verb, page::index)),
    open_route(Verb::Get, path::PAGE_FILE, &operation::PAGE_FILE, |verb| on(verb, page::file)),
    open_route(Verb::Get, path::PAGE_DISSECTOR, &operation::PAGE_DISSECTOR, |verb| on(verb, page::dissector_file)),
    route(Verb::Get, path::HEALTH, Role::Status, &operation::HEALTH, |verb| on(verb, handlers::health)),
    route(Verb::Get, path::OPENAPI, Role::Status, &operation::OPENAPI, |verb| on(verb, handlers::description)),
    route(Verb::Get, path::METRICS, Role::Status, &operation::METRICS, |verb| on(verb, handlers::metrics)),
];

/// The OpenAPI document of [`ROUTES`].
pub fn openapi() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let located = |route: &Route| OperationAtPath {
            path: route.path,
            method: route.verb.name(),
            role: route.role,
            operation: route.operation,
        };
        format!("{:#}\n", operation::openapi(ROUTES.iter().map(located)))
    });
    &DOCUMENT
}

pub(super) fn router(service: Arc<Service>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let state = (Arc::clone(&service), route);
        let handler = (route.handler)(route.verb.filter())
            .layer(middleware::from_fn_with_state(state.clone(), take_body))
            .layer(middleware::from_fn_with_state(state, authorize));
        router = router.route(route.path, handler);
    }
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(Extension(Description(openapi())))
        .layer(middleware::from_fn_with_state(Arc::clone(&service), check_connection))
        .with_state(service)
}

async fn no_such_path(uri: Uri) -> HttpProblem {
    HttpProblem(Problem::no_such_path(uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> HttpProblem {
    HttpProblem(Problem::wrong_method(method.as_str(), uri.path()))
}

/// Refuses requests that a web page may have caused, and gives the client its current roles.
async fn check_connection(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    // The configuration may have changed since it connected.
    let peer = match &service.tls {
        Some(tls) => tls.with_current_roles(peer),
        None => peer,
    };
    let peer = check_host(&peer, request.uri(), request.headers())
        .and_then(|()| page::identified(&service, peer, request.headers()));
    let peer = match peer {
        Ok(peer) => peer,
        Err(problem) => {
            count(&service.counters.roles_refused);
            return HttpProblem(problem).into_response();
        }
    };
    request.extensions_mut().insert(peer.clone());
    let end_as_line = request.headers().get(END).is_some_and(|value| value == "line");
    let mut response = next.run(request).await;
    if end_as_line {
        response = response::with_end_as_line(response);
    }
    response.headers_mut().entry(X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if peer.roles().is_empty() && !peer.is_page_visitor() {
        // It has nothing else to ask.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A request names one host at most. Over plain TCP, where a browser can ask, it names this host, and comes from no page of
/// another one: a web page can give a name of its own to this host, and the name then stands in the request.
fn check_host(peer: &Peer, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let hosts: Vec<&HeaderValue> = headers.get_all(HOST).iter().collect();
    if hosts.len() > 1 {
        return Err(Problem::ambiguous_host(hosts.len()));
    }
    let origins = || headers.get_all(ORIGIN).iter().map(|origin| origin.to_str().unwrap_or_default());
    if !peer.is_loopback() {
        // A browser sends its certificate with the requests that pages of others cause, too.
        let host = hosts.first().and_then(|host| host.to_str().ok());
        let is_ours = |origin: &&str| origin.strip_prefix("https://").is_some_and(|origin| Some(origin) == host);
        return origins().find(|origin| !is_ours(origin)).map_or(Ok(()), |origin| Err(Problem::foreign_origin(origin)));
    }
    let host = hosts.first().and_then(|host| host.to_str().ok()).unwrap_or_default();
    for name in [host].into_iter().chain(uri.authority().map(|authority| authority.as_str())) {
        if !is_this_host(name) {
            return Err(Problem::wrong_host(name));
        }
    }
    for origin in origins() {
        if origin.strip_prefix("http://") != Some(host) {
            return Err(Problem::foreign_origin(origin));
        }
    }
    Ok(())
}

fn is_this_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Refuses a client that has not the role of the route.
async fn authorize(
    State((service, route)): State<(Arc<Service>, &'static Route)>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let Some(role) = route.role.filter(|role| !peer.may(*role)) else { return next.run(request).await };
    count(&service.counters.roles_refused);
    let problem = refusal(&peer, role);
    if let Some(action) = Action::of_role(role) {
        let target: String = request.uri().to_string().chars().take(TARGET_CHARS_MAX).collect();
        let query = serde_json::json!({ "method": route.verb.name().to_uppercase(), "target": target });
        let why = problem.detail.clone();
        let asked = Arc::clone(&service);
        let _ = service.blocking(move || asked.audit.refused(&peer, action, query, why.untrusted())).await;
    }
    HttpProblem(problem).into_response()
}

/// Why a client may not do what takes this role.
pub(super) fn refusal(peer: &Peer, needed: Role) -> Problem {
    match peer.is_loopback() {
        true if peer.is_page_visitor() => Problem::page_session_ended(),
        true => Problem::forbidden_in_the_clear(needed),
        false => Problem::forbidden(&peer.to_string(), peer.roles(), needed),
    }
}

/// Reads the body of a request, which has to be small and to arrive in time. A body whose length says that it is too large is
/// never read: the connection is closed after the answer.
async fn take_body(
    State((service, route)): State<(Arc<Service>, &'static Route)>,
    request: Request,
    next: Next,
) -> Response {
    let bytes_max = route.body_bytes_max;
    let length = request.headers().get(CONTENT_LENGTH).map(|length| length.to_str().ok().and_then(|l| l.parse().ok()));
    if length.is_some_and(|length| length.is_none_or(|length: u64| length > bytes_max)) {
        return HttpProblem(Problem::body_too_large(bytes_max)).into_response();
    }
    if route.reads_body || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    match read_body(body, bytes_max, service.limits().head_timeout).await {
        Ok(body) => next.run(Request::from_parts(head, Body::from(body))).await,
        Err(problem) => {
            if problem.status == 408 {
                count(&service.counters.clients_slow);
            }
            HttpProblem(problem).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_known_by_the_name_it_asks_for() {
        for (host, ours) in [
            ("localhost:57080", true),
            ("LOCALHOST", true),
            ("127.0.0.1:1", true),
            ("127.9.9.9", true),
            ("[::1]:57080", true),
            ("::1", false),
            ("evil.example:57080", false),
            ("localhost.evil.example", false),
            ("10.0.0.1:57080", false),
            ("", false),
        ] {
            assert_eq!(is_this_host(host), ours, "{host}");
        }
    }

    #[test]
    fn over_plain_tcp_a_request_names_this_host_once_and_comes_from_no_other_page() {
        let at = "127.0.0.1:1".parse().unwrap();
        for peer in [Peer::of_loopback(at, None), Peer::of_page(at, None)] {
            hosts_and_origins_are_checked(&peer);
        }
    }

    fn hosts_and_origins_are_checked(peer: &Peer) {
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        for (target, headers, status) in [
            ("/", &[("host", "localhost:1")][..], None),
            ("/", &[("host", "localhost:1"), ("origin", "http://localhost:1")], None),
            ("/", &[], Some(421)),
            ("/", &[("host", "localhost"), ("host", "localhost")], Some(400)),
            ("/", &[("host", "localhost"), ("host", "evil.example")], Some(400)),
            ("/", &[("host", "evil.example")], Some(421)),
            ("http://evil.example/", &[("host", "localhost")], Some(421)),
            ("/", &[("host", "localhost:1"), ("origin", "http://evil.example")], Some(403)),
            ("/", &[("host", "localhost:1"), ("origin", "http://localhost:2")], Some(403)),
            ("/", &[("host", "localhost:1"), ("origin", "https://localhost:1")], Some(403)),
            ("/", &[("host", "localhost:1"), ("origin", "null")], Some(403)),
            ("/", &[("host", "localhost:1"), ("origin", "http://localhost:1"), ("origin", "null")], Some(403)),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            let problem = check_host(peer, &uri(target), &map).err();
            assert_eq!(problem.map(|problem| problem.status), status, "{target} {headers:?}");
        }
    }

    #[test]
    fn a_row_of_the_table_is_there_once() {
        for (number, route) in ROUTES.iter().enumerate() {
            let same = |other: &&Route| other.path == route.path && other.verb == route.verb;
            assert_eq!(ROUTES.iter().position(|other| same(&other)), Some(number), "{route:?}");
        }
    }
}
