//! The receiver: HTTP/1.1, over TLS or not, on one connection that is kept.
//!
//! Redirects are not followed: whoever moves a receiver says so in the configuration. Nothing is special about any address:
//! the URL is the operator's own.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::{task, time};
use tokio_rustls::TlsConnector;

use super::address::Resolver;
use super::{HooksError, Outcome, Receiver};
use crate::config::{Authorities, HookUrl, Hooks};
use crate::hooks::{Batch, signature};
use crate::io::tls::Trust;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("its name cannot be resolved: {0}")]
    Name(io::Error),
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("{0}")]
    Trust(#[from] HooksError),
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be written: {0}")]
    Request(#[from] hyper::http::Error),
}

/// A connection.
struct Open {
    requests: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The receiver.
pub(super) struct Webhook {
    url: HookUrl,
    resolver: Resolver,
    open: Option<Open>,
    /// Whom it trusts, and what that was made from.
    trust: Option<(Arc<Authorities>, Arc<ClientConfig>)>,
}

impl Webhook {
    /// Bytes of an answer that are read: nobody looks at them, but the connection can be used again.
    const ANSWER_BYTES_MAX: usize = 64 * 1024;
    /// Time for what comes after its head. A connection whose answer takes longer is given up.
    const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
    /// Bytes of its head.
    const HEAD_BYTES_MAX: usize = 64 * 1024;
    /// A receiver that asks for more time than that is asked again all the same.
    const LATER_MAX: Duration = Duration::from_secs(3600);

    /// The receiver of these hooks.
    pub(super) fn new(url: HookUrl, hooks: &Hooks) -> Result<Self, HooksError> {
        let mut webhook = Self { url, resolver: Resolver::default(), open: None, trust: None };
        if webhook.url.tls {
            webhook.trust(hooks)?;
        }
        Ok(webhook)
    }

    /// An answer, of which the head is there, and the connection that it comes on.
    async fn try_post(&mut self, batch: &Batch, hooks: &Hooks) -> Result<(Response<Incoming>, Open), Failure> {
        // It is gone if this is given up.
        if let Some(open) = self.open.take().filter(|open| !open.requests.is_closed())
            && let Ok(answer) = self.exchange(open, batch, hooks).await
        {
            return Ok(answer);
        }
        // The receiver may have ended a connection that was there: that is no failure of it.
        let open = self.connect(hooks).await?;
        self.exchange(open, batch, hooks).await
    }

    /// One request and the head of its answer.
    async fn exchange(
        &self,
        mut open: Open,
        batch: &Batch,
        hooks: &Hooks,
    ) -> Result<(Response<Incoming>, Open), Failure> {
        open.requests.ready().await?;
        let answer = open.requests.send_request(self.request(batch, hooks)?).await?;
        Ok((answer, open))
    }

    /// Keeps a connection, if its answer ends soon enough for it to be used again. What the answer says is known before.
    async fn keep(&mut self, answer: Response<Incoming>, open: Open) {
        if time::timeout(Self::ANSWER_TIME_MAX, drain(answer)).await == Ok(true) {
            self.open = Some(open);
        }
    }

    fn request(&self, batch: &Batch, hooks: &Hooks) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        const AGENT: &str = concat!("Holdline/", env!("CARGO_PKG_VERSION"));
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.url.target)
            .header(header::HOST, self.url.authority())
            .header(header::USER_AGENT, AGENT)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(signature) = signature::value(&hooks.secrets.content, seconds, &batch.body) {
            request = request.header(signature::FIELD, signature);
        }
        // Copied once for each try, beside a request over the network.
        request.body(Full::new(Bytes::copy_from_slice(&batch.body)))
    }

    async fn connect(&mut self, hooks: &Hooks) -> Result<Open, Failure> {
        let stream = self.dial(hooks.timeout).await?;
        if !self.url.tls {
            return begin(stream).await;
        }
        let name = ServerName::try_from(self.url.host.clone())
            .map_err(|error| Failure::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let connector = TlsConnector::from(self.trust(hooks)?);
        begin(connector.connect(name, stream).await.map_err(Failure::Tls)?).await
    }

    async fn dial(&mut self, most: Duration) -> Result<TcpStream, Failure> {
        let addresses = self.resolver.look_up(&self.url.host, self.url.port).await.map_err(Failure::Name)?;
        let each = most / u32::try_from(addresses.len().clamp(1, 8)).unwrap_or(1);
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "it has no address");
        for address in addresses.into_iter().take(8) {
            match time::timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Whether that can be had is no matter.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => failure = error,
                Err(_) => failure = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(Failure::Connect(failure))
    }

    /// Whom it trusts. Read anew when a reload has brought other certificates.
    fn trust(&mut self, hooks: &Hooks) -> Result<Arc<ClientConfig>, HooksError> {
        let ours = &hooks.ca.content;
        if let Some((from, config)) = &self.trust
            && Arc::ptr_eq(from, ours)
        {
            return Ok(Arc::clone(config));
        }
        let mut roots = RootCertStore::empty();
        for certificate in rustls_native_certs::load_native_certs().certs {
            // A system has hundreds, and one that is of no use is no obstacle.
            let _ = roots.add(certificate);
        }
        for certificate in ours.iter() {
            roots.add(CertificateDer::from(certificate.to_vec())).map_err(HooksError::BadAuthority)?;
        }
        if roots.is_empty() {
            return Err(HooksError::NoAuthorities(self.origin()));
        }
        let config = Trust::Authorities(Arc::new(roots)).config(&["http/1.1"]).map_err(HooksError::Tls)?;
        self.trust = Some((Arc::clone(ours), Arc::clone(&config)));
        Ok(config)
    }
}

impl Receiver for Webhook {
    fn origin(&self) -> String {
        self.url.origin()
    }

    async fn post(&mut self, batch: &Batch, hooks: &Hooks) -> Outcome {
        match time::timeout(hooks.timeout, self.try_post(batch, hooks)).await {
            Ok(Ok((answer, open))) => {
                let outcome = outcome(&answer);
                self.keep(answer, open).await;
                outcome
            }
            Ok(Err(failure)) => Outcome::Later(chain(&failure), None),
            Err(_) => Outcome::Later(format!("no answer within {:?}", hooks.timeout), None),
        }
    }
}

/// Speaks HTTP on a transport.
async fn begin<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S) -> Result<Open, Failure> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(Webhook::HEAD_BYTES_MAX);
    let (requests, connection) = builder.handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
    let driver = task::spawn_local(async move {
        // Whoever waits for an answer is told.
        let _ = connection.await;
    });
    Ok(Open { requests, driver })
}

/// What an answer says: 408, 425, 429 and those of 500 and above may be another one later (RFC 9110 section 15, RFC 8470,
/// RFC 6585).
fn outcome(answer: &Response<Incoming>) -> Outcome {
    let status = answer.status();
    if status.is_success() {
        return Outcome::Taken;
    }
    let said = format!("it answered {}", status.as_u16());
    let is_later = status.is_server_error()
        || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    if is_later {
        let asked = answer.headers().get(header::RETRY_AFTER).and_then(|after| retry_after(after, SystemTime::now()));
        return Outcome::Later(said, asked.map(|asked| asked.min(Webhook::LATER_MAX)));
    }
    let why = if status.is_redirection() { ", and redirects are not followed" } else { "" };
    Outcome::Never(format!("{said}{why}"))
}

/// A number of seconds, or a date (RFC 9110 section 10.2.3).
fn retry_after(after: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = after.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Reads an answer to its end; whether that came soon enough for the connection to be of use.
async fn drain(answer: Response<Incoming>) -> bool {
    let (mut body, mut bytes) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > Webhook::ANSWER_BYTES_MAX {
            return false;
        }
    }
    true
}

/// An error and what it came from.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn a_receiver_says_when() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, expected) in [
            ("7", Some(7)),
            (" 0", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let after = retry_after(&HeaderValue::from_static(text), now);
            assert_eq!(after, expected.map(Duration::from_secs), "{text}");
        }
    }
}
