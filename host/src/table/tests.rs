//! The table against a datastore written by hand, under tokio's paused clock.

mod assignments;
mod following;
mod identity;
mod losing;
mod time;
mod watching;

use std::{sync::Arc, sync::atomic::Ordering::SeqCst, time::Duration};

use super::{
    testing::{TestTable, delete, put, server},
    *,
};

const UNIX: u64 = 1_700_000_000_000;

fn options(router: &str) -> Options {
    Options { clock: Clock::tokio(UNIX), ..Options::new(router, "test") }
}

async fn start(table: &Arc<TestTable>) -> Arc<Table> {
    Table::start(Arc::clone(table) as Arc<dyn Adapter>, options("here")).await
}

/// The servers of a service, suspects in brackets; none: there is no such service.
fn servers(view: &View, service: &str) -> Option<String> {
    let service = view.service(&service.parse().unwrap())?;
    let name = |server: &Arc<Server>| match server.held {
        true => format!("[{}]", server.id),
        false => server.id.to_string(),
    };
    Some(service.servers.iter().map(name).collect::<Vec<_>>().join(" "))
}

/// Waits until the view holds a revision.
async fn seen(table: &Table, revision: Revision) -> Arc<View> {
    let mut views = table.subscribe();
    let view = views.wait_for(|view| view.revision >= revision).await.unwrap();
    Arc::clone(&view)
}

async fn wait_for(table: &Table, status: fn(&Status) -> bool) {
    table.status().wait_for(status).await.unwrap();
}

/// Lets everything run that can run now, and what the clock brings within this time.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

const MOMENT: Duration = Duration::from_millis(20);
