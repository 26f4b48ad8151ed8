//! The way in for root on the collector's own host: a socket that only it and the service can open, and the
//! token that the first start leaves in a file.

use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::UnixListener;
use tracing::info;

use super::caller::reveal;
use crate::orders::Orders;
use crate::registry::{Actor, Answer, Labels, Role, TokenWish, What};
use crate::store::{ControlReader, StoreError};

/// Beside `control.db`.
const SOCKET: &str = "admin.sock";
const TOKEN_FILE: &str = "admin-token";
const ONLY_OWNER: u32 = 0o600;

#[derive(Debug, Error)]
pub enum AdminError {
    #[error("{} cannot be made", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the first admin token cannot be made: {0}")]
    Refused(String),
    #[error("whether there is an admin token cannot be read")]
    Store(#[from] StoreError),
}

/// Listens, and goes with its value.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl AdminSocket {
    /// The caller holds the lock of the state directory: what lies there is of a process that is gone.
    pub fn bind(state_dir: &Path) -> Result<Self, AdminError> {
        let path = state_dir.join(SOCKET);
        let fresh = state_dir.join("admin.sock.new");
        let bind = || {
            for old in [&fresh, &path] {
                match std::fs::remove_file(old) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
            // It gets its name only when nobody else can open it any more.
            let listener = UnixListener::bind(&fresh)?;
            std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(ONLY_OWNER))?;
            std::fs::rename(&fresh, &path)?;
            Ok(listener)
        };
        let listener = bind().map_err(|source| AdminError::Io { path: path.clone(), source })?;
        Ok(Self { path, listener: Some(listener) })
    }

    /// What `Listener::serve_admin` takes; once.
    pub fn take(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

/// Where `dunlin` and `dunlin-collector token` find it.
#[must_use]
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join(SOCKET)
}

/// Makes the first admin token and leaves it in a file, unless there has been one. The pipeline has to run.
pub async fn first_token(orders: &Orders, state_dir: &Path) -> Result<(), AdminError> {
    let path = state_dir.join(TOKEN_FILE);
    let control = state_dir.join("control.db");
    let read = tokio::task::spawn_blocking(move || ControlReader::open(&control)?.tokens()).await;
    let tokens = read.map_err(|_| AdminError::Refused(String::from("the collector is being stopped")))??;
    if path.exists() || tokens.iter().any(|(_, token)| token.role == Role::Admin) {
        return Ok(());
    }
    let wish = TokenWish {
        role: Role::Admin,
        name: String::from("first"),
        uses: None,
        expires: None,
        labels: Labels::new(),
        needs_approval: false,
        per_hour: None,
        is_ephemeral: false,
    };
    let answer = orders.ask(Actor::collector(), What::CreateToken(wish)).await;
    let Answer::Token { secret, .. } = answer.map_err(|refused| AdminError::Refused(refused.to_string()))? else {
        return Err(AdminError::Refused(String::from("the answer holds no token")));
    };
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(ONLY_OWNER).open(&path)?;
        file.write_all(format!("{}\n", reveal(&secret)).as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| AdminError::Io { path: path.clone(), source })?;
    info!(path = %path.display(), "the first admin token is in this file; make others with it and delete the file");
    Ok(())
}
