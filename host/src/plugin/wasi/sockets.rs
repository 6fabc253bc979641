//! Sockets are made for who has a grant for an address, and for nobody else.
//!
//! To connect is checked again, against the address. This is for components that import sockets whatever they
//! do: Python's always, as its runtime does.

use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::{
    p2::{
        IoError, Network, SocketError, SocketResult, TcpSocket, UdpSocket,
        bindings::{
            sockets::{
                network::{self, ErrorCode, IpAddressFamily},
                tcp_create_socket, udp_create_socket,
            },
            sync::sockets::udp_create_socket as udp_create_socket_at_once,
        },
    },
    sockets::WasiSocketsView,
};

use crate::plugin::{Grant, guest::Guest};

struct Sockets<'a>(&'a mut Guest);

struct HasSockets;

impl HasData for HasSockets {
    type Data<'a> = Sockets<'a>;
}

fn sockets(guest: &mut Guest) -> Sockets<'_> {
    Sockets(guest)
}

pub(super) fn link_at_once(linker: &mut Linker<Guest>) -> Result<(), wasmtime::Error> {
    tcp_create_socket::add_to_linker::<Guest, HasSockets>(linker, sockets)?;
    udp_create_socket_at_once::add_to_linker::<Guest, HasSockets>(linker, sockets)
}

pub(super) fn link_waiting(linker: &mut Linker<Guest>) -> Result<(), wasmtime::Error> {
    tcp_create_socket::add_to_linker::<Guest, HasSockets>(linker, sockets)?;
    udp_create_socket::add_to_linker::<Guest, HasSockets>(linker, sockets)
}

impl Sockets<'_> {
    fn deny<T>(&mut self, protocol: &str) -> SocketResult<T> {
        let guest = &mut *self.0;
        if guest.may_log() {
            let (plugin, client) = (&*guest.plugin.name, guest.message.client.as_str());
            tracing::warn!(
                plugin,
                client,
                "no {protocol} socket: it is not granted; for TCP, write `grant = [\"tcp:IP:PORT\"]` under [plugin.{plugin}]"
            );
        }
        Err(ErrorCode::AccessDenied.into())
    }
}

impl network::Host for Sockets<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(&mut self, error: Resource<IoError>) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.0.sockets(), error)
    }
}

impl network::HostNetwork for Sockets<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.0.sockets(), network)
    }
}

impl tcp_create_socket::Host for Sockets<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        match self.0.plugin.settings.grant.iter().any(|grant| matches!(grant, Grant::Tcp(_))) {
            true => self.0.sockets().create_tcp_socket(family),
            false => self.deny("TCP"),
        }
    }
}

impl udp_create_socket::Host for Sockets<'_> {
    async fn create_udp_socket(&mut self, _: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        self.deny("UDP")
    }
}

impl udp_create_socket_at_once::Host for Sockets<'_> {
    fn create_udp_socket(&mut self, _: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        self.deny("UDP")
    }
}
