//! How thoroughly to measure, as the command line says.

use std::time::Duration;

use anyhow::Context;

/// What [`Effort::read`] takes besides the parts.
pub(crate) const OPTIONS: &str = "--quick, --rounds N, --seconds N";

/// How thoroughly to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// How long each row is measured in each round, in each of the two ways.
    pub(crate) time: Duration,
    /// Requests per second of the open loop.
    pub(crate) rate: u32,
    /// The clients of the row with many.
    pub(crate) many: u32,
    pub(crate) replacements: u32,
}

const FULL: Effort =
    Effort { rounds: 5, time: Duration::from_secs(3), rate: 20_000, many: 1_000_000, replacements: 100 };

const QUICK: Effort =
    Effort { rounds: 2, time: Duration::from_millis(500), rate: 5_000, many: 20_000, replacements: 5 };

impl Effort {
    /// Of these arguments, and the arguments that are left.
    ///
    /// # Errors
    /// An option is not known or has no number.
    pub(crate) fn read(arguments: &[String]) -> anyhow::Result<(Self, Vec<&str>)> {
        let quick = arguments.iter().any(|argument| argument == "--quick");
        let (mut effort, mut parts) = (if quick { QUICK } else { FULL }, vec![]);
        let mut rest = arguments.iter().map(String::as_str);
        while let Some(argument) = rest.next() {
            match argument {
                "--quick" => {}
                "--rounds" => {
                    let rounds = rest.next().and_then(|number| number.parse().ok());
                    effort.rounds = rounds.filter(|rounds| *rounds > 0).context("--rounds needs a number")?;
                }
                "--seconds" => {
                    let seconds = rest.next().and_then(|number| number.parse::<f64>().ok());
                    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                    effort.time = time.filter(|time| !time.is_zero()).context("--seconds needs a number")?;
                }
                option if option.starts_with("--") => {
                    anyhow::bail!("unknown option {option}: there are {OPTIONS}")
                }
                part => parts.push(part),
            }
        }
        Ok((effort, parts))
    }
}
