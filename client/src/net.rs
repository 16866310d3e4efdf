//! Connections to brokers: how they are made, kept, and watched.

use std::{
    collections::BTreeMap,
    error::Error as _,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use baton_core::{Error, ErrorCode};
use baton_proto::v1::{admin_client::AdminClient, broker_client::BrokerClient, groups_client::GroupsClient};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};

use crate::error::ClientError;

/// An answer above this size is refused: a broker's own limits are far below.
const MESSAGE_BYTES_MAX: usize = 100 << 20;
/// Enough that one connection on a fast network is not held up by flow control.
const WINDOW_BYTES: u32 = 8 << 20;
/// A connection whose peer answers no ping is given up after this time …
const KEEPALIVE_TIMEOUT: Duration = Duration::from_millis(1000);
/// … after pings that are sent so often, also while nothing else is said.
const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(500);

/// A byte stream to a broker.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;

/// Makes the connections, so that a client also runs on a simulated network.
pub trait Connector: Send + Sync + 'static {
    /// Connects to `address`, which is `host:port`.
    fn connect(&self, address: String) -> Connecting;
}

/// The network of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect(&self, address: String) -> Connecting {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// What a connection is for. Fetched data must not delay an answer to a metadata request, so
/// they do not share a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    Control,
    Fetch,
}

/// The connections of one client, by address. They open when first used and open again by
/// themselves when they broke.
pub(crate) struct Pool {
    connector: Arc<dyn Connector>,
    connect_timeout: Duration,
    channels: Mutex<BTreeMap<(String, Purpose), Channel>>,
}

impl Pool {
    pub(crate) fn new(connector: Arc<dyn Connector>, connect_timeout: Duration) -> Self {
        Self { connector, connect_timeout, channels: Mutex::default() }
    }

    pub(crate) fn broker(&self, address: &str, purpose: Purpose) -> Result<BrokerClient<Channel>, ClientError> {
        Ok(broker_client(self.channel(address, purpose)?))
    }

    pub(crate) fn admin(&self, address: &str) -> Result<AdminClient<Channel>, ClientError> {
        let channel = self.channel(address, Purpose::Control)?;
        Ok(AdminClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    pub(crate) fn groups(&self, address: &str) -> Result<GroupsClient<Channel>, ClientError> {
        let channel = self.channel(address, Purpose::Control)?;
        Ok(GroupsClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// A connection of its own, which nobody else waits on.
    pub(crate) fn broker_apart(&self, address: &str) -> Result<BrokerClient<Channel>, ClientError> {
        Ok(broker_client(self.open(address)?))
    }

    /// Forgets the connections to all other addresses.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|(address, _), _| keep(address));
    }

    fn channel(&self, address: &str, purpose: Purpose) -> Result<Channel, ClientError> {
        let key = (address.to_owned(), purpose);
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&key) {
            return Ok(channel.clone());
        }
        let channel = self.open(address)?;
        channels.insert(key, channel.clone());
        Ok(channel)
    }

    fn open(&self, address: &str) -> Result<Channel, ClientError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| ClientError::Invalid(format!("{address:?} is not an address of the form host:port")))?
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let (connector, timeout) = (self.connector.clone(), self.connect_timeout);
        let connect = tower::service_fn(move |uri: Uri| {
            let address = uri.authority().map(ToString::to_string).unwrap_or_default();
            let connecting = connector.connect(address);
            async move {
                match tokio::time::timeout(timeout, connecting).await {
                    Ok(stream) => stream.map(TokioIo::new),
                    Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {timeout:?}"))),
                }
            }
        });
        Ok(endpoint.connect_with_connector_lazy(connect))
    }
}

fn broker_client(channel: Channel) -> BrokerClient<Channel> {
    BrokerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn address(host: &str, port: u32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What a failed call means. Typed errors travel inside answers, so a status is the transport's.
pub(crate) fn status_error(address: &str, status: &Status) -> ClientError {
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => {
            Error::new(ErrorCode::FrameTooLarge, status.message().to_owned()).into()
        }
        Code::Unimplemented | Code::InvalidArgument => {
            ClientError::Protocol(format!("{address}: {}", status.message()))
        }
        Code::PermissionDenied | Code::Unauthenticated => {
            Error::new(ErrorCode::Unauthorized, status.message().to_owned()).into()
        }
        _ => ClientError::Unreachable(vec![crate::error::Attempt {
            address: address.to_owned(),
            reason: reason(status),
        }]),
    }
}

/// The innermost cause, which names the system's error.
fn reason(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    if text.is_empty() { status.code().to_string() } else { text }
}
