//! `message-flow run`: a gateway until it is told to stop.

use std::time::Duration;

use message_flow::{
    config::Config,
    drain,
    gateway::{Gateway, Source},
    telemetry,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

/// What is still at it when everything was drained is not waited for any longer.
const END: Duration = Duration::from_secs(1);

/// Runs a gateway until SIGTERM or SIGINT, then drains it.
pub(crate) fn run(config: Config, source: Source) -> anyhow::Result<()> {
    telemetry::log_to_stderr(&config.log);
    let runtime = super::control()?;
    runtime.block_on(async {
        // Both signals from the first moment: unheard, either would end the process.
        let stop = drain::asked_to_stop()?;
        let hangup = signal(SignalKind::hangup())?;
        let gateway = Gateway::start(config, source).await?;
        reload_on(hangup, gateway.reload_handle());
        telemetry::say(gateway.listeners().join("\n"));
        stop.await;
        gateway.drain().await;
        anyhow::Ok(())
    })?;
    runtime.shutdown_timeout(END);
    Ok(())
}

fn reload_on(mut hangup: Signal, reload: mpsc::Sender<()>) {
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let _ = reload.try_send(());
        }
    });
}
