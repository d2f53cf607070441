//! Work that many wait for and one does.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::Shared;

type Flight<T> = Shared<Pin<Box<dyn Future<Output = Option<T>> + Send>>>;

/// By what it is about.
pub struct Flights<T>(Mutex<HashMap<String, Flight<T>>>);

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> fmt::Debug for Flights<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flights")
    }
}

/// As long as it is there, who asks for the same gets the same.
pub struct Landing<T>(Arc<Flights<T>>, String);

impl<T> Drop for Landing<T> {
    fn drop(&mut self) {
        let mut running = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.1);
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// Joins the work on `key`, or begins it as a task of its own. `None` when that has panicked.
    pub async fn join<F>(self: &Arc<Self>, key: &str, work: impl FnOnce(Landing<T>) -> F + Send + 'static) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let flight = {
            let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match running.get(key) {
                Some(flight) => flight.clone(),
                None => {
                    // It cannot land before it is in the table, whose lock it needs for that.
                    let landing = Landing(self.clone(), key.to_owned());
                    let task = tokio::spawn(async move { work(landing).await });
                    let flight: Pin<Box<dyn Future<Output = Option<T>> + Send>> = Box::pin(task.map(Result::ok));
                    let flight = flight.shared();
                    running.insert(key.to_owned(), flight.clone());
                    flight
                }
            }
        };
        flight.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_works_for_all_and_goes_on_when_they_go() {
        let (flights, count) = (Arc::<Flights<u32>>::default(), Arc::new(AtomicU32::new(0)));
        let join = || {
            let count = count.clone();
            flights.join("x", move |landing| async move {
                let _landing = landing;
                tokio::time::sleep(Duration::from_millis(20)).await;
                count.fetch_add(1, Ordering::SeqCst) + 1
            })
        };
        let gone = tokio::time::timeout(Duration::from_millis(1), join()).await;
        assert!(gone.is_err());
        let (first, second) = tokio::join!(join(), join());
        assert_eq!((first, second), (Some(1), Some(1)));
        assert_eq!(join().await, Some(2), "what has ended begins anew");
        let failed = flights.join("y", |_landing| async { panic!("for the test") }).await;
        assert_eq!(failed, None);
        assert!(flights.0.lock().unwrap().is_empty());
    }
}
