//! What somebody may be: a role towards the API, or a worker.

use std::fmt;

use serde::Deserialize;

use crate::names::WorkerName;

/// A role towards the API. Each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads and watches.
    Viewer,
    /// Also keeps things running: pause, resume, resync, drain, cordon, repair.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// All roles, from the smallest.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The role's name in files and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names of workers: one, or all that begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerPattern {
    /// The worker of that name.
    Name(WorkerName),
    /// All whose names begin so.
    Prefix(String),
}

impl WorkerPattern {
    /// Reads `NAME`, `PREFIX*` or `*`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(prefix) = text.strip_suffix('*') else {
            return text.parse().map(Self::Name).map_err(|error: crate::InvalidName| error.to_string());
        };
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        if prefix.len() > 63 || !prefix.bytes().all(fits) {
            return Err(format!("{text:?} is not a worker's name, or the beginning of one and '*'"));
        }
        Ok(Self::Prefix(prefix.to_owned()))
    }

    /// Whether the name is one of these.
    pub fn covers(&self, name: &WorkerName) -> bool {
        match self {
            Self::Name(one) => one == name,
            Self::Prefix(prefix) => name.as_str().starts_with(prefix.as_str()),
        }
    }
}

impl fmt::Display for WorkerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name.as_str()),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// What somebody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rights {
    /// All of it: nothing tells callers apart.
    Everything,
    /// What a role may.
    Api(Role),
    /// To be one of these workers, and nothing else.
    Worker(Vec<WorkerPattern>),
}

impl Rights {
    /// Whether a caller of the API may do what this role may.
    pub fn include(&self, needed: Role) -> bool {
        match self {
            Self::Everything => true,
            Self::Api(role) => *role >= needed,
            Self::Worker(_) => false,
        }
    }

    /// Whether it may be a worker at all.
    pub fn include_worker(&self) -> bool {
        match self {
            Self::Everything | Self::Worker(_) => true,
            Self::Api(_) => false,
        }
    }

    /// Whether it may be this worker.
    pub fn include_worker_named(&self, name: &WorkerName) -> bool {
        match self {
            Self::Everything => true,
            Self::Worker(patterns) => patterns.iter().any(|pattern| pattern.covers(name)),
            Self::Api(_) => false,
        }
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("every role"),
            Self::Api(role) => write!(f, "role {role}"),
            Self::Worker(patterns) => {
                let names: Vec<String> = patterns.iter().map(ToString::to_string).collect();
                write!(f, "role worker ({})", names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_include_those_before_them() {
        for (held, needed, may) in [
            (Role::Viewer, Role::Viewer, true),
            (Role::Viewer, Role::Operator, false),
            (Role::Operator, Role::Viewer, true),
            (Role::Operator, Role::Admin, false),
            (Role::Admin, Role::Admin, true),
        ] {
            assert_eq!(Rights::Api(held).include(needed), may, "{held} {needed}");
        }
        assert!(!Rights::Api(Role::Admin).include_worker() && !Rights::Worker(Vec::new()).include(Role::Viewer));
    }

    #[test]
    fn a_pattern_covers_what_begins_alike() {
        let name = |text: &str| text.parse::<WorkerName>().unwrap();
        for (pattern, worker, covered) in [
            ("w1", "w1", true),
            ("w1", "w10", false),
            ("edge-*", "edge-7", true),
            ("edge-*", "edge", false),
            ("*", "w", true),
        ] {
            assert_eq!(WorkerPattern::parse(pattern).unwrap().covers(&name(worker)), covered, "{pattern} {worker}");
        }
        for wrong in ["", "W1", "a*b", "**", "a b*"] {
            assert!(WorkerPattern::parse(wrong).is_err(), "{wrong}");
        }
    }
}
