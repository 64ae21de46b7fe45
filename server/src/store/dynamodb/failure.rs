//! Why something is not read or written, and whether it is worth another try.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use crate::causes::with_causes;
use crate::store::StoreError;
use crate::store::attempts::MayPass;

/// Why something is not read or written.
#[derive(Debug)]
pub(super) enum Failure {
    /// DynamoDB did not do it, or it was not heard whether it did. Every request is made so that another try does no
    /// harm.
    Request {
        /// What kind of failure it is.
        kind: Kind,
        /// What was said.
        text: String,
    },
    /// The dataset did not stand still for long enough.
    Busy,
    /// The owner was linked to another one.
    Moved,
    /// The store is copied to another one, or was.
    ReadOnly,
    /// The dataset is as large as one can be here.
    Full(String),
    /// What is stored is not what was written.
    Corrupt(String),
}

/// What a request failed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A lost connection, too many requests, another transaction on the same item: it passes.
    Passing,
    /// A condition did not hold.
    Refused,
    /// There is no table of that name.
    NoTable,
    /// The items of one partition are as many as an index takes.
    Full,
    /// Credentials, permissions, a mistake: it stays.
    Lasting,
}

/// Codes of failures that pass.
const PASSING: [&str; 12] = [
    "InternalServerError",
    "InternalFailure",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ReplicatedWriteConflictException",
    "ResourceInUseException",
    "ServiceUnavailable",
    "ThrottlingException",
    "Throttling",
    "TransactionConflictException",
    "TransactionInProgressException",
];

/// Codes of reasons for which a transaction is cancelled, and another try may do it.
const PASSING_REASONS: [&str; 4] =
    ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "InternalServerError"];

impl Failure {
    /// What a request failed at.
    pub(super) fn of<E, R>(error: SdkError<E, R>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
        R: std::fmt::Debug,
    {
        // A connection that cannot be made because of credentials is made no better by trying again, but the SDK does
        // not tell these apart. The bound of tries ends it.
        let kind = match &error {
            SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => Kind::Passing,
            SdkError::ServiceError(context) => kind(context.err().code()),
            _ => Kind::Lasting,
        };
        let text = match &error {
            SdkError::ServiceError(context) => {
                let error = context.err();
                format!("{}: {}", error.code().unwrap_or("unknown"), error.message().unwrap_or("it does not say more"))
            }
            error => with_causes(error),
        };
        Self::Request { kind, text }
    }

    /// What a transaction was cancelled for.
    pub(super) fn of_reasons<'a>(reasons: impl Iterator<Item = &'a str> + Clone) -> Self {
        let text = format!("a transaction was cancelled: {}", reasons.clone().collect::<Vec<_>>().join(", "));
        let is = |codes: &[&str]| reasons.clone().any(|reason| codes.contains(&reason));
        let kind = if is(&["ConditionalCheckFailed"]) {
            Kind::Refused
        } else if is(&["ItemCollectionSizeLimitExceeded"]) {
            Kind::Full
        } else if is(&PASSING_REASONS) {
            Kind::Passing
        } else {
            Kind::Lasting
        };
        Self::Request { kind, text }
    }

    /// Whether a condition did not hold.
    pub(super) const fn is_refused(&self) -> bool {
        matches!(self, Self::Request { kind: Kind::Refused, .. })
    }

    /// Whether there is no table of that name.
    pub(super) const fn is_no_table(&self) -> bool {
        matches!(self, Self::Request { kind: Kind::NoTable, .. })
    }

    /// What is stored is not what was written.
    pub(super) fn corrupt(error: impl std::fmt::Display) -> Self {
        Self::Corrupt(error.to_string())
    }
}

fn kind(code: Option<&str>) -> Kind {
    match code {
        Some("ConditionalCheckFailedException") => Kind::Refused,
        Some("ResourceNotFoundException") => Kind::NoTable,
        Some("ItemCollectionSizeLimitExceededException") => Kind::Full,
        Some(code) if PASSING.contains(&code) => Kind::Passing,
        // An answer of a proxy between, or half of one.
        None => Kind::Passing,
        Some(_) => Kind::Lasting,
    }
}

impl MayPass for Failure {
    fn may_pass(&self) -> bool {
        matches!(self, Self::Request { kind: Kind::Passing, .. })
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Moved => Self::Moved,
            Failure::ReadOnly => Self::ReadOnly,
            Failure::Corrupt(text) => Self::Corrupt(text),
            Failure::Full(text) | Failure::Request { kind: Kind::Full, text } => Self::Full(text.into()),
            Failure::Busy => Self::Unavailable("the dataset is written all the time".into()),
            Failure::Request { text, .. } => Self::Unavailable(text.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_tried_again_and_what_stays_is_not() {
        for (code, expected) in [
            (Some("ThrottlingException"), Kind::Passing),
            (Some("TransactionConflictException"), Kind::Passing),
            (None, Kind::Passing),
            (Some("ConditionalCheckFailedException"), Kind::Refused),
            (Some("ItemCollectionSizeLimitExceededException"), Kind::Full),
            (Some("AccessDeniedException"), Kind::Lasting),
            (Some("ValidationException"), Kind::Lasting),
        ] {
            assert_eq!(kind(code), expected, "{code:?}");
        }
        for (reasons, expected) in [
            (&["None", "TransactionConflict"][..], Kind::Passing),
            (&["TransactionConflict", "ConditionalCheckFailed"], Kind::Refused),
            (&["None", "ValidationError"], Kind::Lasting),
        ] {
            let failure = Failure::of_reasons(reasons.iter().copied());
            assert!(matches!(failure, Failure::Request { kind, .. } if kind == expected), "{reasons:?}");
        }
    }
}
