//! What can go wrong here, except for what is answered to a client.

use std::io;

/// An error of the REST server.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// `restapi.listen` is not an address this host can listen on.
    #[error("restapi.listen: cannot listen on {address}; check the address, and that no other process uses the port")]
    Bind {
        /// What was tried.
        address: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The host name in `restapi.listen` has no address.
    #[error("restapi.listen: host {host} cannot be resolved; write an IP address, or * for all interfaces")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's reason.
        #[source]
        source: io::Error,
    },
    /// A configured header cannot be sent.
    #[error("restapi: header {header:?} is not a valid HTTP header name with a value of printable characters")]
    Header {
        /// Its name.
        header: String,
    },
    /// The server's thread or runtime could not be made.
    #[error("the thread of the REST API cannot be started")]
    Thread(#[source] io::Error),
    /// The server's thread ended before it listened.
    #[error("the thread of the REST API ended before it listened")]
    Vanished,
}
