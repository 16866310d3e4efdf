//! Who may do what. Every request passes here before it is looked at.

use baton_core::{Error, ErrorCode};

use crate::context::{Principal, RequestContext};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Write records.
    Produce,
    /// Read records.
    Fetch,
    /// See that something exists and how it stands.
    Describe,
    Create,
    Alter,
    Delete,
    /// Act on the cluster: move replicas, elect an unclean leader.
    Operate,
}

impl Verb {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Fetch => "fetch",
            Self::Describe => "describe",
            Self::Create => "create",
            Self::Alter => "alter",
            Self::Delete => "delete",
            Self::Operate => "operate",
        }
    }
}

/// What a request concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource<'a> {
    Cluster,
    Topic(&'a str),
    /// A consumer group.
    Group(&'a str),
    /// Who may write under a transactional id.
    TransactionalId(&'a str),
}

/// Decides whether a principal may do something.
pub trait Authorizer: Send + Sync + 'static {
    fn allows(&self, context: &RequestContext, verb: Verb, resource: Resource<'_>) -> bool;

    /// [`Authorizer::allows`] as the answer that a client gets.
    ///
    /// # Errors
    /// `UNAUTHORIZED`, with the verb and the resource.
    fn authorize(&self, context: &RequestContext, verb: Verb, resource: Resource<'_>) -> Result<(), Error> {
        if self.allows(context, verb, resource) {
            return Ok(());
        }
        let who = match &context.principal {
            Principal::Anonymous => "an anonymous client",
            Principal::User(name) => name,
            Principal::Cluster => "a member of the cluster",
        };
        let verb = verb.name();
        Err(match resource {
            Resource::Cluster => Error::new(ErrorCode::Unauthorized, format!("{who} may not {verb} on the cluster")),
            Resource::Group(group) => {
                Error::new(ErrorCode::Unauthorized, format!("{who} may not {verb} on the group {group}"))
            }
            Resource::TransactionalId(id) => {
                Error::new(ErrorCode::Unauthorized, format!("{who} may not {verb} with the transactional id {id}"))
            }
            Resource::Topic(topic) => {
                Error::new(ErrorCode::Unauthorized, format!("{who} may not {verb} on this topic")).topic(topic)
            }
        })
    }
}

/// Lets everyone do everything: a cluster without security.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Authorizer for AllowAll {
    fn allows(&self, _: &RequestContext, _: Verb, _: Resource<'_>) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    struct ReadOnly;

    impl Authorizer for ReadOnly {
        fn allows(&self, _: &RequestContext, verb: Verb, _: Resource<'_>) -> bool {
            matches!(verb, Verb::Fetch | Verb::Describe)
        }
    }

    #[test]
    fn a_refusal_names_who_what_and_where() {
        let context = RequestContext::new(Arc::from("grpc"), None, Duration::from_secs(1))
            .principal(Principal::User(Arc::from("ann")));
        assert_eq!(AllowAll.authorize(&context, Verb::Operate, Resource::Cluster), Ok(()));
        assert_eq!(ReadOnly.authorize(&context, Verb::Fetch, Resource::Topic("t")), Ok(()));
        let error = ReadOnly.authorize(&context, Verb::Produce, Resource::Topic("t")).unwrap_err();
        assert_eq!(error.to_string(), "UNAUTHORIZED: ann may not produce on this topic [topic t]");
        let error = ReadOnly.authorize(&context, Verb::Operate, Resource::Cluster).unwrap_err();
        assert_eq!(error.code, ErrorCode::Unauthorized);
    }
}
