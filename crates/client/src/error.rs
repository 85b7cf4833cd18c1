//! What can go wrong with a request.

use http::StatusCode;
use skerry_wire::api::ApiError;

/// Why a request gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not one.
    #[error("`{address}` is not a server address: expected https://HOST:PORT")]
    Address {
        /// As configured.
        address: String,
    },
    /// The CA file holds no certificate.
    #[error("the CA file holds no certificate that can be used: {reason}")]
    Ca {
        /// What is wrong with it.
        reason: String,
    },
    /// The token has characters that no header can carry.
    #[error("the operator token is not one: expected `sko_<id>_<secret>`")]
    Token,
    /// No connection, or it broke.
    #[error("{method} {url}: {reason}")]
    Transport {
        /// Method.
        method: http::Method,
        /// URL.
        url: String,
        /// The chain of causes.
        reason: String,
    },
    /// Nothing happened for too long.
    #[error("{method} {url}: no answer within {seconds} s")]
    TimedOut {
        /// Method.
        method: http::Method,
        /// URL.
        url: String,
        /// The deadline.
        seconds: u64,
    },
    /// The server refused.
    #[error("{}{}", .error.message, .error.hint.as_ref().map(|h| format!("\n  {h}")).unwrap_or_default())]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// What the server said.
        error: ApiError,
    },
    /// The answer is longer than any answer of this kind may be.
    #[error("{method} {url}: the answer is over {limit} bytes")]
    TooLong {
        /// Method.
        method: http::Method,
        /// URL.
        url: String,
        /// The limit.
        limit: usize,
    },
    /// The answer is not what this version of the client understands.
    #[error("{method} {url}: the answer cannot be read ({reason}); is the server of another version?")]
    Decode {
        /// Method.
        method: http::Method,
        /// URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ClientError {
    /// May the same request succeed a little later, with nothing changed here?
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::TimedOut { .. } => true,
            Self::Refused { status, .. } => {
                matches!(*status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
            }
            Self::Address { .. } | Self::Ca { .. } | Self::Token | Self::TooLong { .. } | Self::Decode { .. } => false,
        }
    }

    /// The server's stable word for a refusal.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { error, .. } => Some(&error.code),
            _ => None,
        }
    }
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass() {
        let refused = |status| ClientError::Refused { status, error: ApiError { code: String::new(), message: String::new(), hint: None } };
        let method = http::Method::GET;
        assert!(ClientError::TimedOut { method: method.clone(), url: String::new(), seconds: 1 }.is_transient());
        assert!(ClientError::Transport { method: method.clone(), url: String::new(), reason: String::new() }.is_transient());
        assert!(refused(StatusCode::SERVICE_UNAVAILABLE).is_transient());
        assert!(!refused(StatusCode::NOT_FOUND).is_transient() && !refused(StatusCode::UNAUTHORIZED).is_transient());
        assert!(!ClientError::Decode { method, url: String::new(), reason: String::new() }.is_transient());
    }
}
