//! `message-flow`: arguments → configuration → gateway → drain.

/// A line on standard output. Whoever reads it may have stopped, which is no reason to panic.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod arguments;
mod data_tools;
mod demo;
mod help;
mod notify;
mod plugin_tools;
mod run;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::{CommandFactory, Parser};
use message_flow::{
    auth::{self, TokenHash},
    config::Config,
    gateway::{self, Source},
    telemetry,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `EX_USAGE` of sysexits.h: what was written is wrong, trying again will not help.
const INVALID: u8 = 64;

fn main() -> ExitCode {
    // Memory in huge pages is held whole as soon as any of it is used: a gateway that idles would
    // hold several times what it needs. Where the kernel does not know this, nothing is lost.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(INVALID) } else { ExitCode::SUCCESS };
        }
    };
    match arguments.command.clone().unwrap_or(Command::Run) {
        Command::Token => token(),
        Command::Help { topic } => help(topic.as_deref()),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "message-flow", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        command => with_configuration(&command, &arguments),
    }
}

fn help(topic: Option<&str>) -> ExitCode {
    match help::print(topic, &mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::complain(error.to_string());
            ExitCode::from(INVALID)
        }
    }
}

fn token() -> ExitCode {
    let token = auth::new_token();
    say!("token         {token}");
    say!("token_sha256  {}", TokenHash::of(&token));
    ExitCode::SUCCESS
}

fn with_configuration(command: &Command, arguments: &Arguments) -> ExitCode {
    let options = &arguments.options;
    let config = match Config::load(options.config.as_deref(), &options.overrides()) {
        Ok(config) => config,
        Err(error) => {
            telemetry::complain(format!("{:#}", anyhow::Error::from(error)));
            return ExitCode::from(INVALID);
        }
    };
    let source = Source { file: options.config.clone(), overrides: options.overrides() };
    let done = match command {
        Command::Check => check(&config),
        Command::Demo => demo::run(config),
        Command::Data { command } => data_tools::run(command, &config.data.dir),
        Command::Plugin { command } => plugin_tools::run(command, &config),
        _ => run::run(config, source, options.takeover).map(|()| ExitCode::SUCCESS),
    };
    let code = done.unwrap_or_else(|error| {
        telemetry::complain(format!("message-flow: {error:#}"));
        ExitCode::FAILURE
    });
    telemetry::flush();
    code
}

/// Loads every plugin without running a gateway.
fn check(config: &Config) -> anyhow::Result<ExitCode> {
    let found = control()?.block_on(gateway::check::check(config))?;
    if !found.problems.is_empty() {
        telemetry::complain(found.problems.join("\n"));
        return Ok(ExitCode::from(INVALID));
    }
    for warning in config.warnings() {
        say!("warning: {warning}");
    }
    say!("the configuration is valid; plugins: {}", found.plugins.join(", "));
    Ok(ExitCode::SUCCESS)
}

/// For everything but the proxy, whose workers are threads of their own.
fn control() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}
