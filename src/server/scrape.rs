//! What `/metrics` says beside the shards' own numbers: the process, the program, the phase.

use super::admin::{Phase, Surroundings};
use crate::host::Process;
use crate::metrics::Metrics;
use crate::metrics::text::{Format, Kind, Text};

/// What is known of how this program was built, see `build.rs`.
pub(super) const BUILD: [(&str, &str); 6] = [
    ("version", env!("CARGO_PKG_VERSION")),
    ("commit", env!("BUILT_WITH_COMMIT")),
    ("rustc", env!("BUILT_WITH_RUSTC")),
    ("features", env!("BUILT_WITH_FEATURES")),
    ("profile", env!("BUILT_WITH_PROFILE")),
    ("target", env!("BUILT_WITH_TARGET")),
];

/// All of it.
pub(super) fn write(metrics: &Metrics, around: &Surroundings<'_>, format: Format) -> String {
    let mut text = Text::new(format);
    metrics.write(&mut text);
    process(&mut text, &Process::now());
    text.family("build_info", Kind::Gauge, "This program; always 1.");
    text.sample("build_info", &BUILD, 1);
    text.family("backend_info", Kind::Gauge, "The interface of the kernel's that serves; always 1.");
    text.sample("backend_info", &[("backend", around.backend())], 1);
    text.one("shards", Kind::Gauge, "Shards: threads that serve.", metrics.shards.len());
    let is_draining = u8::from(around.phase >= Phase::Draining);
    text.one("draining", Kind::Gauge, "Whether clients are being sent away.", is_draining);
    text.one("uptime_seconds", Kind::Gauge, "Seconds since the start.", around.uptime.as_secs());
    around.journal.into_iter().for_each(|journal| journal.write(&mut text));
    around.hooks.into_iter().for_each(|hooks| hooks.write(&mut text));
    around.cluster.into_iter().for_each(|cluster| cluster.write(&mut text));
    around.reloader.into_iter().for_each(|reloader| reloader.write_metrics(&mut text));
    text.finish()
}

/// What the kernel says of the process. What it does not say is left out.
fn process(text: &mut Text, process: &Process) {
    let mut one = |name, kind, help, value: Option<String>| {
        value.into_iter().for_each(|value| text.one(name, kind, help, value));
    };
    let whole = |number: Option<u64>| number.map(|number| number.to_string());
    let float = |number: Option<f64>| number.map(|number| number.to_string());
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Memory of the process that is resident.", whole(process.resident_bytes)),
        ("process_virtual_memory_bytes", "Address space of the process.", whole(process.virtual_bytes)),
        ("process_open_fds", "Open descriptors; from Linux 6.2 on.", whole(process.open_files)),
        ("process_max_fds", "Descriptors that may be open.", whole(process.open_files_max)),
        ("process_threads", "Threads of the process.", whole(process.threads)),
        ("process_start_time_seconds", "When the process began, Unix time.", float(process.start_seconds)),
    ] {
        one(name, Kind::Gauge, help, value);
    }
    let help = "Processor time of the process, user and system.";
    one("process_cpu_seconds_total", Kind::Counter, help, float(process.cpu_seconds));
}
