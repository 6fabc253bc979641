//! What the process says of itself: the log on standard error, and the registry of metrics.
//!
//! Whatever is said to people goes through [`output`]: nothing that the process does waits for its
//! being read, or ends because it cannot be written. The registry is made once and handed to whoever
//! counts something; nothing here is global but the log, which `main` sets up once.

mod line;
mod output;

use std::{
    io::{IsTerminal, Write},
    panic::PanicHookInfo,
    sync::{LazyLock, OnceLock, atomic::Ordering::Relaxed, mpsc::sync_channel},
    time::Duration,
};

use prometheus::{
    Gauge, GaugeVec, IntCounter, IntGauge, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};
use output::Output;

/// The log, once it is set up.
static LOG: OnceLock<Output> = OnceLock::new();

static DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Lines of the log that were lost: they could not be written, or were not read in time.";
    IntCounter::new("message_flow_log_lines_dropped_total", help)
        .expect("the name is one that Prometheus allows")
});

/// At its end the process waits no longer than this for what it said to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Sends the log to standard error from now on, that of panics included. `RUST_LOG` goes before the
/// configured filter.
pub fn log_to_stderr(config: &LogConfig) {
    let filter = EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new(&config.filter));
    let output = LOG.get_or_init(|| Output::to(std::io::stderr(), DROPPED.clone()));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new("info")))
        // Else it says what cannot be formatted on standard error by itself, and panics if it cannot.
        .log_internal_errors(false)
        .with_writer(output.clone());
    match config.format {
        LogFormat::Human => {
            log.with_ansi(std::io::stderr().is_terminal()).fmt_fields(line::Fields::default()).init();
        }
        LogFormat::Json => log.json().flatten_event(true).map_event_format(line::Json).init(),
    }
    std::panic::set_hook(Box::new(log_panic));
}

/// The hook of the standard library writes to standard error itself, and waits for it.
fn log_panic(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let location = info.location().map(ToString::to_string);
    let text = info.payload_as_str().unwrap_or("no text");
    tracing::error!(thread = thread.name(), location, "panicked: {text}");
}

/// Waits for a moment until what was logged is written.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush(LAST_WORDS);
    }
}

/// How many lines of the log were lost, and when the last of them was, in milliseconds since the
/// Unix epoch; none if none was.
pub fn lines_dropped() -> Option<(u64, u64)> {
    let shared = LOG.get()?.shared();
    let dropped = shared.dropped.get();
    (dropped > 0).then(|| (dropped, shared.last.load(Relaxed)))
}

/// Says something on standard output, once and without waiting for it to be read.
pub fn say(text: String) {
    let _ = write_aside(std::io::stdout(), text);
}

/// Says on standard error why the process ends. Waits for it to be read, but not for long.
pub fn complain(text: impl Into<String>) {
    flush();
    if let Some(done) = write_aside(std::io::stderr(), text.into()) {
        let _ = done.recv_timeout(LAST_WORDS);
    }
}

/// Writes a text on a thread of its own. None: there can be no thread.
fn write_aside(mut sink: impl Write + Send + 'static, text: String) -> Option<std::sync::mpsc::Receiver<()>> {
    let (done, written) = sync_channel(1);
    let write = move || {
        // Nobody may be reading; that is no reason not to run.
        let _ = writeln!(sink, "{text}").and_then(|()| sink.flush());
        let _ = done.try_send(());
    };
    std::thread::Builder::new().name("say".into()).spawn(write).ok().map(|_| written)
}

/// A registry that holds what concerns the process as a whole.
pub fn registry() -> Registry {
    let registry = Registry::new();
    let build =
        GaugeVec::new(Opts::new("message_flow_build_info", "Always 1; which build runs."), &["version"]);
    if let Ok(build) = build {
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let _ = registry.register(Box::new(build));
    }
    if let Ok(process) = Process::new() {
        let _ = registry.register(Box::new(process));
    }
    let _ = registry.register(Box::new(DROPPED.clone()));
    registry
}

/// The usual `process_*` metrics, read from `/proc` when asked for; absent where there is none.
struct Process {
    cpu: Gauge,
    memory: IntGauge,
    files: IntGauge,
    threads: IntGauge,
}

impl Process {
    fn new() -> prometheus::Result<Self> {
        Ok(Self {
            cpu: Gauge::new("process_cpu_seconds_total", "Processor time used, user and system.")?,
            memory: IntGauge::new("process_resident_memory_bytes", "Memory held in RAM.")?,
            files: IntGauge::new("process_open_fds", "Open file descriptors.")?,
            threads: IntGauge::new("process_threads", "Threads.")?,
        })
    }

    fn read(&self) -> Option<()> {
        self.cpu.set(cpu_seconds(&std::fs::read_to_string("/proc/self/stat").ok()?)?);
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        self.memory.set(line(&status, "VmRSS:")? << 10);
        self.threads.set(line(&status, "Threads:")?);
        let files = std::fs::read_dir("/proc/self/fd").ok()?.count();
        self.files.set(i64::try_from(files).ok()?);
        Some(())
    }

    fn parts(&self) -> [&dyn Collector; 4] {
        [&self.cpu, &self.memory, &self.files, &self.threads]
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        match self.read() {
            Some(()) => self.parts().into_iter().flat_map(Collector::collect).collect(),
            None => Vec::new(),
        }
    }
}

/// Fields 14 and 15 of `/proc/self/stat`, in ticks of which the kernel shows 100 a second. The
/// second field is the command in parentheses and may contain anything, so counting starts after it.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(14 - 3);
    let ticks: f64 = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}

/// The number in a line of `/proc/self/status`.
fn line(status: &str, name: &str) -> Option<i64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_process_uses() {
        let found = registry().gather();
        let names: Vec<&str> = found.iter().map(MetricFamily::name).collect();
        assert!(names.contains(&"message_flow_build_info"), "{names:?}");
        let memory = found.iter().find(|family| family.name() == "process_resident_memory_bytes").unwrap();
        assert!(memory.get_metric()[0].get_gauge().get_value() > 1e6);
    }
}
