//! `message-flow plugin …`: the author's workbench on the command line. Its scratch directory goes
//! away with it.

use std::{path::Path, process::ExitCode, sync::Arc, time::Duration};

use message_flow::{
    config::{Config, LogConfig},
    gateway::Scratch,
    plugin::{Kind, Settings, Solo, table::TablePlugin},
    telemetry,
    workbench::{Target, WorkbenchError, bench, check, conformance, new::Project, tests},
};
use tokio::runtime::Handle;

use super::{INVALID, control};
use crate::arguments::PluginCommand;

/// What is measured of making instances.
const INSTANCES: usize = 200;

/// Runs one of them.
pub(crate) fn run(command: &PluginCommand, config: &Config) -> anyhow::Result<ExitCode> {
    telemetry::log_to_stderr(&LogConfig { filter: "error".to_owned(), ..config.log.clone() });
    let done = control()?.block_on(async {
        match command {
            PluginCommand::New { lang, kind, name } => create(&Project::new(name, *lang, *kind)?),
            PluginCommand::Check { file } => check_file(file, config).await,
            PluginCommand::Test { path, conformance } => test(path, *conformance, config).await,
            PluginCommand::Bench { path, seconds } => {
                measure(path, Duration::from_secs(*seconds), config).await
            }
        }
    });
    Ok(done.unwrap_or_else(|error| {
        message_flow::telemetry::complain(format!("{error:#}"));
        ExitCode::from(INVALID)
    }))
}

fn create(project: &Project) -> anyhow::Result<ExitCode> {
    project.write(Path::new("."))?;
    say!("{}. Build it, test it, and drop it where the gateway looks:\n", project.what());
    say!("    {}", project.build());
    say!("    message-flow plugin test {}", project.built());
    say!("    cp {} plugins/", project.built());
    Ok(ExitCode::SUCCESS)
}

/// A plugin with what the configuration says of it.
struct Opened {
    solo: Solo,
    settings: Settings,
    _scratch: Scratch,
}

fn open(file: &Path, config: &Config) -> anyhow::Result<Opened> {
    let scratch = Scratch::new()?;
    let solo = Solo::open(file, scratch.path(), Handle::current())?;
    let settings = config.plugin(solo.name());
    Ok(Opened { solo, settings, _scratch: scratch })
}

async fn check_file(file: &Path, config: &Config) -> anyhow::Result<ExitCode> {
    let opened = open(file, config)?;
    let report = check::check(&opened.solo, &opened.settings).await?;
    say!("{}", report.to_string().trim_end());
    Ok(ExitCode::SUCCESS)
}

async fn test(path: &Path, conformance: bool, config: &Config) -> anyhow::Result<ExitCode> {
    let target = Target::find(path)?;
    let opened = open(&target.file, config)?;
    let solo = &opened.solo;
    let inspection = solo.inspect(&opened.settings)?;
    let settings = check::with_all_grants(opened.settings.clone(), &inspection);
    let is_table = inspection.kinds.contains(&Kind::RoutingTable);
    if target.scenarios.is_empty() && !is_table {
        let place = path.parent().filter(|_| !path.is_dir()).unwrap_or(path);
        return Err(WorkbenchError::NoScenarios(place.to_owned()).into());
    }
    if conformance && !is_table {
        return Err(WorkbenchError::NoTable(solo.name().to_owned()).into());
    }
    say!("{}: {} scenarios", target.file.display(), target.scenarios.len());
    let outcomes = tests::run(solo, &settings, &target.scenarios, tell).await?;
    let mut failed = outcomes.iter().filter(|outcome| !outcome.wrong.is_empty()).count();
    let mut passed = outcomes.len() - failed;
    if conformance || is_table && target.scenarios.is_empty() {
        let (kept, broken) = conform(solo, settings).await?;
        (passed, failed) = (passed + kept, failed + broken);
    }
    say!("\n{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(outcome: &tests::Outcome) {
    let verdict = if outcome.wrong.is_empty() { "ok  " } else { "FAIL" };
    say!("{verdict}  {} ({:.1?})", outcome.name, outcome.took);
    outcome.wrong.iter().for_each(|wrong| say!("      {wrong}"));
}

async fn conform(solo: &Solo, settings: Settings) -> anyhow::Result<(usize, usize)> {
    say!("what every routing-table adapter promises:");
    let build = solo.load(settings).await?;
    let mut promises = 0;
    let broken = conformance::run(Arc::new(TablePlugin::of(build)), |promise, held| {
        promises += 1;
        match held {
            Ok(()) => say!("ok    {promise}"),
            Err(why) => say!("FAIL  {promise}\n      {why}"),
        }
    });
    let broken = broken.await;
    Ok((promises - broken, broken))
}

async fn measure(path: &Path, time: Duration, config: &Config) -> anyhow::Result<ExitCode> {
    let target = Target::find(path)?;
    let opened = open(&target.file, config)?;
    let effort = bench::Effort { time, instances: INSTANCES };
    let costs = bench::bench(&opened.solo, &opened.settings, &target.scenarios, effort).await?;
    say!("{}", costs.to_string().trim_end());
    Ok(ExitCode::SUCCESS)
}
