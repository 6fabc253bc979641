//! `message-flow data`: looks at a data directory, and goes on with what is whole of it.

use std::{
    io::{self, BufRead, IsTerminal},
    path::Path,
    process::ExitCode,
};

use message_flow::{
    gateway::repair::{self, Examined},
    telemetry,
};

use crate::arguments::DataCommand;

/// Carries out one of its commands.
pub(crate) fn run(command: &DataCommand, data: &Path) -> anyhow::Result<ExitCode> {
    match command {
        DataCommand::Check => {
            let examined = repair::examine(data)?;
            examined.whole().iter().for_each(|line| say!("{line}"));
            Ok(report(&examined, data))
        }
        DataCommand::Repair { yes } => mend(&repair::take(data)?, data, *yes),
    }
}

/// Says what is wrong, which is a failure.
fn report(examined: &Examined, data: &Path) -> ExitCode {
    let wrong = examined.wrong();
    if wrong.is_empty() {
        say!("{}: nothing is wrong", data.display());
        return ExitCode::SUCCESS;
    }
    telemetry::complain(wrong.join("\n"));
    ExitCode::FAILURE
}

fn mend(examined: &Examined, data: &Path, yes: bool) -> anyhow::Result<ExitCode> {
    let code = report(examined, data);
    if code == ExitCode::SUCCESS {
        return Ok(code);
    }
    if !yes && !confirmed() {
        telemetry::complain(
            "nothing was changed; --yes sets aside what is wrong and keeps what is whole".to_owned(),
        );
        return Ok(code);
    }
    examined.repair()?.iter().for_each(|line| say!("{line}"));
    Ok(ExitCode::SUCCESS)
}

/// Whether a person at the terminal says so.
fn confirmed() -> bool {
    if !io::stdin().is_terminal() {
        return false;
    }
    say!("set aside what is wrong and go on with what is whole? [y/N]");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}
