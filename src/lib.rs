//! One handler, every transport: the parts that know no transport yet.

pub mod codec;
pub mod endpoint;

/// A boxed cause, as codecs hand it over.
pub(crate) mod error {
    pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
}

pub use endpoint::{Endpoint, EndpointError};
