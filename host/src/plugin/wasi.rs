//! WASI for guests that import it: clocks and randomness are real, the environment is empty
//! but for what is granted, standard output and standard error go to the log, there are no files.
//! `wasi:http` goes to granted hosts only, `wasi:sockets` to granted addresses, over TCP. What waits
//! for nothing else is on the sync lane (`at_once`). Core modules of preview 1 are adapted in
//! `preview1`.

mod at_once;
mod egress;
pub(super) mod output;
pub(super) mod preview1;
mod sockets;

use std::{net::SocketAddr, sync::Arc, time::Instant};

use parking_lot::Mutex;

use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::{
    capability::Grant,
    guest::{Guest, Plugin},
    trail::Trail,
};
use egress::Egress;
use output::{Printer, Written};

/// The most random bytes that a guest gets at once; it would be 64 MiB.
const RANDOM: u64 = 64 << 10;

/// What WASI needs in a store.
pub(super) struct Wasi {
    context: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    egress: Egress,
    /// What was written to its standard streams.
    written: Arc<Mutex<Written>>,
    /// When its clock began.
    began: Instant,
}

impl Wasi {
    pub(super) fn new(plugin: &Plugin) -> Self {
        let settings = &plugin.settings;
        let mut context = WasiCtx::builder();
        let grants = settings.grant.clone();
        let addresses: Vec<SocketAddr> = grants
            .iter()
            .filter_map(|grant| if let Grant::Tcp(address) = grant { Some(*address) } else { None })
            .collect();
        context.max_random_size(RANDOM);
        context.allow_tcp(!addresses.is_empty()).allow_udp(false).allow_ip_name_lookup(false);
        context.socket_addr_check(move |address, purpose| {
            let granted = match purpose {
                SocketAddrUse::TcpConnect => addresses.contains(&address),
                // What the system does by itself before it connects.
                SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
                _ => false,
            };
            Box::pin(std::future::ready(granted))
        });
        for grant in &grants {
            if let Grant::Env(name) = grant
                && let Ok(value) = std::env::var(name)
            {
                context.env(name, value);
            }
        }
        let written = Arc::<Mutex<Written>>::default();
        context.stdout(Printer { file: 1, written: Arc::clone(&written) });
        context.stderr(Printer { file: 2, written: Arc::clone(&written) });
        let (http, egress) =
            (WasiHttpCtx::new(), Egress::new(grants, plugin.mark.clone(), Arc::clone(&plugin.name)));
        let (context, table, began) = (context.build(), ResourceTable::new(), Instant::now());
        Self { context, table, http, egress, written, began }
    }
}

impl Guest {
    fn wasi(&mut self) -> &mut Wasi {
        let plugin = &self.plugin;
        self.wasi.get_or_insert_with(|| Box::new(Wasi::new(plugin)))
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let trail = Trail::of(&self.message.headers);
        let wasi = self.wasi();
        wasi.egress.follow(trail);
        WasiHttpCtxView { hooks: &mut wasi.egress, table: &mut wasi.table, ctx: &mut wasi.http }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView { ctx: &mut wasi.context, table: &mut wasi.table }
    }
}

pub(super) fn link_sync(linker: &mut Linker<Guest>) -> Result<(), wasmtime::Error> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    // In place of what would wait, which it does by blocking on a runtime of its own.
    linker.allow_shadowing(true);
    at_once::link(linker)?;
    sockets::link_at_once(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

pub(super) fn link_waiting(linker: &mut Linker<Guest>) -> Result<(), wasmtime::Error> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    sockets::link_waiting(linker)?;
    linker.allow_shadowing(false);
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}
