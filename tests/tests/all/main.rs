//! Every integration test, in one binary: they share the gateway's and the guests' build.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod access;
mod adapters;
mod bad_requests;
mod client_examples;
mod client_modules;
mod clients;
mod command_line;
mod crashes;
mod discovery;
mod discovery_cluster;
mod draining;
mod etcd;
mod etcd_client;
mod examples;
mod explain;
mod faults;
mod filters;
mod fuzz;
mod grants;
mod harness;
mod house;
mod http_registrar;
mod language_faults;
mod languages;
mod memory;
mod new_plugins;
mod plugin_host;
mod plugin_tools;
mod plugins;
mod receiver;
mod registry;
mod releases;
mod reload;
mod retries;
mod routes;
mod routing;
mod scripts;
mod streams;
mod thin;
mod tls;
mod upgrades;
mod view;
mod watch;
mod webhooks;
