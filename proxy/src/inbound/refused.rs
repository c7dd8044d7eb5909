//! A call that is not passed on, and what its caller is told.

use http::StatusCode;

use crate::ext_authz::Denial;
use crate::respond::Refusal;
use crate::token::TokenRefusal;

/// A call that is not passed on, and the line that the caller is told.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) text: Option<String>,
    /// The authorizer's own answer.
    pub(super) denial: Option<Box<Denial>>,
}

impl<R: Into<Refusal>> From<R> for Refused {
    fn from(refusal: R) -> Self {
        Self {
            refusal: refusal.into(),
            text: None,
            denial: None,
        }
    }
}

impl Refused {
    pub(super) fn token(refused: TokenRefusal) -> Self {
        Self {
            refusal: refused.refusal,
            text: Some(refused.text),
            denial: None,
        }
    }

    pub(super) fn by_authorizer(refusal: Refusal, denial: Denial) -> Self {
        Self {
            refusal,
            text: None,
            denial: Some(Box::new(denial)),
        }
    }

    /// A 403 tells the caller nothing but that; the reason stands in the record.
    pub(super) fn line(&self) -> &str {
        match &self.text {
            Some(text) if self.refusal.status != StatusCode::FORBIDDEN => text,
            Some(_) | None => self.refusal.text,
        }
    }
}
