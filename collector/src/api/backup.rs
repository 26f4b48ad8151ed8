//! A backup of the collector that runs, for root on its own host alone: it holds the authority's key.
//!
//! It is settled before the answer begins, so that what goes wrong until then is said as such. An answer that breaks off
//! lacks the end of the archive.

use std::io::{self, Write};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use http_body_util::channel::Channel;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Api;
use super::caller::Root;
use super::params::Params;
use super::problem::Problem;
use crate::backup::{self, BackupError, Beside};
use crate::registry::What;

/// Pieces on their way to the asker.
const PIECES_WAITING: usize = 4;
const PIECE_BYTES: usize = 64 * 1024;

struct Pipe(mpsc::Sender<Bytes>);

pub(super) async fn take(Root(caller): Root, State(api): State<Api>, params: Params) -> Result<Response, Problem> {
    params.done()?;
    let note = What::Note { action: String::from("backup"), target: String::from("state") };
    api.published.orders.ask(caller.actor, note).await?;
    let (state_dir, now) = (api.published.state_dir.clone(), api.published.clock.wall());
    let prepared = tokio::task::spawn_blocking(move || backup::prepare(&state_dir, now, Beside::Collector)).await;
    let prepared =
        prepared.map_err(|_| Problem::unavailable("the backup was given up"))?.map_err(|error| refused(&error))?;
    let (pipe, mut pieces) = mpsc::channel(PIECES_WAITING);
    let sending = tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(PIECE_BYTES, Pipe(pipe));
        let sent = prepared.send(&mut out)?;
        out.flush().map(|()| sent.bytes)
    });
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(PIECES_WAITING);
    tokio::spawn(async move {
        while let Some(piece) = pieces.recv().await {
            if sender.send_data(piece).await.is_err() {
                break;
            }
        }
        drop(pieces);
        match sending.await.map_err(io::Error::other).and_then(|sent| sent) {
            Ok(bytes) => info!(bytes, "a backup was taken"),
            Err(error) => {
                warn!("a backup broke off: {error}");
                sender.abort(error);
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], Body::new(body)).into_response())
}

fn refused(error: &BackupError) -> Problem {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let text = format!("{error}{cause}");
    match error {
        BackupError::Busy => Problem::conflict(text, Vec::new()),
        _ => Problem::unavailable(text),
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        // Whoever asked has gone.
        self.0.blocking_send(Bytes::copy_from_slice(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
