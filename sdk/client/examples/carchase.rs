//! A service that needs another one: the hero's car drives as soon as something can explode. It answers
//! every request; at `/slow`, after two seconds.
//!
//! `cargo run --example carchase -- ws://127.0.0.1:8081`; several routers may be named.

use std::time::Duration;

use message_flow_client::{Definition, Event, Options, connect};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nvroom\n";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut routers: Vec<String> = std::env::args().skip(1).collect();
    if routers.is_empty() {
        routers.push("ws://127.0.0.1:8081".to_owned());
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(serve(listener));
    let definition = Definition::new("carchase-service").port(port).requires(["explosion-service"]);
    let (service, mut events) = connect(routers, definition, Options::default())?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
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
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    // Nothing is sent here any more, and what was has been answered.
    timeout(Duration::from_secs(30), service.drain()).await?;
    println!("carchase: drained");
    Ok(())
}

async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream));
    }
}

/// One request, of which only the first line matters.
async fn answer(stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next_line().await?.unwrap_or_default();
    while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
    if request.starts_with("GET /slow ") {
        sleep(Duration::from_secs(2)).await;
    }
    lines.into_inner().into_inner().write_all(ANSWER.as_bytes()).await
}
