//! Many connections that get the same messages.
//!
//! ```
//! use hythe::{Connection, Group, Overflow, Server, codec::Lines};
//!
//! let room: Group<String> = Group::new(Overflow::Disconnect);
//! let server = Server::serve(move |mut conn: Connection<String>| {
//!     let room = room.clone();
//!     async move {
//!         room.join(&conn);
//!         while let Some(line) = conn.recv().await? {
//!             room.send(line);
//!         }
//!         Ok(())
//!     }
//! })
//! .bind("tcp://127.0.0.1:0", Lines::new());
//! ```

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Weak};

use crate::connection::{Connection, ConnectionId, Leave, Outbound, Overflow, Pushed, Shared, share};
use crate::sync::{Mutex, lock};

/// Connections that get the same messages. Cheap to clone: all clones are the same group.
///
/// A message is encoded once for each codec among the members, and appended to each member's outbox. A member whose
/// outbox is full follows the group's [`Overflow`]; it never holds up the others. All members see the messages of a
/// group in the same order.
///
/// A connection leaves by itself when it closes, and may be in any number of groups.
pub struct Group<M> {
    inner: Arc<Inner<M>>,
}

struct Inner<M> {
    overflow: Overflow,
    members: Mutex<Members<M>>,
}

struct Members<M> {
    list: Vec<Arc<dyn Outbound<M>>>,
    places: HashMap<ConnectionId, usize>,
}

impl<M> Members<M> {
    fn remove(&mut self, id: ConnectionId) -> Option<Arc<dyn Outbound<M>>> {
        let place = self.places.remove(&id)?;
        let member = self.list.swap_remove(place);
        if let Some(moved) = self.list.get(place) {
            self.places.insert(moved.core().id, place);
        }
        Some(member)
    }
}

/// What became of a message to a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivered {
    /// Members whose outbox has the message.
    pub sent: usize,
    /// Members for whom this or an older message was dropped.
    pub dropped: usize,
    /// Members who were disconnected because they were too slow.
    pub evicted: usize,
    /// Members whose codec refused the message.
    pub refused: usize,
}

impl<M: Send + 'static> Leave for Inner<M> {
    fn leave(&self, id: ConnectionId) {
        let member = lock(&self.members).remove(id);
        drop(member);
    }
}

impl<M: Clone + Send + 'static> Group<M> {
    /// An empty group. `overflow` says what happens to members who take their messages too slowly.
    #[must_use]
    pub fn new(overflow: Overflow) -> Self {
        let members = Members { list: Vec::new(), places: HashMap::new() };
        Self { inner: Arc::new(Inner { overflow, members: Mutex::new(members) }) }
    }

    /// Adds a connection, which leaves when it closes. False where it was a member already.
    pub fn join<In: Send + 'static>(&self, conn: &Connection<In, M>) -> bool {
        let id = conn.id();
        {
            let mut members = lock(&self.inner.members);
            if members.places.contains_key(&id) {
                return false;
            }
            let place = members.list.len();
            members.places.insert(id, place);
            members.list.push(Arc::clone(conn.outbound()));
        }
        if self.inner.overflow == Overflow::DropOldest {
            conn.outbound().keep_sizes();
        }
        conn.core().on_close(Arc::downgrade(&self.inner) as Weak<dyn Leave>);
        true
    }

    /// Removes a connection. False where it was no member.
    pub fn leave(&self, id: ConnectionId) -> bool {
        let member = lock(&self.inner.members).remove(id);
        member.is_some()
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.inner.members).list.len()
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a connection is a member.
    #[must_use]
    pub fn contains(&self, id: ConnectionId) -> bool {
        lock(&self.inner.members).places.contains_key(&id)
    }

    /// Sends a message to all members. Never waits.
    pub fn send(&self, message: M) -> Delivered {
        self.deliver(message, |_| true)
    }

    /// Sends a message to all members but one. Never waits.
    pub fn send_except(&self, id: ConnectionId, message: M) -> Delivered {
        self.deliver(message, |member| member != id)
    }

    /// Sends a message to the members that `wanted` picks. Never waits.
    pub fn send_where(&self, message: M, mut wanted: impl FnMut(ConnectionId) -> bool) -> Delivered {
        // asked without the lock: it may use the group, or wait for somebody who does
        let mut ids: HashSet<_> = lock(&self.inner.members).places.keys().copied().collect();
        ids.retain(|id| wanted(*id));
        self.deliver(message, |id| ids.contains(&id))
    }

    fn deliver(&self, message: M, wanted: impl Fn(ConnectionId) -> bool) -> Delivered {
        let mut delivered = Delivered::default();
        // the writes come after the lock is given back, but for a member that has no room
        crate::batch(|| {
            let mut encoded: Vec<(u64, Option<Shared>)> = Vec::new();
            let members = lock(&self.inner.members);
            for member in members.list.iter().filter(|member| wanted(member.core().id)) {
                let codec = member.codec_id();
                let shared = match encoded.iter().find(|(known, _)| *known == codec) {
                    Some((_, shared)) => shared,
                    None => {
                        let bytes = member.encode(message.clone()).ok();
                        encoded.push((codec, bytes.map(|bytes| share(codec, bytes))));
                        encoded.last().map_or(&None, |(_, shared)| shared)
                    }
                };
                let Some(shared) = shared else {
                    delivered.refused += 1;
                    continue;
                };
                match member.push_shared(shared, self.inner.overflow) {
                    Pushed::Taken => delivered.sent += 1,
                    Pushed::Listed => {
                        delivered.sent += 1;
                        continue;
                    }
                    Pushed::Dropped => delivered.dropped += 1,
                    Pushed::Evicted => delivered.evicted += 1,
                    Pushed::Closed => continue,
                }
                Arc::clone(member).announce(0);
            }
        });
        delivered
    }
}

impl<M> Clone for Group<M> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<M> fmt::Debug for Group<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("members", &lock(&self.inner.members).list.len())
            .field("overflow", &self.inner.overflow)
            .finish()
    }
}
