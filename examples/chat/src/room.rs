//! The rooms, and who is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plugd_core::Status;
use plugd_core::prelude::Bytes;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::Word;

/// A line with its speaker, who does not hear it.
#[derive(Debug, Clone)]
struct Said {
    by: Word,
    line: Bytes,
}

/// Somebody's place to talk; it is gone with the last member.
#[derive(Debug)]
struct Room {
    members: BTreeSet<Word>,
    lines: broadcast::Sender<Said>,
}

impl Room {
    /// A name that nobody in the room has.
    fn guest(&self) -> Word {
        let mut names = (1..).map(|number| Word::new(&format!("guest-{number}")).expect("a good word"));
        names.find(|name| !self.members.contains(name)).expect("fewer members than numbers")
    }

    fn say(&self, by: &Word, line: String) {
        // Nobody may be listening.
        let _ = self.lines.send(Said { by: by.clone(), line: line.into() });
    }
}

/// Every room by name. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Rooms {
    rooms: Arc<Mutex<BTreeMap<Word, Room>>>,
    rooms_max: usize,
    lines_kept: usize,
}

impl Rooms {
    /// No rooms yet.
    pub(crate) fn new(rooms_max: usize, lines_kept: usize) -> Rooms {
        Rooms { rooms: Arc::default(), rooms_max, lines_kept }
    }

    /// Enters a room, which is made where there is none.
    pub(crate) fn join(&self, room: &Word, name: Option<Word>) -> Result<Member, Status> {
        let mut rooms = self.lock();
        if !rooms.contains_key(room) && rooms.len() >= self.rooms_max {
            let text = format!("no room \"{room}\", and there are {} already, which is as many as may be", rooms.len());
            return Err(Status::resource_exhausted("rooms-max", text));
        }
        let new = || Room { members: BTreeSet::new(), lines: broadcast::Sender::new(self.lines_kept) };
        let place = rooms.entry(room.clone()).or_insert_with(new);
        let name = name.unwrap_or_else(|| place.guest());
        if place.members.contains(&name) {
            let text = format!("there is a \"{name}\" in room \"{room}\" already");
            return Err(Status::already_exists("name-taken", text));
        }
        place.say(&name, format!("* {name} joined\n"));
        let others = place.members.iter().cloned().collect();
        place.members.insert(name.clone());
        // A member hears what is said from here on, and nothing of itself.
        let lines = place.lines.subscribe();
        Ok(Member { rooms: self.clone(), room: room.clone(), name, others, lines })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Word, Room>> {
        // Nothing that is done under the lock leaves a room half changed.
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Rooms {
    /// A line for each room: its name and its members.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, room) in &*self.lock() {
            let members: Vec<String> = room.members.iter().map(Word::to_string).collect();
            writeln!(out, "{name}: {}", members.join(" "))?;
        }
        Ok(())
    }
}

/// What a member hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A whole line.
    Line(Bytes),
    /// That many lines were said that the member was too slow for.
    Missed(u64),
}

/// A caller in a room; dropped, it leaves.
#[derive(Debug)]
pub(crate) struct Member {
    rooms: Rooms,
    room: Word,
    name: Word,
    others: Vec<Word>,
    lines: broadcast::Receiver<Said>,
}

impl Member {
    /// What the others call this one.
    pub(crate) fn name(&self) -> &Word {
        &self.name
    }

    /// Who was there before.
    pub(crate) fn others(&self) -> &[Word] {
        &self.others
    }

    /// Says a line to all others.
    pub(crate) fn say(&self, text: &str) {
        if let Some(room) = self.rooms.lock().get(&self.room) {
            room.say(&self.name, format!("{}: {text}\n", self.name));
        }
    }

    /// Waits for what another member says. Nothing is lost when the future is dropped.
    pub(crate) async fn hear(&mut self) -> Heard {
        loop {
            match self.lines.recv().await {
                Ok(said) if said.by == self.name => {}
                Ok(said) => return Heard::Line(said.line),
                Err(RecvError::Lagged(count)) => return Heard::Missed(count),
                // The room outlives its members.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut rooms = self.rooms.lock();
        let Some(room) = rooms.get_mut(&self.room) else { return };
        room.members.remove(&self.name);
        room.say(&self.name, format!("* {} left\n", self.name));
        if room.members.is_empty() {
            rooms.remove(&self.room);
        }
    }
}
