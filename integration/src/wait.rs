//! Waiting for a condition of the outside world, with a limit and a sentence.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::boottime;

/// How often a condition is looked at again.
const LOOK: Duration = Duration::from_millis(50);

/// Asks `cond` until it answers, at most for `limit`. The error says `what` was waited for.
pub async fn wait_for<T>(what: &str, limit: Duration, mut cond: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let start = boottime::now();
    loop {
        if let Some(found) = cond().await {
            return Ok(found);
        }
        if boottime::since(start) > limit {
            bail!("waited {limit:?} in vain until {what}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Checks that `cond` stays true for `length`. The error says `what` should have stayed.
pub async fn holds_for(what: &str, length: Duration, mut cond: impl AsyncFnMut() -> bool) -> Result<()> {
    let start = boottime::now();
    while boottime::since(start) < length {
        if !cond().await {
            bail!(
                "for {length:?} it should have stayed so that {what}, but after {:?} it did not",
                boottime::since(start)
            );
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
