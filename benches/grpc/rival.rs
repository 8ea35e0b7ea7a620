//! The server to compare with: tonic, which stands on hyper and the h2 crate, on tokio's runtime of one thread.
//!
//! It does what the server does and nothing else: one method, whose answer is the stream of its requests, message by
//! message through prost and back. What tonic's generator would write for it is written out here. There is no router
//! before it and no layer around it, so this is the least that a server of tonic costs; its windows and bounds are the
//! ones it comes with.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Context, Poll, Service, http};
use tonic::server::Grpc;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::common::bare;
use crate::common::target::Target;

/// First argument that turns the bench program into this server.
pub(crate) const RIVAL: &str = "--rival";

/// Method that echoes.
pub(crate) const PATH: &str = "/holdline.v1.Edge/Echo";

/// The lines of the lock file: which versions are compared with.
const LOCK: &str = include_str!("../../Cargo.lock");

/// Message of the method. Bytes that are shared are the cheapest way to take and to give them.
#[derive(Clone, PartialEq, prost::Message)]
struct EchoMessage {
    #[prost(bytes = "bytes", tag = "1")]
    payload: Bytes,
}

/// The service, which knows nothing.
#[derive(Clone, Copy)]
struct Edge;

/// Its method.
struct Echo;

impl Service<http::Request<Body>> for Edge {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != PATH {
            return Box::pin(async { Ok(Status::unimplemented("").into_http()) });
        }
        Box::pin(async move {
            let codec = ProstCodec::<EchoMessage, EchoMessage>::default();
            Ok(Grpc::new(codec).streaming(Echo, request).await)
        })
    }
}

impl Service<Request<Streaming<EchoMessage>>> for Echo {
    type Response = Response<Streaming<EchoMessage>>;
    type Error = Status;
    type Future = std::future::Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<EchoMessage>>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}

/// Serves until the process that started this one ends or kills it.
pub(crate) fn main() -> io::Result<()> {
    bare::end_with_parent();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let incoming = TcpIncoming::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?.with_nodelay(Some(true));
        println!("listening on http://{}\nready", incoming.local_addr()?);
        io::stdout().flush()?;
        Server::builder().serve_with_incoming(Edge, incoming).await.map_err(io::Error::other)
    })
}

/// Starts this program as that server.
pub(crate) fn start() -> io::Result<Target> {
    let program = std::env::current_exe()?.to_string_lossy().into_owned();
    Target::start(&[program, RIVAL.to_owned()])
}

/// Names and versions of what it is made of.
pub(crate) fn versions() -> String {
    let version = |name: &str| {
        let (_, after) = LOCK.split_once(&format!("\nname = \"{name}\"\nversion = \""))?;
        Some(format!("{name} {}", after.split('"').next()?))
    };
    ["tonic", "hyper", "h2", "tokio", "prost"].into_iter().filter_map(version).collect::<Vec<_>>().join(", ")
}
