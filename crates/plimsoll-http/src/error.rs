//! What can go wrong with a request. No message holds a header, a query string or a body that was sent.

use crate::guard::shown;
use plimsoll_core::{Classify, ErrorClass};
use reqwest::{Method, Url};

/// Why a request had no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The client could not be set up.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] reqwest::Error),
    /// The request itself is malformed.
    #[error("`{what}` is no request that can be sent")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
    /// A file to send could not be read.
    #[error("cannot read `{path}` to send it")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Plain HTTP to another machine.
    #[error("`{url}` is plain HTTP to another machine; use https, or allow it in the configuration")]
    PlainHttp {
        /// Scheme, host and path.
        url: String,
    },
    /// No connection was made.
    #[error("cannot connect for {method} {url}")]
    Connect {
        /// The method.
        method: Method,
        /// Scheme, host and path.
        url: String,
        /// What the client said.
        #[source]
        source: reqwest::Error,
    },
    /// No complete answer in time.
    #[error("{method} {url} took too long")]
    Timeout {
        /// The method.
        method: Method,
        /// Scheme, host and path.
        url: String,
        /// What the client said.
        #[source]
        source: reqwest::Error,
    },
    /// The exchange broke off, or was no HTTP.
    #[error("{method} {url} broke off")]
    Broken {
        /// The method.
        method: Method,
        /// Scheme, host and path.
        url: String,
        /// What the client said.
        #[source]
        source: reqwest::Error,
    },
    /// A redirect that is not followed: out of TLS, or from another machine to this one.
    #[error("{url} leads to {to}, where requests must not go")]
    Redirect {
        /// Scheme, host and path of where it comes from.
        url: String,
        /// The same of where it leads.
        to: String,
    },
    /// The answer is longer than what is asked for can be.
    #[error("the answer from {url} is longer than {limit} bytes")]
    TooLarge {
        /// Scheme, host and path.
        url: String,
        /// The bound, in bytes.
        limit: u64,
    },
}

impl HttpError {
    /// Sorts what the client said; the URL is taken out of it, because it may hold a token.
    pub(crate) fn from_reqwest(method: &Method, url: &Url, error: reqwest::Error) -> Self {
        let (method, url, source) = (method.clone(), shown(url), error.without_url());
        if source.is_connect() {
            Self::Connect { method, url, source }
        } else if source.is_timeout() {
            Self::Timeout { method, url, source }
        } else {
            Self::Broken { method, url, source }
        }
    }

    /// An answer to a `GET` that broke off while its body was read.
    pub fn broken(url: &Url, error: reqwest::Error) -> Self {
        Self::from_reqwest(&Method::GET, url, error)
    }

    /// Whether the same request might succeed later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Timeout { .. } | Self::Broken { .. })
    }
}

impl Classify for HttpError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Setup(_) | Self::Malformed { .. } => ErrorClass::Internal,
            Self::PlainHttp { .. } => ErrorClass::User,
            Self::File { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::Redirect { .. }
            | Self::TooLarge { .. } => ErrorClass::External,
        }
    }
}
