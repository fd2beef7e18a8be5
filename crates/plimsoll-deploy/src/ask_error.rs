//! Why a question to a service could not even be asked, or had no answer.

use plimsoll_http::HttpError;

/// No answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Base and path make no URL.
    #[error("`{text}` is no URL")]
    Url {
        text: String,
        #[source]
        source: <plimsoll_http::Url as std::str::FromStr>::Err,
    },
    /// The method has characters that no method has.
    #[error("`{method}` is no method")]
    Method { method: String },
    /// The request was sent, or refused by the client.
    #[error(transparent)]
    Http(#[from] HttpError),
}
