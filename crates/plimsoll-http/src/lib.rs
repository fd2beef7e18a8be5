//! The one HTTP client and the one retry loop.
//!
//! Every request of Plimsoll goes through [`Client`]: it refuses plain HTTP to anything but loopback unless told
//! otherwise, carries no credentials to another host on a redirect, bounds what it reads, and its errors name host and
//! path but never a query string, a header or a body that was sent. [`Client::send_with_retry`] is the only place where a
//! request is repeated, and [`retry`]
//! below it the only loop that does so. What it is not: a place for anything about registries, forges or chat services.
//!
//! TLS is rustls with ring, and trust is the system's: adopters' private registries are trusted by way of the system's store
//! already, and no list of roots ages inside the executable. A machine without any root still reaches loopback.

mod body;
mod client;
mod error;
mod guard;
mod pauses;
mod retry;

pub use body::{file_body, read_limited};
pub use client::{Client, ClientOptions};
pub use error::HttpError;
pub use guard::{MAX_REDIRECTS, is_loopback_authority, is_loopback_host};
pub use reqwest::{Body, Method, Request, RequestBuilder, Response, StatusCode, Url, header};
pub use retry::{Repeat, Verdict, asked_wait, random_unit, retry};
