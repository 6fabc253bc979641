//! A service that needs another one: the hero's car drives as soon as something can explode.
//!
//! `cargo run --example carchase -- ws://127.0.0.1:8081`; several routers may be named.

use message_flow_client::{Definition, Event, Options, connect};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), message_flow_client::InvalidRouter> {
    let mut routers: Vec<String> = std::env::args().skip(1).collect();
    if routers.is_empty() {
        routers.push("ws://127.0.0.1:8081".to_owned());
    }
    let definition = Definition::new("carchase-service").port(9877).requires(["explosion-service"]);
    let (service, mut events) = connect(routers, definition, Options::default())?;
    println!("carchase: waiting for an explosion");
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::Required(there)) => {
                    println!("carchase: {} is at {}:{}", there.name, there.host, there.port);
                }
                Some(Event::Lost(gone)) => println!("carchase: {} is gone", gone.name),
                Some(Event::Refused(refused)) => eprintln!("carchase: {}: {}", refused.code, refused.reason),
                None => return Ok(()),
            },
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    if tokio::time::timeout(std::time::Duration::from_secs(30), service.drain()).await.is_ok() {
        println!("carchase: drained");
    }
    Ok(())
}
