//! An image's layers, becoming ready in any order.
//!
//! Overlay's layers are independent directories, so several are unpacked at once. Only what refers to a layer below, a hard
//! link into it for instance, waits for it. Layers have to be begun lowest first: a layer never waits for one above it.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use ferry_archive::Below;
use ferry_image::{Digest, chain_ids};
use ferry_sys::Root;

use crate::layers::{Layers, Pin};
use crate::{Error, Result};

#[derive(Debug)]
pub(crate) struct Assembly {
    chains: Vec<Digest>,
    slots: Mutex<Vec<Slot>>,
    changed: Condvar,
}

#[derive(Debug)]
enum Slot {
    Awaited,
    Ready(Pin),
    Failed,
}

impl Assembly {
    /// Takes the layers that are there; `diff_ids` lowest first.
    pub fn new(layers: &std::sync::Arc<Layers>, diff_ids: &[Digest]) -> Self {
        let chains = chain_ids(diff_ids);
        let slots = chains.iter().map(|chain| match layers.get(chain) {
            Some(pin) => Slot::Ready(pin),
            None => Slot::Awaited,
        });
        Self {
            slots: Mutex::new(slots.collect()),
            chains,
            changed: Condvar::new(),
        }
    }

    pub fn chain(&self, at: usize) -> Option<&Digest> {
        self.chains.get(at)
    }

    /// The chain id of the layer below.
    pub fn parent(&self, at: usize) -> Option<Digest> {
        self.chains.get(at.checked_sub(1)?).cloned()
    }

    /// The layers that are not there, lowest first.
    pub fn awaited(&self) -> Vec<usize> {
        let slots = self.lock();
        let awaited = slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| matches!(slot, Slot::Awaited));
        awaited.map(|(at, _)| at).collect()
    }

    /// Ends the waiting for a layer, however it came out.
    pub fn settle(&self, at: usize, outcome: Result<Pin>) -> Result<()> {
        let (slot, outcome) = match outcome {
            Ok(pin) => (Slot::Ready(pin), Ok(())),
            Err(error) => (Slot::Failed, Err(error)),
        };
        if let Some(place) = self.lock().get_mut(at) {
            *place = slot;
        }
        self.changed.notify_all();
        outcome
    }

    /// All layers, once none is awaited any more.
    pub fn finish(self) -> Result<Vec<Pin>> {
        let slots = self.slots.into_inner().unwrap_or_else(PoisonError::into_inner);
        let ready = slots.into_iter().zip(&self.chains).map(|(slot, chain)| match slot {
            Slot::Ready(pin) => Ok(pin),
            Slot::Awaited | Slot::Failed => Err(Error::Invalid(format!("the layer {chain} is missing"))),
        });
        ready.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What lies below one layer of an assembly.
#[derive(Debug)]
pub(crate) struct Lower<'a> {
    assembly: &'a Assembly,
    layers: &'a Layers,
    at: usize,
    roots: OnceLock<Vec<Root>>,
}

impl<'a> Lower<'a> {
    pub fn new(assembly: &'a Assembly, layers: &'a Layers, at: usize) -> Self {
        Self {
            assembly,
            layers,
            at,
            roots: OnceLock::new(),
        }
    }

    /// Waits until every layer below is ready.
    fn wait(&self) -> io::Result<()> {
        let mut slots = self.assembly.lock();
        loop {
            let below = slots.get(..self.at).unwrap_or_default();
            if below.iter().any(|slot| matches!(slot, Slot::Failed)) {
                return Err(io::Error::other("a layer below it could not be unpacked"));
            }
            if below.iter().all(|slot| matches!(slot, Slot::Ready(_))) {
                return Ok(());
            }
            slots = self
                .assembly
                .changed
                .wait(slots)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Below for Lower<'_> {
    fn roots(&self) -> io::Result<&[Root]> {
        if let Some(roots) = self.roots.get() {
            return Ok(roots);
        }
        self.wait()?;
        let below = self.assembly.chains.get(..self.at).unwrap_or_default();
        let roots = below.iter().rev().map(|chain| Root::open(&self.layers.path(chain)));
        let roots = roots.collect::<io::Result<Vec<_>>>()?;
        Ok(self.roots.get_or_init(|| roots))
    }
}
