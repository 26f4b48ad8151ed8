//! The way to an engine: one connection a question, over its socket, through a bound on what may come back.
//!
//! bollard and hyper collect an answer before they look at it, so the bound stands below them: a socket that answers
//! without end costs so many bytes and ends in an error.

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bollard::BollardRequest;
use bollard::errors::Error;
use hyper::Response;
use hyper::body::{Body as _, Incoming};
use hyper::header::{HOST, HeaderValue};
use hyper::rt::ReadBufCursor;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::trouble::Trouble;

/// What hyper keeps of an answer's head and of a piece of its body. It takes no less.
const BUFFER_BYTES: usize = 16 * 1024;
/// Read at once, by way of the stack.
const READ_BYTES: usize = 4 * 1024;

/// How to connect, and how much may still come. Its connections end when the last copy of it is dropped.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    path: Arc<Path>,
    left: Arc<AtomicUsize>,
    connections: Arc<Mutex<JoinSet<()>>>,
}

#[derive(Debug)]
struct Bounded {
    stream: UnixStream,
    left: Arc<AtomicUsize>,
}

impl Wire {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.into(), left: Arc::default(), connections: Arc::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// From now on so many bytes may come.
    pub(super) fn allow(&self, bytes: usize) {
        self.left.store(bytes, Ordering::Relaxed);
    }

    /// Whether what was allowed has come and more was there.
    pub(super) fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    pub(super) async fn send(self, request: BollardRequest) -> Result<Response<Incoming>, Error> {
        let stream = UnixStream::connect(&self.path).await?;
        let stream = Bounded { stream, left: Arc::clone(&self.left) };
        let mut client = hyper::client::conn::http1::Builder::new();
        let (mut sender, connection) = client.max_buf_size(BUFFER_BYTES).handshake(stream).await?;
        {
            let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            while connections.try_join_next().is_some() {}
            // What goes wrong with it is what the request ends with.
            connections.spawn(async move { drop(connection.await) });
        }
        Ok(sender.send_request(local(request)?).await?)
    }
}

/// A server wants the path alone and a name for its host, whatever the name is.
fn local(request: BollardRequest) -> Result<BollardRequest, Error> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse()?;
    parts.headers.insert(HOST, HeaderValue::from_static("localhost"));
    Ok(BollardRequest::from_parts(parts, body))
}

/// Gives an answer's body piece by piece.
pub(super) async fn read(
    response: Response<Incoming>,
    mut piece: impl FnMut(&[u8]) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let mut body = response.into_body();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|_| Trouble::Closed)?;
        if let Some(bytes) = frame.data_ref() {
            piece(bytes)?;
        }
    }
    Ok(())
}

impl hyper::rt::Read for Bounded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let left = self.left.load(Ordering::Relaxed);
            let mut bytes = [0; READ_BYTES];
            let wanted = READ_BYTES.min(buffer.remaining()).min(left);
            if wanted == 0 {
                return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
            }
            match self.stream.try_read(&mut bytes[..wanted]) {
                Ok(count) => {
                    self.left.fetch_sub(count, Ordering::Relaxed);
                    buffer.put_slice(&bytes[..count]);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl hyper::rt::Write for Bounded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The connection goes with the socket.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
