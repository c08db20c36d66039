//! The built page: a folder of files, served on the loopback with headers that let it load nothing
//! else.

use std::path::{Path, PathBuf};

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::{self, Next},
    response::Response,
};
use serde::Deserialize;
use tower_http::{services::ServeDir, set_header::SetResponseHeaderLayer};

/// The file to which the page's build writes its id.
const BUILD_FILE: &str = "build.json";

/// The largest such file.
const MAX_BUILD_FILE_BYTES: u64 = 4096;

/// The path of files whose names contain a hash of their content.
const HASHED_FILES: &str = "/assets/";

/// The addresses that the page may connect to beside its own.
pub(crate) struct Connections {
    /// Each `host:port` under which a browser reaches this gateway.
    pub(crate) authorities: Vec<String>,
    /// Whether the browser reaches it with TLS.
    pub(crate) is_encrypted: bool,
    /// The Ethereum node's address.
    pub(crate) rpc: Option<String>,
}

impl Connections {
    fn sources(&self) -> String {
        let scheme = if self.is_encrypted { "wss" } else { "ws" };
        let mut sources = vec!["'self'".to_owned()];
        // In most browsers, but not in all, 'self' covers the socket.
        // A policy cannot name an IPv6 address; browsers complain of one.
        let named = self.authorities.iter().filter(|authority| !authority.starts_with('['));
        sources.extend(named.map(|authority| format!("{scheme}://{authority}")));
        sources.extend(self.rpc.as_deref().and_then(origin_of));
        sources.join(" ")
    }
}

/// Scheme, host and port of a URL, if a policy can name it.
fn origin_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let origin = format!("{scheme}://{authority}").to_lowercase();
    origin.parse::<crate::Origin>().ok().map(|origin| origin.to_string())
}

/// The page's id as its build wrote it, or an empty text.
pub(crate) async fn build(folder: &Path) -> String {
    #[derive(Deserialize)]
    struct Build {
        build: String,
    }
    let file = folder.join(BUILD_FILE);
    let small = tokio::fs::metadata(&file).await.is_ok_and(|metadata| metadata.len() <= MAX_BUILD_FILE_BYTES);
    if !small {
        return String::new();
    }
    let Ok(text) = tokio::fs::read(&file).await else { return String::new() };
    let build = serde_json::from_slice::<Build>(&text).map(|document| document.build).unwrap_or_default();
    if build.len() <= duet_wire::gateway::MAX_BUILD_LENGTH_BYTES { build } else { String::new() }
}

/// Serves the folder.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(
    folder: PathBuf,
    connections: &Connections,
) -> Router<S> {
    let policy = format!(
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; \
         img-src 'self' data: blob:; font-src 'self'; manifest-src 'self'; connect-src {}; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        connections.sources()
    );
    let fixed = |name: HeaderName, value: &'static str| {
        SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
    };
    let files = ServeDir::new(folder).precompressed_br().precompressed_gzip();
    Router::new()
        .fallback_service(files)
        .layer(middleware::from_fn(cache))
        .layer(SetResponseHeaderLayer::overriding(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'")),
        ))
        .layer(fixed(HeaderName::from_static("cross-origin-opener-policy"), "same-origin"))
        .layer(fixed(HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"))
        .layer(fixed(HeaderName::from_static("cross-origin-resource-policy"), "same-origin"))
        .layer(fixed(header::X_FRAME_OPTIONS, "DENY"))
        .layer(fixed(header::REFERRER_POLICY, "no-referrer"))
        .layer(fixed(
            HeaderName::from_static("permissions-policy"),
            "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), serial=(), usb=(), \
             publickey-credentials-create=(self), publickey-credentials-get=(self)",
        ))
}

/// Lets browsers keep files with a hash in their name for ever, and never the page itself, so that
/// a reload shows a new page. Other files are revalidated each time.
async fn cache(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let value = if path.starts_with(HASHED_FILES) {
        "public, max-age=31536000, immutable"
    } else if path.ends_with('/') || path.ends_with(".html") {
        "no-store"
    } else {
        "no-cache"
    };
    let mut response = next.run(request).await;
    let value = if response.status().is_success() { value } else { "no-store" };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_origin_gets_into_the_policy() {
        assert_eq!(origin_of("http://127.0.0.1:8545/"), Some("http://127.0.0.1:8545".to_owned()));
        assert_eq!(
            origin_of("https://key:secret@Node.example/v1?x=1"),
            Some("https://node.example".to_owned())
        );
        for bad in ["", "node.example", "https://a; script-src *", "wss://a", "https://a'"] {
            assert_eq!(origin_of(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_build_is_what_the_file_says_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(build(folder.path()).await, "");
        for (text, expected) in [
            (r#"{"build":"abc"}"#.to_owned(), "abc"),
            ("nonsense".to_owned(), ""),
            (format!(r#"{{"build":"{}"}}"#, "a".repeat(129)), ""),
            (" ".repeat(5000), ""),
        ] {
            std::fs::write(folder.path().join(BUILD_FILE), text).unwrap();
            assert_eq!(build(folder.path()).await, expected);
        }
    }
}
