//! Who may make which call, as a table of Markdown.

use std::fmt::Write as _;

use flotilla_control::access::{CALLS, Needs};
use flotilla_proto::access::{Rights, Role};

/// The table, in the order of control's.
pub(super) fn table() -> String {
    let mut text =
        "\n| call | no token | viewer | operator | admin | worker |\n|---|---|---|---|---|---|\n".to_owned();
    for (path, needs) in CALLS {
        let (service, method) = path.trim_start_matches('/').rsplit_once('/').unwrap();
        let service = service.strip_prefix("flotilla.v1.").unwrap_or(service);
        let nobody = mark(*needs == Needs::Nothing);
        let roles = Role::ALL.map(|role| mark(needs.allow(&Rights::Api(role))));
        let worker = mark(needs.allow(&Rights::Worker(Vec::new())));
        let note = match needs {
            Needs::RoleByRequest { when, role, .. } => format!(" ({when}: {role})"),
            Needs::Nothing | Needs::Role(_) | Needs::Worker => String::new(),
        };
        let [viewer, operator, admin] = roles;
        writeln!(text, "| `{service}/{method}`{note} | {nobody} | {viewer} | {operator} | {admin} | {worker} |")
            .unwrap();
    }
    text.push('\n');
    text
}

fn mark(may: bool) -> &'static str {
    if may { "✓" } else { "–" }
}
