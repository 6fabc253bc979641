//! What can be written on the command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use message_flow::{
    config::Overrides,
    workbench::new::{Language, NewKind},
};

/// A programmable gateway: routes every message to the right service, by rules that you write.
#[derive(Parser)]
#[command(version, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// What to do; `run` if nothing is said.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Where everything is.
    #[command(flatten)]
    pub(crate) options: Options,
}

/// What to do.
#[derive(Clone, Subcommand)]
pub(crate) enum Command {
    /// Start the gateway (the default).
    Run,
    /// Start a gateway with two small services, a registrar and some traffic to look at.
    Demo,
    /// Validate the configuration and the plugins; exits with 0, or with 64 and what is wrong.
    #[command(alias = "validate")]
    Check,
    /// Print a page of the documentation, or what a command takes.
    Help {
        /// Which page or command; without one a list of them.
        topic: Option<String>,
    },
    /// Write, look at, try out and measure plugins.
    Plugin {
        /// What to do with one.
        #[command(subcommand)]
        command: PluginCommand,
    },
    /// Look at the files of the data directory, and repair them.
    Data {
        /// What to do with them.
        #[command(subcommand)]
        command: DataCommand,
    },
    /// Make an access token and print it with its hash.
    Token,
    /// Print a completion script for a shell.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

/// What to do with the data directory.
#[derive(Clone, Subcommand)]
pub(crate) enum DataCommand {
    /// Say what is wrong with its files; exits with 0, or with 1 if anything is. Changes nothing.
    Check,
    /// Say what is wrong and what is lost, then set aside what is wrong and keep what is whole.
    Repair {
        /// Without asking.
        #[arg(long)]
        yes: bool,
    },
}

/// What to do with a plugin.
#[derive(Clone, Subcommand)]
pub(crate) enum PluginCommand {
    /// Begin a plugin: a directory that builds with one command and passes its own test.
    New {
        /// In which language.
        #[arg(long)]
        lang: Language,
        /// What it is to be.
        #[arg(long)]
        kind: NewKind,
        /// Its name, and the directory's.
        name: String,
    },
    /// Say what a plugin is and asks for, and whether it starts; exits with 0, or with 64 and why not.
    Check {
        /// The plugin: NAME.wasm.
        file: PathBuf,
    },
    /// Hold a plugin against its scenarios (scenarios/*.json beside it); exits with 0, 1 if one fails,
    /// or 64 if there is nothing to test.
    Test {
        /// The plugin, or the directory of its project.
        path: PathBuf,
        /// Also hold it to what every routing-table adapter promises, over an empty datastore.
        #[arg(long)]
        conformance: bool,
    },
    /// Measure what a plugin's calls and instances cost, with its scenarios if it has any.
    Bench {
        /// The plugin, or the directory of its project.
        path: PathBuf,
        /// How many seconds each call is measured.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
        seconds: u64,
    },
}

/// Where everything is.
#[derive(Args)]
pub(crate) struct Options {
    /// The configuration, a TOML file; without it the defaults hold.
    #[arg(long, short, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The directory of plugins.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) plugins: Option<PathBuf>,
    /// The directory in which the gateway keeps what it must find again.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the proxy listens.
    #[arg(long, global = true, value_name = "ADDR", value_parser = message_flow::config::listen_address)]
    pub(crate) proxy: Option<SocketAddr>,
    /// Where the API listens.
    #[arg(long, global = true, value_name = "ADDR", value_parser = message_flow::config::listen_address)]
    pub(crate) api: Option<SocketAddr>,
    /// With `run`: take the place of the gateway that runs on the same data directory, if one does.
    #[arg(long, global = true)]
    pub(crate) takeover: bool,
}

impl Options {
    /// What goes before the configuration.
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides { plugins: self.plugins.clone(), data: self.data.clone(), proxy: self.proxy, api: self.api }
    }
}
