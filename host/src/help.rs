//! `message-flow help`: the pages of `docs/`, carried in the binary, so that they are those of the
//! version that runs. It knows the command line and nothing of the gateway.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::arguments::Arguments;

/// The pages by name, in reading order.
const PAGES: [(&str, &str); 9] = [
    ("routing", include_str!("../docs/routing.md")),
    ("configuration", include_str!("../docs/configuration.md")),
    ("api", include_str!("../docs/api.md")),
    ("releases", include_str!("../docs/releases.md")),
    ("discovery", include_str!("../docs/discovery.md")),
    ("plugins", include_str!("../docs/plugins.md")),
    ("webhooks", include_str!("../docs/webhooks.md")),
    ("security", include_str!("../docs/security.md")),
    ("operations", include_str!("../docs/operations.md")),
];

/// There is neither a page nor a command of this name.
#[derive(Debug, thiserror::Error)]
#[error("there is no page `{0}`; there are {names}", names = names().join(", "))]
pub(crate) struct UnknownTopic(String);

/// Writes the page of a topic, the help of the command of that name, or without a topic the help of
/// the whole program and the names of the pages.
pub(crate) fn print(topic: Option<&str>, out: &mut impl Write) -> Result<(), UnknownTopic> {
    let text = match topic {
        Some(topic) => page(topic).or_else(|| command(topic)),
        None => Some(overview()),
    };
    let text = text.ok_or_else(|| UnknownTopic(topic.unwrap_or_default().to_owned()))?;
    // Whoever reads may have stopped, as `head` does: that is no error.
    let _: io::Result<()> = out.write_all(text.as_bytes());
    Ok(())
}

fn page(topic: &str) -> Option<String> {
    PAGES.iter().find(|(name, _)| *name == topic).map(|(_, text)| (*text).to_owned())
}

fn command(topic: &str) -> Option<String> {
    let mut arguments = Arguments::command();
    // Building it passes the global options on to the commands.
    arguments.build();
    arguments.find_subcommand_mut(topic).map(|command| command.render_long_help().to_string())
}

fn overview() -> String {
    let help = Arguments::command().render_help();
    format!("{help}\nPages, each printed by `message-flow help PAGE`:\n  {}\n", names().join("\n  "))
}

fn names() -> Vec<&'static str> {
    PAGES.iter().map(|(name, _)| *name).collect()
}
