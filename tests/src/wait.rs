//! Waiting with a deadline: the only ways in which a test lets time pass.

use std::{fmt::Display, future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// After this long anything that a test waits for has failed. Generous: machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What `future` gives, or a panic that says what was waited for.
pub async fn within<T>(limit: Duration, what: impl Display, future: impl Future<Output = T>) -> T {
    match timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {limit:?}"),
    }
}

/// Asks until the answer is `Ok`; after [`PATIENCE`] panics with the last `Err`.
pub async fn eventually<T, E: Display, F: Future<Output = Result<T, E>>>(ask: impl FnMut() -> F) -> T {
    eventually_within(PATIENCE, ask).await
}

/// As [`eventually`], for what takes longer.
pub async fn eventually_within<T, E: Display, F: Future<Output = Result<T, E>>>(
    limit: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + limit;
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(error) if Instant::now() > end => panic!("not within {limit:?}: {error}"),
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}
