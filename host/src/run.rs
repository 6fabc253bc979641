//! `message-flow run`: a gateway until it is told to stop, or another process takes its place.

use std::{ffi::OsString, path::PathBuf, pin::pin, process::Stdio, time::Duration};

use anyhow::Context;
use message_flow::{
    config::Config,
    drain,
    gateway::{
        Gateway, Source,
        takeover::{self, Back, Handed, Inheritance, Predecessor},
    },
    telemetry,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use crate::notify;

/// What is still at it when everything was drained is not waited for any longer.
const END: Duration = Duration::from_secs(1);

/// Runs a gateway until SIGTERM or SIGINT, then drains it. `takeover`: in the place of the one that runs
/// on the same data directory.
pub(crate) fn run(config: Config, source: Source, takeover: bool) -> anyhow::Result<()> {
    telemetry::log_to_stderr(&config.log);
    let runtime = super::control()?;
    runtime.block_on(async {
        // The signals from the first moment: unheard, each would end the process.
        let mut stop = pin!(drain::asked_to_stop()?);
        let hangup = signal(SignalKind::hangup())?;
        replace_on(signal(SignalKind::user_defined2())?);
        let (inherited, predecessor) = match takeover {
            true => take_over(&config).await?.unzip(),
            false => (None, None),
        };
        let mut gateway = Gateway::succeed(config, source.clone(), inherited).await?;
        predecessor.map_or(Ok(()), Predecessor::ready)?;
        reload_on(hangup, gateway.reload_handle());
        telemetry::say(gateway.listeners().join("\n"));
        notify::ready();
        loop {
            let successor = tokio::select! {
                () = &mut stop => break gateway.drain().await,
                successor = gateway.successor() => successor,
            };
            match gateway.hand_over(successor).await {
                Handed::Over => break,
                Handed::Not(same) => gateway = *same,
                Handed::Back(back) => {
                    let Back { inheritance, config, remains } = *back;
                    gateway = Gateway::succeed(config, source.clone(), Some(inheritance)).await?;
                    reload_on(signal(SignalKind::hangup())?, gateway.reload_handle());
                    tokio::spawn(remains.drain());
                }
            }
        }
        anyhow::Ok(())
    })?;
    runtime.shutdown_timeout(END);
    Ok(())
}

/// Asks the gateway that runs for its place, once it is known that this one would start.
async fn take_over(config: &Config) -> anyhow::Result<Option<(Inheritance, Predecessor)>> {
    takeover::must_start(config).await?;
    let directory = config.data.dir.clone();
    let taken = tokio::task::spawn_blocking(move || takeover::ask(&directory)).await??;
    if taken.is_none() {
        tracing::info!("no gateway runs on this data directory whose place could be taken");
    }
    Ok(taken)
}

fn reload_on(mut hangup: Signal, reload: mpsc::Sender<()>) {
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let _ = reload.try_send(());
        }
    });
}

/// At SIGUSR2 the program is started again, as it is on disk now, to take the place of this process.
fn replace_on(mut signal: Signal) {
    tokio::spawn(async move {
        while signal.recv().await.is_some() {
            match replacement() {
                Ok(mut child) => {
                    tracing::info!(pid = child.id(), "a process was started to take over");
                    // It outlives this one, or failed and has said why.
                    tokio::spawn(async move { child.wait().await });
                }
                Err(error) => tracing::error!("no process was started to take over: {error:#}"),
            }
        }
    });
}

fn replacement() -> anyhow::Result<tokio::process::Child> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--takeover") {
        arguments.push("--takeover".into());
    }
    let program = program()?;
    let mut command = tokio::process::Command::new(&program);
    command.args(arguments).stdin(Stdio::null());
    command.spawn().with_context(|| format!("cannot run {}", program.display()))
}

/// Where this program is, or what took its place: Linux says of a file that was replaced that it is
/// deleted.
fn program() -> std::io::Result<PathBuf> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let path = std::env::current_exe()?;
    let bytes = path.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    Ok(OsString::from_vec(bytes.to_vec()).into())
}
