//! What happened: one bus, a bounded memory of the past, and as many listeners as like.
//!
//! A listener that reads too slowly loses the oldest events, never the engine its memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ferry_api::Filters;
use ferry_api::events::{Message, kind};
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::container::Record;
use crate::error::{Error, Result};

/// How many past events `--since` can reach, as in Docker.
const PAST: usize = 256;
/// How far a listener may fall behind.
const BEHIND: usize = 1024;

/// The engine's events.
#[derive(Debug)]
pub struct Bus {
    past: Mutex<VecDeque<Arc<Message>>>,
    sender: broadcast::Sender<Arc<Message>>,
    /// How many there were.
    count: AtomicU64,
}

/// A listener: past events first, then what comes.
#[derive(Debug)]
pub struct Events {
    past: VecDeque<Arc<Message>>,
    receiver: broadcast::Receiver<Arc<Message>>,
    filters: Filters,
    until: Option<Timestamp>,
}

/// The filters `events` takes.
const FILTERS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

impl Default for Bus {
    fn default() -> Self {
        Self {
            past: Mutex::default(),
            sender: broadcast::channel(BEHIND).0,
            count: AtomicU64::new(0),
        }
    }
}

impl Bus {
    /// Tells everybody.
    pub(crate) fn publish(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let message = Arc::new(Message::new(kind, action, id, attributes, Timestamp::now()));
        if past.len() == PAST {
            past.pop_front();
        }
        past.push_back(Arc::clone(&message));
        // Without listeners there is nobody to tell. Under the lock, so that a new listener misses nothing and sees
        // nothing twice.
        let _ = self.sender.send(message);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many events there were, and how many listen.
    pub(crate) fn counts(&self) -> (u64, usize) {
        (self.count.load(Ordering::Relaxed), self.sender.receiver_count())
    }

    pub(crate) fn container(&self, record: &Record, action: &str, more: &[(&str, String)]) {
        let mut attributes = record.config.labels.clone().unwrap_or_default();
        attributes.insert("image".to_owned(), record.image_name.clone());
        attributes.insert("name".to_owned(), record.name.clone());
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        self.publish(kind::CONTAINER, action, &record.id, attributes);
    }

    pub(crate) fn image(&self, id: &str, action: &str, name: &str) {
        self.publish(
            kind::IMAGE,
            action,
            id,
            BTreeMap::from([("name".to_owned(), name.to_owned())]),
        );
    }

    /// Listens. `since` brings the past back as far as it is remembered; `until` ends the stream.
    pub fn listen(&self, filters: Filters, since: Option<Timestamp>, until: Option<Timestamp>) -> Result<Events> {
        filters
            .validate(&FILTERS)
            .map_err(|error| Error::invalid(error.to_string()))?;
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = self.sender.subscribe();
        let wanted = |message: &&Arc<Message>| match since {
            Some(since) => nanoseconds(since) <= i128::from(message.time_nano),
            None => false,
        };
        // Only `until` asks for the past up to then, too.
        let all = since.is_none() && until.is_some();
        let past = past.iter().filter(|message| all || wanted(message)).cloned().collect();
        Ok(Events {
            past,
            receiver,
            filters,
            until,
        })
    }
}

impl Events {
    /// The next event; `None` when `until` has come or the engine ends.
    pub async fn next(&mut self) -> Option<Arc<Message>> {
        loop {
            let message = match self.past.pop_front() {
                Some(message) => message,
                None => self.receive().await?,
            };
            if self
                .until
                .is_some_and(|until| i128::from(message.time_nano) > nanoseconds(until))
            {
                return None;
            }
            if self.matches(&message) {
                return Some(message);
            }
        }
    }

    async fn receive(&mut self) -> Option<Arc<Message>> {
        loop {
            let received = match self.until {
                Some(until) => {
                    let left =
                        std::time::Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
                    tokio::time::timeout(left, self.receiver.recv()).await.ok()?
                }
                None => self.receiver.recv().await,
            };
            match received {
                Ok(message) => return Some(message),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    fn matches(&self, message: &Message) -> bool {
        let filters = &self.filters;
        let empty = BTreeMap::new();
        let attributes = message.actor.attributes.as_ref().unwrap_or(&empty);
        let name = attributes.get("name").map_or("", String::as_str);
        // `exec_create: sh` matches the filter `exec_create`, and `health_status: healthy` both ways.
        let action = message.action.split(':').next().unwrap_or_default();
        let is = |wanted: &str| message.r#type == wanted;
        let named = |key: &str| {
            !filters.contains(key)
                || (is(key)
                    && filters
                        .values(key)
                        .any(|value| message.actor.id.starts_with(value) || name == value))
        };
        (filters.exact("event", &message.action) || filters.exact("event", action))
            && filters.exact("type", &message.r#type)
            && filters.exact("scope", &message.scope)
            && filters.labels("label", attributes)
            && named("container")
            && named("network")
            && named("volume")
            && named("daemon")
            && self.matches_image(message, name, attributes)
    }

    fn matches_image(&self, message: &Message, name: &str, attributes: &BTreeMap<String, String>) -> bool {
        let image = match message.r#type.as_str() {
            kind::IMAGE => name,
            _ => attributes.get("image").map_or("", String::as_str),
        };
        let bare = image.rsplit_once(':').map_or(image, |(bare, _)| bare);
        !self.filters.contains("image")
            || self
                .filters
                .values("image")
                .any(|value| value == image || value == bare || message.actor.id == value)
    }
}

fn nanoseconds(at: Timestamp) -> i128 {
    at.as_nanosecond()
}
