//! A chat server: rooms and nicknames over lines of text, on TCP and a Unix socket.
//!
//! Run it:
//!     cargo run --example chat
//! or with endpoints of your own:
//!     cargo run --example chat tcp://127.0.0.1:9001 unix:///tmp/chat.sock
//!
//! In other terminals, then type `/help`:
//!     cargo run --example chat_client -- tcp://127.0.0.1:9001 --nick ann
//!     nc 127.0.0.1 9001
//!     nc -U /tmp/chat.sock

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hythe::codec::Lines;
use hythe::{CloseReason, Closed, Connection, Fault, Group, Handler, Limits, Overflow, Server};
use tokio::time::Instant;

const HELP: &str = "/join ROOM, /leave, /nick NAME, /who, /rooms, /quit; anything else is said to the room";
const LONGEST_NAME: usize = 20;

/// Who and what there is: shared by all members, and only locked for as long as it takes to look.
#[derive(Default)]
struct Chat {
    guests: u64,
    /// In lower case, so that Ann and ann are one.
    nicks: HashSet<String>,
    rooms: BTreeMap<String, Room>,
}

struct Room {
    group: Group<String>,
    nicks: Vec<String>,
}

/// One connection.
#[derive(Clone)]
struct Member {
    chat: Arc<Mutex<Chat>>,
    nick: String,
    /// The room's name, and everybody in it.
    room: Option<(String, Group<String>)>,
}

impl Handler for Member {
    type In = String;
    type Out = String;

    async fn on_open(&mut self, conn: &mut Connection<String>) -> anyhow::Result<()> {
        while self.nick.is_empty() {
            let guest = {
                let mut chat = self.chat();
                chat.guests += 1;
                format!("guest{}", chat.guests)
            };
            // somebody else may have taken the name
            let _ = self.rename(&guest);
        }
        conn.send(format!("* welcome, {}; /help says what there is", self.nick)).await?;
        let reply = self.join(conn, "lobby");
        conn.send(format!("* {reply}")).await?;
        Ok(())
    }

    async fn on_message(&mut self, conn: &mut Connection<String>, line: String) -> anyhow::Result<()> {
        let line = printable(line.trim());
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let reply = match command {
            "" => return Ok(()),
            "/join" => self.join(conn, argument.trim()),
            "/leave" => self.leave("has left", Some(conn)),
            "/nick" => match self.rename(argument.trim()) {
                Ok(old) => {
                    self.tell(conn, format!("* {old} is now {}", self.nick));
                    format!("you are now {}", self.nick)
                }
                Err(why) => why,
            },
            "/who" => self.who(),
            "/rooms" => self.rooms(),
            "/help" => HELP.to_string(),
            "/quit" => {
                // now, and not when the peer has closed its side as well
                self.leave("has left", Some(conn));
                conn.send("* goodbye".to_string()).await?;
                conn.close().await?;
                return Ok(());
            }
            _ if command.starts_with('/') => format!("there is no {command}; /help says what there is"),
            _ if self.room.is_none() => "you are in no room; /join one".to_string(),
            _ => {
                self.tell(conn, format!("<{}> {line}", self.nick));
                return Ok(());
            }
        };
        conn.send(format!("* {reply}")).await?;
        Ok(())
    }

    async fn on_drain(&mut self, conn: &mut Connection<String>, _: Instant) -> anyhow::Result<()> {
        conn.send("* the server stops; goodbye".to_string()).await?;
        conn.close().await?;
        Ok(())
    }

    async fn on_close(mut self, closed: Closed) {
        self.leave(
            match closed.reason {
                CloseReason::SlowPeer => "was too slow to follow, and was dropped",
                CloseReason::Idle => "was silent for too long",
                reason if reason.fault() == Fault::None => "has left",
                _ => "has lost the connection",
            },
            None,
        );
        self.chat().nicks.remove(&self.nick.to_lowercase());
    }
}

impl Member {
    fn chat(&self) -> MutexGuard<'_, Chat> {
        self.chat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To everybody in the room but the member. Never waits: who cannot follow is dropped.
    fn tell(&self, conn: &Connection<String>, text: String) {
        if let Some((_, group)) = &self.room {
            group.send_except(conn.id(), text);
        }
    }

    fn join(&mut self, conn: &Connection<String>, name: &str) -> String {
        if !is_name(name) {
            return format!("a room's name has 1 to {LONGEST_NAME} letters and digits");
        }
        if self.room.as_ref().is_some_and(|(room, _)| room == name) {
            return format!("you are in {name} already");
        }
        self.leave("has left", Some(conn));
        let group = {
            let mut chat = self.chat();
            let new = || Room { group: Group::new(Overflow::Disconnect), nicks: Vec::new() };
            let room = chat.rooms.entry(name.to_string()).or_insert_with(new);
            room.nicks.push(self.nick.clone());
            room.group.clone()
        };
        group.join(conn);
        self.room = Some((name.to_string(), group));
        self.tell(conn, format!("* {} has joined", self.nick));
        self.who()
    }

    /// Who has no connection any more has left the group by itself.
    fn leave(&mut self, how: &str, conn: Option<&Connection<String>>) -> String {
        let Some((name, group)) = self.room.take() else {
            return "you are in no room".to_string();
        };
        if let Some(conn) = conn {
            group.leave(conn.id());
        }
        {
            let mut chat = self.chat();
            if let Some(room) = chat.rooms.get_mut(&name) {
                room.nicks.retain(|nick| *nick != self.nick);
                if room.nicks.is_empty() {
                    chat.rooms.remove(&name);
                }
            }
        }
        group.send(format!("* {} {how}", self.nick));
        format!("you have left {name}")
    }

    /// Takes another nickname, and gives the old one, or says why not.
    fn rename(&mut self, nick: &str) -> Result<String, String> {
        if !is_name(nick) {
            return Err(format!("a nickname has 1 to {LONGEST_NAME} letters and digits"));
        }
        let (old, new) = (self.nick.to_lowercase(), nick.to_lowercase());
        {
            let mut chat = self.chat();
            if old != new {
                if !chat.nicks.insert(new) {
                    return Err(format!("the name {nick} is taken"));
                }
                chat.nicks.remove(&old);
            }
            let room = self.room.as_ref().and_then(|(name, _)| chat.rooms.get_mut(name));
            for listed in room.into_iter().flat_map(|room| &mut room.nicks).filter(|listed| **listed == self.nick) {
                *listed = nick.to_string();
            }
        }
        Ok(std::mem::replace(&mut self.nick, nick.to_string()))
    }

    fn who(&self) -> String {
        let chat = self.chat();
        match self.room.as_ref().and_then(|(name, _)| Some((name, chat.rooms.get(name)?))) {
            Some((name, room)) => format!("in {name}: {}", room.nicks.join(", ")),
            None => "you are in no room".to_string(),
        }
    }

    fn rooms(&self) -> String {
        let list = |(name, room): (&String, &Room)| format!("{name} ({})", room.nicks.len());
        let rooms: Vec<String> = self.chat().rooms.iter().map(list).collect();
        if rooms.is_empty() { "there are no rooms".to_string() } else { format!("rooms: {}", rooms.join(", ")) }
    }
}

fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.chars().count())
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
}

/// Nobody moves another one's cursor, or turns their text around.
fn printable(text: &str) -> String {
    let harmful = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |c: char| if harmful(c) { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut endpoints: Vec<String> = std::env::args().skip(1).collect();
    if endpoints.is_empty() {
        endpoints = ["tcp://127.0.0.1:9001", "unix:///tmp/chat.sock"].map(Into::into).into();
    }
    // people think before they type
    let silence = Duration::from_secs(3600);
    let limits = Limits::edge().with_first_byte(silence).with_idle(silence).with_outbox(64 << 10);
    let mut server = Server::new(Member { chat: Arc::default(), nick: String::new(), room: None }).limits(limits);
    for endpoint in endpoints {
        server = server.bind(endpoint, Lines::new().max_length(1000));
    }
    let running = server.start().await?;
    running.endpoints().iter().for_each(|endpoint| println!("listening on {endpoint}"));
    running.until_signal().await?;
    Ok(())
}
