//! The one HTTP client and the one retry loop.
