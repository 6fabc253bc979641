//! WASI on the sync lane, where nothing waits.
//!
//! Components of JavaScript, Python and Rust import what their runtimes are built on, `poll` and
//! streams included, whether or not the plugin ever waits. On this lane there is nothing that
//! it could wait for but the time: the standard streams are always ready, there are no
//! files, and a component with a grant for sockets is on the other lane. Who sleeps holds its
//! thread, as who computes does, until its deadline at most.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use wasmtime::{
    Trap,
    component::{HasData, Linker, Resource, ResourceTable},
};
use wasmtime_wasi::{
    async_trait,
    p2::{
        DynInputStream, DynOutputStream, DynPollable, Pollable, StreamError, StreamResult,
        bindings::{
            clocks::monotonic_clock,
            sync::io::{poll, streams},
        },
        subscribe,
    },
};
use wasmtime_wasi_io::bindings::wasi::io::{poll as waiting_poll, streams as waiting_streams};

use crate::plugin::{guest::Guest, meter};

/// What WASI is answered with.
struct AtOnce<'a> {
    table: &'a mut ResourceTable,
    /// When the guest's clock began.
    began: Instant,
    /// When the call at hand is to be over.
    until: Instant,
}

struct HasAtOnce;

impl HasData for HasAtOnce {
    type Data<'a> = AtOnce<'a>;
}

fn at_once(guest: &mut Guest) -> AtOnce<'_> {
    let until = guest.until;
    let wasi = guest.wasi();
    AtOnce { table: &mut wasi.table, began: wasi.began, until }
}

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<(), wasmtime::Error> {
    poll::add_to_linker::<Guest, HasAtOnce>(linker, at_once)?;
    streams::add_to_linker::<Guest, HasAtOnce>(linker, at_once)?;
    monotonic_clock::add_to_linker::<Guest, HasAtOnce>(linker, at_once)
}

/// A moment that a guest waits for.
struct Moment(Instant);

#[async_trait]
impl Pollable for Moment {
    async fn ready(&mut self) {
        if Instant::now() < self.0 {
            std::future::pending().await
        }
    }
}

/// Between two looks at what a guest waits for.
const NAP: Duration = Duration::from_micros(500);

impl AtOnce<'_> {
    /// Looks until there is an answer, or the call is over.
    fn look<T>(
        &mut self,
        mut answer: impl FnMut(&mut ResourceTable) -> Option<wasmtime::Result<T>>,
    ) -> wasmtime::Result<T> {
        loop {
            if let Some(answer) = answer(self.table) {
                return answer;
            }
            if Instant::now() >= self.until {
                return Err(Trap::Interrupt.into());
            }
            meter::sleep(NAP);
        }
    }

    fn moment(&mut self, moment: Option<Instant>) -> wasmtime::Result<Resource<DynPollable>> {
        // What lies beyond all time lies beyond the call's.
        let moment = self.table.push(Moment(moment.unwrap_or(self.until + Duration::from_secs(1))))?;
        subscribe(self.table, moment)
    }
}

impl monotonic_clock::Host for AtOnce<'_> {
    fn now(&mut self) -> wasmtime::Result<monotonic_clock::Instant> {
        Ok(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn resolution(&mut self) -> wasmtime::Result<monotonic_clock::Duration> {
        Ok(1)
    }

    fn subscribe_instant(
        &mut self,
        when: monotonic_clock::Instant,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        self.moment(self.began.checked_add(Duration::from_nanos(when)))
    }

    fn subscribe_duration(
        &mut self,
        duration: monotonic_clock::Duration,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        self.moment(Instant::now().checked_add(Duration::from_nanos(duration)))
    }
}

impl poll::Host for AtOnce<'_> {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        self.look(|table| {
            let borrowed = pollables.iter().map(|pollable| Resource::new_borrow(pollable.rep())).collect();
            waiting_poll::Host::poll(table, borrowed).now_or_never()
        })
    }
}

impl poll::HostPollable for AtOnce<'_> {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        let ready = waiting_poll::HostPollable::ready(self.table, pollable).now_or_never();
        ready.unwrap_or(Ok(false))
    }

    fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        let rep = pollable.rep();
        self.look(|table| waiting_poll::HostPollable::block(table, Resource::new_borrow(rep)).now_or_never())
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        waiting_poll::HostPollable::drop(self.table, pollable)
    }
}

/// The standard streams are always ready, and there are no others.
fn now<T>(answer: impl Future<Output = StreamResult<T>>) -> StreamResult<T> {
    answer.now_or_never().unwrap_or_else(|| Err(StreamError::trap("a stream that is not ready")))
}

impl streams::Host for AtOnce<'_> {
    fn convert_stream_error(&mut self, error: StreamError) -> wasmtime::Result<streams::StreamError> {
        Ok(waiting_streams::Host::convert_stream_error(self.table, error)?.into())
    }
}

impl streams::HostOutputStream for AtOnce<'_> {
    fn drop(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<()> {
        self.table.delete(stream)?;
        Ok(())
    }

    fn check_write(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<u64> {
        waiting_streams::HostOutputStream::check_write(self.table, stream)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        waiting_streams::HostOutputStream::write(self.table, stream, bytes)
    }

    fn subscribe(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        waiting_streams::HostOutputStream::subscribe(self.table, stream)
    }

    fn blocking_write_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        now(waiting_streams::HostOutputStream::blocking_write_and_flush(self.table, stream, bytes))
    }

    fn blocking_write_zeroes_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        length: u64,
    ) -> StreamResult<()> {
        now(waiting_streams::HostOutputStream::blocking_write_zeroes_and_flush(self.table, stream, length))
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, length: u64) -> StreamResult<()> {
        waiting_streams::HostOutputStream::write_zeroes(self.table, stream, length)
    }

    fn flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        waiting_streams::HostOutputStream::flush(self.table, stream)
    }

    fn blocking_flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        now(waiting_streams::HostOutputStream::blocking_flush(self.table, stream))
    }

    fn splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        length: u64,
    ) -> StreamResult<u64> {
        waiting_streams::HostOutputStream::splice(self.table, to, from, length)
    }

    fn blocking_splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        length: u64,
    ) -> StreamResult<u64> {
        now(waiting_streams::HostOutputStream::blocking_splice(self.table, to, from, length))
    }
}

impl streams::HostInputStream for AtOnce<'_> {
    fn drop(&mut self, stream: Resource<DynInputStream>) -> wasmtime::Result<()> {
        self.table.delete(stream)?;
        Ok(())
    }

    fn read(&mut self, stream: Resource<DynInputStream>, length: u64) -> StreamResult<Vec<u8>> {
        waiting_streams::HostInputStream::read(self.table, stream, length)
    }

    fn blocking_read(&mut self, stream: Resource<DynInputStream>, length: u64) -> StreamResult<Vec<u8>> {
        now(waiting_streams::HostInputStream::blocking_read(self.table, stream, length))
    }

    fn skip(&mut self, stream: Resource<DynInputStream>, length: u64) -> StreamResult<u64> {
        waiting_streams::HostInputStream::skip(self.table, stream, length)
    }

    fn blocking_skip(&mut self, stream: Resource<DynInputStream>, length: u64) -> StreamResult<u64> {
        now(waiting_streams::HostInputStream::blocking_skip(self.table, stream, length))
    }

    fn subscribe(&mut self, stream: Resource<DynInputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        waiting_streams::HostInputStream::subscribe(self.table, stream)
    }
}
