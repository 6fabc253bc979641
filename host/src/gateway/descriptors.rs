//! File descriptors: as many as the system allows, and who of this process may have how many.
//!
//! Most shells start programs with a soft limit of 1024 for the sake of those that use `select`, far
//! below the hard one. And when connections of clients take the last descriptor, there is none for
//! the servers that would answer them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{ApiLimits, Config, DiscoveryConfig, ProxyLimits};

/// For the log, plugins, the data directory, etcd, webhooks.
const FILES: usize = 64;
/// Listeners and runtimes, for each worker.
const OF_A_WORKER: usize = 8;
/// The API and services that announce themselves have at most this part.
const API: usize = 4;
/// More than any process opens, where there is no limit.
const UNLIMITED: usize = 1 << 20;

/// How many connections there may be of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Of clients, to the proxy.
    pub(super) clients: usize,
    /// To the API.
    pub(super) api: usize,
    /// Of services that announce themselves.
    pub(super) services: usize,
}

/// Raises the soft limit to the hard one, and divides what there is.
pub(super) fn divide(config: &Config, workers: usize) -> Shares {
    let limit = raise();
    let wanted = Shares {
        clients: config.proxy.limits.connections,
        api: config.api.limits.connections,
        services: config.discovery.connections,
    };
    let shares = wanted.within(limit, FILES + OF_A_WORKER * workers);
    let (proxy, api) = (ProxyLimits::default().connections, ApiLimits::default().connections);
    for (what, wanted, share, usual) in [
        ("[proxy.limits] connections", wanted.clients, shares.clients, proxy),
        ("[api.limits] connections", wanted.api, shares.api, api),
        ("[discovery] connections", wanted.services, shares.services, DiscoveryConfig::default().connections),
    ] {
        if share < wanted {
            say(what, limit, wanted, share, wanted == usual);
        }
    }
    shares
}

/// What nobody wrote down is lowered on many machines, and no reason to be warned.
fn say(what: &str, open_files: usize, wanted: usize, lowered_to: usize, by_default: bool) {
    let hint = "half of what the API and files leave is for connections to servers; raise the limit of open \
                files (ulimit -Hn, LimitNOFILE=) or lower the setting";
    if by_default {
        tracing::info!(open_files, wanted, lowered_to, "{what} is lowered: {hint}");
    } else {
        tracing::warn!(open_files, wanted, lowered_to, "{what} is lowered: {hint}");
    }
}

impl Shares {
    /// As many of each as wanted, but no more than the limit leaves.
    fn within(self, limit: usize, files: usize) -> Self {
        let left = limit.saturating_sub(files);
        let api = self.api.min(left / API / 2);
        let services = self.services.min(left / API / 2);
        // A client that waits for its server takes two descriptors.
        let clients = self.clients.min((left - api - services) / 2).max(1);
        Self { clients, api: api.max(1), services }
    }
}

fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => tracing::debug!(?current, ?maximum, "the limit of open files was raised"),
            Err(error) => tracing::warn!(%error, ?current, ?maximum, "the limit of open files stays"),
        }
    }
    let now = getrlimit(Resource::Nofile).current;
    now.and_then(|now| usize::try_from(now).ok()).unwrap_or(UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_servers_and_files() {
        let wanted = Shares { clients: 20_000, api: 1024, services: 20_000 };
        for (limit, clients, api, services) in [
            (1 << 20, 20_000, 1024, 20_000),
            (4096, 1506, 502, 502),
            (1024, 354, 118, 118),
            (256, 66, 22, 22),
            (10, 1, 1, 0),
        ] {
            let shares = wanted.within(limit, FILES + 2 * OF_A_WORKER);
            assert_eq!(shares, Shares { clients, api, services }, "{limit}");
            let all = FILES + 2 * OF_A_WORKER + shares.clients * 2 + shares.api + shares.services;
            assert!(limit < 100 || all <= limit, "{limit}: {all}");
        }
        let few = Shares { clients: 10, api: 2, services: 3 };
        assert_eq!(few.within(1024, 80), few);
    }
}
