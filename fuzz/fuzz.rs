//! One program for all doors: FLOTILLA_FUZZ says which.

#![no_main]

use std::sync::LazyLock;

type Door = fn(&[u8]);

static DOOR: LazyLock<Door> = LazyLock::new(|| {
    let name = std::env::var("FLOTILLA_FUZZ").unwrap_or_default();
    match name.as_str() {
        "sse" => flotilla_worker::fuzzing::sse,
        "event" => flotilla_worker::fuzzing::event,
        "poll" => flotilla_worker::fuzzing::poll,
        "fence" => flotilla_worker::fuzzing::fence,
        "session" => flotilla_worker::fuzzing::session,
        "flag_file" => flotilla_worker::fuzzing::flag_file,
        "manifest" => flotilla::fuzzing::manifest,
        "relay_configuration" => flotilla::fuzzing::relay_configuration,
        "command_line" => flotilla::fuzzing::command_line,
        "values" => flotilla::fuzzing::values,
        other => panic!("FLOTILLA_FUZZ={other:?} is none of the directories of fuzz/seeds"),
    }
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    DOOR(input);
});
