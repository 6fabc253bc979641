//! `message-flow demo`: a gateway with two small servers, a registrar and some traffic, so that
//! one can see in a minute what it does and then try it by hand.

mod http;
mod server;

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use message_flow::{
    config::{Config, LogConfig},
    drain,
    gateway::{Gateway, Scratch, Source},
    telemetry,
};
use serde_json::{Value, json};

use http::{Reply, fetch};
use server::Server;

/// A registrar that keeps clients in the region that their `region` header names.
const REGISTRAR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/region_registrar.wasm"));

const JSON: (&str, &str) = ("content-type", "application/json");

/// Runs it until it is told to stop. Whatever it writes goes away with it.
pub(crate) fn run(mut config: Config) -> anyhow::Result<ExitCode> {
    let scratch = Scratch::new()?;
    config.data.dir = scratch.path().join("data");
    config.plugins.dir = scratch.path().join("plugins");
    std::fs::create_dir_all(&config.plugins.dir)?;
    telemetry::log_to_stderr(&LogConfig { filter: "warn".to_owned(), ..config.log.clone() });
    super::control()?.block_on(async {
        let stop = drain::asked_to_stop()?;
        let plugins = config.plugins.dir.clone();
        let gateway = Gateway::start(config, Source::default()).await?;
        gateway.listeners().iter().for_each(|line| say!("{line}"));
        let tour = Tour {
            proxy: gateway.proxy_address(),
            api: gateway.api_address(),
            servers: [Server::start("blue", "eu").await?, Server::start("green", "us").await?],
        };
        let shown = tokio::select! {
            shown = tour.show(&plugins) => shown,
            () = stop => Ok(()),
        };
        gateway.drain().await;
        shown.map(|()| ExitCode::SUCCESS)
    })
}

struct Tour {
    proxy: SocketAddr,
    api: SocketAddr,
    servers: [Server; 2],
}

impl Tour {
    async fn show(&self, plugins: &std::path::Path) -> anyhow::Result<()> {
        self.register(None).await?;
        self.stay().await?;
        self.add_registrar(plugins).await?;
        self.explain().await?;
        self.invite();
        self.idle().await
    }

    async fn register(&self, registrar: Option<&str>) -> anyhow::Result<()> {
        if registrar.is_none() {
            say!("\n1. Two servers of one service, registered over the API:\n");
        }
        let servers: Vec<Value> = self.servers.iter().map(Server::record).collect();
        let mut service = json!({ "servers": servers });
        if let Some(registrar) = registrar {
            service["registrar"] = registrar.into();
        }
        say!("   curl -X PUT http://{}/v1/services/hello -H 'content-type: application/json' \\", self.api);
        say!("     -d '{service}'");
        let reply = fetch(self.api, "PUT", "/v1/services/hello", &[JSON], &service.to_string()).await?;
        reply.must_be_ok()?;
        Ok(())
    }

    async fn stay(&self) -> anyhow::Result<()> {
        say!("\n2. Clients are spread over the servers, and each stays where it was first sent:\n");
        say!("   client   four messages");
        for client in ["ann", "bob", "cem", "dora", "eve"] {
            let mut answers = Vec::new();
            for _ in 0..4 {
                answers.push(self.message(client, None).await?);
            }
            say!("   {client:<8} {}", answers.join("  "));
        }
        Ok(())
    }

    async fn add_registrar(&self, plugins: &std::path::Path) -> anyhow::Result<()> {
        let file = plugins.join("region.wasm");
        let size = REGISTRAR.len() >> 10;
        say!(
            "\n3. A registrar decides where new clients go. It is a file, dropped while the gateway runs:\n"
        );
        say!("   {} ({size} KiB, from examples/region-registrar)", file.display());
        std::fs::write(&file, REGISTRAR)?;
        self.loaded("region").await?;
        self.register(Some("region")).await?;
        say!("\n   client   region   four messages");
        for (client, region) in [("fay", "eu"), ("gus", "us"), ("hal", "eu"), ("ida", "us")] {
            let mut answers = Vec::new();
            for _ in 0..4 {
                answers.push(self.message(client, Some(region)).await?);
            }
            say!("   {client:<8} {region:<8} {}", answers.join("  "));
        }
        Ok(())
    }

    async fn loaded(&self, name: &str) -> anyhow::Result<()> {
        for _ in 0..200 {
            let plugins = fetch(self.api, "GET", "/v1/plugins", &[], "").await?.json()?;
            let plugins = plugins.as_array().cloned().unwrap_or_default();
            if plugins.iter().any(|plugin| plugin["name"] == name && plugin["state"] == "active") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("plugin {name} was not loaded in time");
    }

    async fn explain(&self) -> anyhow::Result<()> {
        say!("\n4. Every decision can be explained, by the code that makes it:\n");
        for (client, header) in [("fay", ""), ("someone-new", "&header=region:us")] {
            let path = format!("/v1/explain?service=hello&client={client}{header}");
            say!("   curl 'http://{}{path}'", self.api);
            let explained = fetch(self.api, "GET", &path, &[], "").await?.json()?;
            for line in explained["trace"].as_array().into_iter().flatten() {
                let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
                say!("     {:<11} {}", text("step"), text("outcome"));
            }
            say!("     → {}", explained["server"].as_str().unwrap_or("nowhere"));
        }
        Ok(())
    }

    fn invite(&self) {
        let (proxy, api) = (self.proxy, self.api);
        say!("\n5. The gateway stays up, with two messages a second. Try:\n");
        say!("   curl http://{proxy}/hello/ -H 'message-flow-client: you' -H 'region: eu'");
        say!("   curl http://{api}/v1/clients/you");
        say!("   curl http://{api}/v1/plugins");
        say!("   curl http://{api}/metrics\n\n   Ctrl-C ends it.");
    }

    async fn idle(&self) -> anyhow::Result<()> {
        for number in 0..u64::MAX {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let region = if number.is_multiple_of(2) { "eu" } else { "us" };
            // What is tried by hand may well make a message fail; the demo goes on.
            let _ = self.message(&format!("client-{}", number % 20), Some(region)).await;
        }
        Ok(())
    }

    /// Which server answered.
    async fn message(&self, client: &str, region: Option<&str>) -> anyhow::Result<String> {
        let mut headers = vec![("message-flow-client", client)];
        headers.extend(region.map(|region| ("region", region)));
        let reply: Reply = fetch(self.proxy, "GET", "/hello/", &headers, "").await?;
        reply.must_be_ok()?;
        let server = reply.body.split_whitespace().next().context("an empty answer")?;
        Ok(server.to_owned())
    }
}
