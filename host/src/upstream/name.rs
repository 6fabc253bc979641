//! Where a server's name leads: what it was resolved to last, and the way to find out anew.
//!
//! No message waits for a name that was resolved before. An answer is used while a new one is
//! fetched in the background, so a server that has moved is found while messages flow, and a
//! resolver that is down takes no server with it. The system's resolver is asked, which knows the
//! machine's `hosts` file and its search list, but tells no lifetimes: hence the fixed interval.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::lookup_host,
    sync::{Semaphore, watch},
    time::Instant,
};

/// An answer older than this is replaced while it is used.
const REFRESH: Duration = Duration::from_secs(5);
/// A name that meant nothing is asked for again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// Connections to an address that was missing in so many answers in a row are not used again: one
/// answer may well be a part of all that there are.
const MISSING: u8 = 3;
/// An address that did not answer is tried after the others for so long.
const TROUBLED: Duration = Duration::from_secs(30);
/// At most so many addresses of a name are used.
const MOST: usize = 16;
/// At most so many names are looked up at once; each takes a thread for as long as that lasts.
pub(super) const LOOKUPS: usize = 64;

/// A name and a port.
pub(super) struct Name {
    host: Box<str>,
    port: u16,
    known: watch::Sender<Arc<Known>>,
    /// Somebody finds out at this moment.
    asking: AtomicBool,
    /// Grows when an address is given up.
    generation: AtomicU64,
    /// Addresses in the latest answer.
    there: AtomicUsize,
    turn: AtomicUsize,
    /// Of all names.
    lookups: Arc<Semaphore>,
}

/// What is known of a name.
#[derive(Default)]
struct Known {
    addresses: Vec<Arc<Address>>,
    /// When it was asked for last; none: never.
    asked: Option<Instant>,
    /// Why there is no address at all.
    failed: Option<Arc<io::Error>>,
}

/// One address of a name.
pub(super) struct Address {
    pub(super) socket: SocketAddr,
    /// In so many answers in a row it was missing.
    missing: u8,
    /// What outlasts an answer.
    history: Arc<History>,
}

#[derive(Default)]
struct History {
    /// When it did not answer, or not in time.
    troubled: Mutex<Option<Instant>>,
    /// Connections to it.
    open: AtomicUsize,
}

/// A connection to an address; counts until dropped.
pub(super) struct Counted(Arc<History>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

impl Address {
    fn new(socket: SocketAddr) -> Self {
        Self { socket, missing: 0, history: Arc::default() }
    }

    #[cfg(test)]
    pub(super) fn at(socket: SocketAddr) -> Arc<Self> {
        Arc::new(Self::new(socket))
    }

    /// It did not answer, or not in time.
    pub(super) fn is_trouble(&self) {
        *self.history.troubled.lock() = Some(Instant::now());
    }

    /// It answered.
    pub(super) fn is_well(&self) {
        *self.history.troubled.lock() = None;
    }

    pub(super) fn is_troubled(&self) -> bool {
        self.history.troubled.lock().is_some_and(|since| since.elapsed() < TROUBLED)
    }
}

impl Name {
    pub(super) fn new(host: &str, port: u16, lookups: &Arc<Semaphore>) -> Arc<Self> {
        Arc::new(Self {
            lookups: Arc::clone(lookups),
            host: host.into(),
            port,
            known: watch::Sender::default(),
            asking: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            there: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
        })
    }

    /// Its addresses in the order in which they should be tried now, at least one. Waits only if
    /// none is known.
    pub(super) async fn addresses(self: &Arc<Self>) -> Result<Vec<Arc<Address>>, Arc<io::Error>> {
        let mut answers = self.known.subscribe();
        loop {
            let known = Arc::clone(&answers.borrow_and_update());
            let age = known.asked.map(|asked| asked.elapsed());
            if let Some(failed) = known.failed.as_ref().filter(|_| age.is_some_and(|age| age < AGAIN)) {
                return Err(Arc::clone(failed));
            }
            self.refresh();
            if !known.addresses.is_empty() {
                return Ok(self.order(&known));
            }
            // The sender is held by this.
            let _ = answers.changed().await;
        }
    }

    /// Finds out anew in the background, if it is time to and nobody does.
    pub(super) fn refresh(self: &Arc<Self>) {
        let age = self.known.borrow().asked.map(|asked| asked.elapsed());
        let failed = self.known.borrow().failed.is_some();
        let lasts = if failed { AGAIN } else { REFRESH };
        if age.is_some_and(|age| age < lasts) || self.asking.swap(true, Relaxed) {
            return;
        }
        let name = Arc::clone(self);
        tokio::spawn(async move {
            let _asking = Asking(Arc::clone(&name));
            let _permit = name.lookups.acquire().await;
            let answer = lookup_host((&*name.host, name.port)).await;
            name.answered(answer.map(|addresses| addresses.map(|address| address.ip()).collect()));
        });
    }

    /// How many addresses it has, as far as is known.
    pub(super) fn len(&self) -> usize {
        self.there.load(Relaxed)
    }

    /// Whether one of several addresses has no connection at all, and is not known not to answer.
    pub(super) fn lacks(&self) -> bool {
        let lacks = |address: &Arc<Address>| {
            address.missing == 0 && address.history.open.load(Relaxed) == 0 && !address.is_troubled()
        };
        self.len() > 1 && self.known.borrow().addresses.iter().any(lacks)
    }

    /// Counts a connection to this address for as long as the answer is held.
    pub(super) fn count(&self, address: IpAddr) -> Option<Counted> {
        let known = self.known.borrow();
        let found = known.addresses.iter().find(|known| known.socket.ip() == address)?;
        found.history.open.fetch_add(1, Relaxed);
        Some(Counted(Arc::clone(&found.history)))
    }

    /// Whether a connection to this address may be used again. `generation` is when that was asked
    /// last, so that it need not be asked again.
    pub(super) fn leads_to(&self, address: IpAddr, generation: &mut u64) -> bool {
        let now = self.generation.load(Relaxed);
        if now == *generation {
            return true;
        }
        *generation = now;
        self.known.borrow().addresses.iter().any(|known| known.socket.ip() == address)
    }

    pub(super) fn answered(&self, answer: io::Result<Vec<IpAddr>>) {
        let before = Arc::clone(&self.known.borrow());
        let asked = Some(Instant::now());
        let known = match answer {
            Ok(mut answer) => {
                answer.truncate(MOST);
                self.merged(&before, &answer)
            }
            Err(error) if before.addresses.is_empty() => {
                Known { asked, failed: Some(Arc::new(error)), ..Known::default() }
            }
            Err(error) => {
                tracing::warn!(name = %self.host, %error, "a name cannot be resolved; what it meant before is used");
                Known { asked, addresses: before.addresses.clone(), failed: None }
            }
        };
        let gave_up = |old: &&Arc<Address>| !known.addresses.iter().any(|new| new.socket == old.socket);
        if before.addresses.iter().any(|old| gave_up(&old)) {
            self.generation.fetch_add(1, Relaxed);
        }
        let there = known.addresses.iter().filter(|address| address.missing == 0).count();
        self.there.store(there, Relaxed);
        self.known.send_replace(Arc::new(known));
    }

    /// The addresses of an answer, and those missing in it that are not given up yet.
    fn merged(&self, before: &Known, answer: &[IpAddr]) -> Known {
        let asked = Some(Instant::now());
        if answer.is_empty() {
            let none = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            let failed = before.addresses.is_empty().then(|| Arc::new(none));
            return Known { addresses: before.addresses.clone(), asked, failed };
        }
        let old = |ip: IpAddr| before.addresses.iter().find(|old| old.socket.ip() == ip);
        let mut addresses: Vec<Arc<Address>> = Vec::new();
        for ip in answer {
            let mut address = Address::new(SocketAddr::new(*ip, self.port));
            if let Some(old) = old(*ip) {
                address.history = Arc::clone(&old.history);
            }
            if !addresses.iter().any(|there| there.socket == address.socket) {
                addresses.push(Arc::new(address));
            }
        }
        for old in before.addresses.iter().filter(|old| !answer.contains(&old.socket.ip())) {
            let Address { socket, missing, history } = &**old;
            if missing + 1 < MISSING {
                let (socket, missing, history) = (*socket, missing + 1, Arc::clone(history));
                addresses.push(Arc::new(Address { socket, missing, history }));
            }
        }
        Known { addresses, asked, failed: None }
    }

    /// The families take turns (RFC 8305, section 4), those with the fewest connections come first, so
    /// that all are used, and those that did not answer lately come last.
    fn order(&self, known: &Known) -> Vec<Arc<Address>> {
        let there = || known.addresses.iter().filter(|address| address.missing == 0);
        let (mut six, mut four) = (
            there().filter(|address| address.socket.is_ipv6()),
            there().filter(|address| address.socket.is_ipv4()),
        );
        let mut order: Vec<Arc<Address>> = Vec::new();
        loop {
            let before = order.len();
            order.extend(six.next().cloned());
            order.extend(four.next().cloned());
            if order.len() == before {
                break;
            }
        }
        let turn = self.turn.fetch_add(1, Relaxed) % order.len().max(1);
        order.rotate_left(turn);
        order.sort_by_key(|address| (address.is_troubled(), address.history.open.load(Relaxed)));
        order
    }
}

/// Somebody finds out what a name means; ends when dropped, however that went.
struct Asking(Arc<Name>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asking.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(host: &str) -> Arc<Name> {
        Name::new(host, 80, &Arc::new(Semaphore::new(LOOKUPS)))
    }

    fn answered(name: &Name, answer: &[&str]) {
        name.answered(Ok(answer.iter().map(|ip| ip.parse().unwrap()).collect()));
    }

    fn order(name: &Name) -> Vec<String> {
        let known = Arc::clone(&name.known.borrow());
        name.order(&known).iter().map(|address| address.socket.ip().to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn families_take_turns_and_every_address_is_first_once() {
        let name = named("a");
        answered(&name, &["2001:db8::1", "2001:db8::2", "10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let first = order(&name);
        assert_eq!(first, ["2001:db8::1", "10.0.0.1", "2001:db8::2", "10.0.0.2", "10.0.0.3"]);
        let firsts: Vec<_> = (0..5).map(|_| order(&name).swap_remove(0)).collect();
        let all: std::collections::BTreeSet<_> = firsts.iter().collect();
        assert_eq!(all.len(), 5, "{firsts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_without_a_connection_is_next() {
        let name = named("a");
        answered(&name, &["10.0.0.1", "10.0.0.2"]);
        let [one, two] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap());
        let held = [name.count(one), name.count(one)];
        answered(&name, &["10.0.0.2", "10.0.0.1"]);
        for _ in 0..3 {
            assert_eq!(order(&name)[0], "10.0.0.2");
        }
        assert!(name.lacks());
        let other = name.count(two);
        assert!(!name.lacks());
        drop(held);
        assert!(name.lacks() && order(&name)[0] == "10.0.0.1");
        name.known.borrow().addresses[1].is_trouble();
        assert!(!name.lacks(), "it does not answer");
        drop(other);
    }

    #[tokio::test(start_paused = true)]
    async fn one_in_trouble_comes_last_for_a_while() {
        let name = named("a");
        answered(&name, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        name.known.borrow().addresses[1].is_trouble();
        // An answer says nothing of that.
        answered(&name, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        for _ in 0..3 {
            assert_eq!(order(&name)[2], "10.0.0.2");
        }
        tokio::time::advance(TROUBLED).await;
        let firsts: Vec<_> = (0..3).map(|_| order(&name).swap_remove(0)).collect();
        assert!(firsts.contains(&"10.0.0.2".to_owned()), "{firsts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_given_up_when_it_is_missing_for_long() {
        let name = named("a");
        answered(&name, &["10.0.0.1", "10.0.0.2"]);
        let (ip, mut seen) = ("10.0.0.1".parse().unwrap(), name.generation.load(Relaxed));
        for _ in 1..MISSING {
            answered(&name, &["10.0.0.2", "10.0.0.3"]);
            assert_eq!(order(&name).len(), 2, "nobody is sent there any more");
            assert!(!order(&name).contains(&"10.0.0.1".to_owned()));
            assert!(name.leads_to(ip, &mut seen), "but a connection there is used");
        }
        // A resolver that does not know now says nothing about it.
        name.answered(Err(io::Error::other("away")));
        answered(&name, &[]);
        assert!(name.leads_to(ip, &mut seen));
        answered(&name, &["10.0.0.2", "10.0.0.3"]);
        assert!(!name.leads_to(ip, &mut seen));
        let other = "10.0.0.2".parse().unwrap();
        assert!(name.leads_to(other, &mut 0));
    }

    #[tokio::test]
    async fn a_name_that_means_nothing_is_an_error_and_no_burst_of_questions() {
        let name = named("no-such-host.invalid");
        assert!(name.addresses().await.is_err());
        let asked = name.known.borrow().asked;
        assert!(name.addresses().await.is_err());
        assert!(asked.is_some() && name.known.borrow().asked == asked);
        let name = named("localhost");
        let found = name.addresses().await.unwrap();
        assert!(found.iter().all(|address| address.socket.ip().is_loopback()));
    }
}
