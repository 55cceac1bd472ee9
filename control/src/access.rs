//! Which call of the API is for whom: one table, from which the documentation is made, and which the tests hold against
//! the descriptors of the API.

use flotilla_proto::access::{Rights, Role};

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Everybody, also without a token.
    Nothing,
    /// A caller of the API with this role or a larger one.
    Role(Role),
    /// The same, and a larger role for some requests, which the handler looks at.
    RoleByRequest {
        /// In any case.
        least: Role,
        /// Which requests need more.
        when: &'static str,
        /// What they need.
        role: Role,
    },
    /// A worker, under its own name.
    Worker,
}

impl Needs {
    /// Whether somebody of these rights may make the call at all.
    pub fn allow(self, rights: &Rights) -> bool {
        match self {
            Self::Nothing => true,
            Self::Role(role) | Self::RoleByRequest { least: role, .. } => rights.include(role),
            Self::Worker => rights.include_worker(),
        }
    }

    /// The role that is needed, in words.
    pub fn role_name(self) -> &'static str {
        match self {
            Self::Nothing => "nobody",
            Self::Role(role) | Self::RoleByRequest { least: role, .. } => role.as_str(),
            Self::Worker => "worker",
        }
    }
}

/// The role that `VerifyData` needs in order to repair.
pub(crate) const REPAIR_ROLE: Role = Role::Operator;

const VIEWER: Needs = Needs::Role(Role::Viewer);
const OPERATOR: Needs = Needs::Role(Role::Operator);
const ADMIN: Needs = Needs::Role(Role::Admin);

/// Every call that control answers, by its path. What is not here is refused.
pub const CALLS: &[(&str, Needs)] = &[
    ("/flotilla.v1.EnvironmentService/GetEnvironment", VIEWER),
    ("/flotilla.v1.EnvironmentService/ListEnvironments", VIEWER),
    ("/flotilla.v1.EnvironmentService/WatchEnvironments", VIEWER),
    ("/flotilla.v1.EnvironmentService/PauseEnvironment", OPERATOR),
    ("/flotilla.v1.EnvironmentService/ResumeEnvironment", OPERATOR),
    ("/flotilla.v1.EnvironmentService/ResyncEnvironment", OPERATOR),
    ("/flotilla.v1.EnvironmentService/CreateEnvironment", ADMIN),
    ("/flotilla.v1.EnvironmentService/UpdateEnvironment", ADMIN),
    ("/flotilla.v1.EnvironmentService/DeleteEnvironment", ADMIN),
    ("/flotilla.v1.EnvironmentService/RotateSdkKey", ADMIN),
    // Also when it only validates: it would tell a guesser whether a key is the one that is there.
    ("/flotilla.v1.EnvironmentService/BatchApplyEnvironments", ADMIN),
    ("/flotilla.v1.FleetService/ListWorkers", VIEWER),
    ("/flotilla.v1.FleetService/GetWorker", VIEWER),
    ("/flotilla.v1.FleetService/WatchWorkers", VIEWER),
    ("/flotilla.v1.FleetService/GetFleetStatus", VIEWER),
    ("/flotilla.v1.FleetService/ListEvents", VIEWER),
    ("/flotilla.v1.FleetService/WatchEvents", VIEWER),
    ("/flotilla.v1.FleetService/CordonWorker", OPERATOR),
    ("/flotilla.v1.FleetService/UncordonWorker", OPERATOR),
    ("/flotilla.v1.FleetService/DrainWorker", OPERATOR),
    ("/flotilla.v1.FleetService/DeleteWorker", ADMIN),
    ("/flotilla.v1.DataService/ListItems", VIEWER),
    ("/flotilla.v1.DataService/GetItem", VIEWER),
    (
        "/flotilla.v1.DataService/VerifyData",
        Needs::RoleByRequest { least: Role::Viewer, when: "with `repair`", role: REPAIR_ROLE },
    ),
    ("/flotilla.v1.StoreService/GetStore", VIEWER),
    ("/flotilla.v1.StoreService/ListStores", VIEWER),
    // It has a worker write keys of its own to the store.
    ("/flotilla.v1.StoreService/CheckStore", OPERATOR),
    ("/flotilla.v1.StoreService/CreateStore", ADMIN),
    ("/flotilla.v1.StoreService/UpdateStore", ADMIN),
    ("/flotilla.v1.StoreService/DeleteStore", ADMIN),
    ("/flotilla.v1.AuditService/ListAuditRecords", ADMIN),
    ("/flotilla.v1.AuditService/WatchAuditRecords", ADMIN),
    ("/flotilla.v1.WorkerService/Session", Needs::Worker),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", VIEWER),
    ("/grpc.health.v1.Health/Check", Needs::Nothing),
    ("/grpc.health.v1.Health/Watch", Needs::Nothing),
];

/// The row of a path; `None`: there is no such call.
pub(crate) fn row(path: &str) -> Option<(&'static str, Needs)> {
    CALLS.iter().find(|(known, _)| *known == path).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_call_has_a_row_and_every_row_a_call() {
        let sets = [
            flotilla_proto::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        ];
        let mut there = BTreeSet::new();
        for set in sets {
            for file in FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    let methods = service
                        .method
                        .iter()
                        .map(|method| format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                    there.extend(methods);
                }
            }
        }
        let rows: BTreeSet<String> = CALLS.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(rows.len(), CALLS.len(), "a call has two rows");
        assert_eq!(there, rows);
    }

    #[test]
    fn what_is_not_in_the_table_is_not_known() {
        assert_eq!(row("/flotilla.v1.FleetService/Nothing"), None);
        assert_eq!(row("/grpc.health.v1.Health/Check"), Some(("/grpc.health.v1.Health/Check", Needs::Nothing)));
    }
}
