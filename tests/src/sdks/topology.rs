//! The ways to a Redis that Flotilla knows, and which SDK's store goes them.

use super::Sdk;

/// How a Redis is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server, a port.
    Standalone,
    /// A user of an ACL, with a password; the reader's may only read.
    AclUser,
    /// TLS, with an authority of one's own and a client certificate.
    Tls,
    /// A socket of the same machine.
    UnixSocket,
    /// Whichever server the Sentinels name; they have a password of their own.
    Sentinel,
    /// A cluster of three masters.
    Cluster,
}

/// What an SDK needs for a [`Topology`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// What its store has a setting for, named here.
    Setting(&'static str),
    /// A client or pool of the application's, that the store takes.
    Client(&'static str),
    /// It does not get there, and why.
    Unsupported(&'static str),
    /// It was not tried, and why.
    Untried(&'static str),
}

impl Topology {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Standalone, Self::AclUser, Self::Tls, Self::UnixSocket, Self::Sentinel, Self::Cluster];

    /// For names of stores and prefixes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::AclUser => "acl-user",
            Self::Tls => "tls",
            Self::UnixSocket => "unix-socket",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        }
    }

    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Standalone => "Standalone",
            Self::AclUser => "Password, ACL user",
            Self::Tls => "TLS, client certificate",
            Self::UnixSocket => "Unix socket",
            Self::Sentinel => "Sentinel",
            Self::Cluster => "Cluster",
        }
    }
}

impl Sdk {
    /// How this SDK gets to such a Redis. The tests hold it to what is said here.
    pub const fn reach(self, topology: Topology) -> Reach {
        use Reach::{Client, Setting, Unsupported, Untried};
        match (self, topology) {
            (Self::Python | Self::Node | Self::Go | Self::Java, Topology::Standalone) => Setting("host and port"),
            (Self::Python | Self::Go, Topology::AclUser) => Setting("`redis://USER:PASSWORD@…`"),
            (Self::Python, Topology::Tls) => Setting("`rediss://…?ssl_ca_certs=…`"),
            (Self::Python, Topology::UnixSocket) => Setting("`unix://…`"),
            (Self::Python, Topology::Sentinel | Topology::Cluster) => {
                Unsupported("the store makes a pool of connections to one server")
            }
            (Self::Node, Topology::AclUser | Topology::Tls | Topology::UnixSocket) => Setting("`redisOpts`"),
            (Self::Node, Topology::Sentinel | Topology::Cluster) => Client("ioredis client"),
            (Self::Go, Topology::Tls) => Setting("`rediss://…`, `DialOptions`"),
            (Self::Go, Topology::UnixSocket | Topology::Sentinel) => Client("redigo `Pool`"),
            (Self::Go, Topology::Cluster) => Unsupported("redigo has no cluster client; the go-redis store has"),
            (
                Self::Java,
                Topology::AclUser | Topology::Tls | Topology::UnixSocket | Topology::Sentinel | Topology::Cluster,
            ) => Untried("LaunchDarkly's Redis store was not run"),
        }
    }
}
