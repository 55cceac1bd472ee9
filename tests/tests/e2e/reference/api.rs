//! The API, of the comments in the protos.

use std::fmt::Write as _;

use flotilla_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::source_code_info::Location;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
};

/// Where a descriptor's parts are, in the words of descriptor.proto.
const MESSAGES: i32 = 4;
const ENUMS: i32 = 5;
const SERVICES: i32 = 6;
const FIELDS_OF_MESSAGE: i32 = 2;
const VALUES_OF_ENUM: i32 = 2;
const METHODS_OF_SERVICE: i32 = 2;

/// The page.
pub(super) fn page() -> String {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let files: Vec<_> = set.file.iter().filter(|file| file.package() == "flotilla.v1").collect();
    let mut page = "# The API, `flotilla.v1`\n\nMade of the comments in [`proto/`](../proto/proto/flotilla/v1/) by a test; do not edit. \
                    Reasons of refusals: [errors.md](errors.md).\n"
        .to_owned();
    for file in &files {
        services(&mut page, file);
    }
    for file in &files {
        for (message, path) in file.message_type.iter().zip(paths(&[MESSAGES])) {
            add_message(&mut page, file, message, &path);
        }
        for (one, path) in file.enum_type.iter().zip(paths(&[ENUMS])) {
            add_enum(&mut page, file, one, &path);
        }
    }
    page
}

/// The paths of all that stands in one place, in order.
fn paths(place: &[i32]) -> impl Iterator<Item = Vec<i32>> {
    (0..).map(move |number| [place, &[number]].concat())
}

/// The comment above a part.
fn comment(file: &FileDescriptorProto, path: &[i32]) -> String {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let found = locations.into_iter().find(|location| location.path == path);
    let lines = found.map(Location::leading_comments).unwrap_or_default().lines().map(str::trim);
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// The comment in one line, for a table.
fn line(file: &FileDescriptorProto, path: &[i32]) -> String {
    comment(file, path).replace('\n', " ").replace('|', "\\|")
}

fn services(page: &mut String, file: &FileDescriptorProto) {
    for (service, path) in file.service.iter().zip(paths(&[SERVICES])) {
        writeln!(page, "\n## {}\n\n{}\n\n| RPC | |\n|---|---|", service.name(), comment(file, &path)).unwrap();
        for (method, path) in service.method.iter().zip(paths(&[path.as_slice(), &[METHODS_OF_SERVICE]].concat())) {
            let stream = |is_stream| if is_stream { "stream " } else { "" };
            let (request, response) = (last(method.input_type()), last(method.output_type()));
            let (sent, answered) = (stream(method.client_streaming()), stream(method.server_streaming()));
            writeln!(
                page,
                "| {}({sent}{}) → {answered}{} | {} |",
                method.name(),
                linked(request),
                linked(response),
                line(file, &path)
            )
            .unwrap();
        }
    }
}

fn add_message(page: &mut String, file: &FileDescriptorProto, message: &DescriptorProto, path: &[i32]) {
    writeln!(page, "\n### {}\n\n{}", message.name(), comment(file, path)).unwrap();
    if message.field.is_empty() {
        return;
    }
    writeln!(page, "\n| field | type | |\n|---|---|---|").unwrap();
    for (field, path) in message.field.iter().zip(paths(&[path, &[FIELDS_OF_MESSAGE]].concat())) {
        writeln!(page, "| `{}` | {} | {} |", field.name(), type_of(message, field), line(file, &path)).unwrap();
    }
}

fn add_enum(page: &mut String, file: &FileDescriptorProto, one: &EnumDescriptorProto, path: &[i32]) {
    writeln!(page, "\n### {}\n\n{}\n\n| value | |\n|---|---|", one.name(), comment(file, path)).unwrap();
    for (value, path) in one.value.iter().zip(paths(&[path, &[VALUES_OF_ENUM]].concat())) {
        writeln!(page, "| `{}` | {} |", value.name(), line(file, &path)).unwrap();
    }
}

/// A field's type; a nested type is the entry of a map.
fn type_of(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let name = last(field.type_name());
    if let Some(entry) = message.nested_type.iter().find(|nested| nested.name() == name) {
        let [key, value] = [0, 1].map(|part| type_of(message, &entry.field[part]));
        return format!("map of {key} to {value}");
    }
    let one = match field.r#type() {
        Type::Message | Type::Enum if field.type_name().starts_with(".google.") => name.to_owned(),
        Type::Message | Type::Enum => linked(name),
        simple => simple.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    match field.label() {
        Label::Repeated => format!("repeated {one}"),
        Label::Optional | Label::Required if field.proto3_optional() => format!("optional {one}"),
        Label::Optional | Label::Required => one,
    }
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}

fn linked(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
}
