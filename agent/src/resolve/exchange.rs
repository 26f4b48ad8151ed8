//! One question to one server: UDP first, TCP when the answer does not fit.
//! It has no timeout of its own: the caller drops it when time is up.
//! What does not match the question is ignored over UDP and ends the exchange over TCP.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpStream, UdpSocket};

use super::message::{Answer, MessageError, Question, Rcode, parse_answer};

/// Without EDNS an answer over UDP has at most 512 bytes; some servers send more unasked.
const UDP_LEN_MAX: usize = 4096;
/// A thousand addresses. The protocol allows 64 KiB, which no honest answer here needs.
const TCP_LEN_MAX: usize = 16 * 1024;

/// Why a server gave nothing usable.
#[derive(Debug)]
pub enum Failure {
    Timeout,
    Code(Rcode),
    Malformed(MessageError),
    /// Answered over TCP with more than is accepted.
    TooLong,
    Unreachable(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("did not answer in time"),
            Self::Code(code) => write!(f, "answered {code}"),
            Self::Malformed(error) => write!(f, "sent a malformed answer ({error})"),
            Self::TooLong => write!(f, "sent an answer of more than {TCP_LEN_MAX} bytes"),
            Self::Unreachable(error) => write!(f, "could not be asked ({error})"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error)
    }
}

impl From<MessageError> for Failure {
    fn from(error: MessageError) -> Self {
        Self::Malformed(error)
    }
}

/// Never gives `Answer::Truncated`.
pub(super) async fn exchange(server: SocketAddr, question: &Question) -> Result<Answer, Failure> {
    match over_udp(server, question).await? {
        Answer::Truncated => over_tcp(server, question).await,
        answer => Ok(answer),
    }
}

async fn over_udp(server: SocketAddr, question: &Question) -> Result<Answer, Failure> {
    // A new socket for each question: the system draws its port at random, and as it is connected,
    // the system also drops whatever comes from another address and reports a refusal at once.
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&question.encode()).await?;
    let mut buffer = vec![0; UDP_LEN_MAX];
    loop {
        let len = socket.recv(&mut buffer).await?;
        match parse_answer(&buffer[..len], question) {
            Err(MessageError::Foreign) => {}
            answer => return Ok(answer?),
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &Question) -> Result<Answer, Failure> {
    let stream = TcpStream::connect(server).await?;
    write_message(&stream, &question.encode()).await?;
    let message = read_message(&stream).await?;
    match parse_answer(&message, question)? {
        // Over TCP there is nothing longer to ask for.
        Answer::Truncated => Err(MessageError::Short.into()),
        answer => Ok(answer),
    }
}

pub(super) async fn write_message(stream: &TcpStream, message: &[u8]) -> Result<(), Failure> {
    let len = u16::try_from(message.len()).map_err(|_| Failure::TooLong)?;
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(super) async fn read_message(stream: &TcpStream) -> Result<Vec<u8>, Failure> {
    let mut prefix = [0; 2];
    read_exact(stream, &mut prefix).await?;
    let len = usize::from(u16::from_be_bytes(prefix));
    if len > TCP_LEN_MAX {
        return Err(Failure::TooLong);
    }
    let mut message = vec![0; len];
    read_exact(stream, &mut message).await?;
    Ok(message)
}

async fn read_exact(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        stream.readable().await?;
        match stream.try_read(&mut buffer[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
