//! message-io. Its transport `Tcp` gives whatever has arrived, so that frames are put together here; its `FramedTcp` has
//! another format.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use common::{Task, ready, whole_frames};
use message_io::network::{Endpoint, NetEvent, Transport};
use message_io::node;

fn main() {
    let task = Task::from_args();
    let transport = if task.mode == "udp" { Transport::Udp } else { Transport::Tcp };
    let (handler, listener) = node::split::<()>();
    let (_, address) = handler.network().listen(transport, (Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    ready(&address.to_string());
    // the connections, each with the part of a frame that has arrived
    let mut parts: HashMap<Endpoint, Vec<u8>> = HashMap::new();
    let answer = |parts: &HashMap<Endpoint, Vec<u8>>, from: Endpoint, frames: &[u8]| {
        if task.mode == "fan-out" {
            for to in parts.keys() {
                handler.network().send(*to, frames);
            }
        } else {
            handler.network().send(from, frames);
        }
    };
    listener.for_each(|event| match event.network() {
        NetEvent::Message(from, datagram) if transport == Transport::Udp => {
            handler.network().send(from, datagram);
        }
        NetEvent::Message(from, arrived) => {
            let mut part = parts.get_mut(&from).map(std::mem::take).unwrap_or_default();
            if part.is_empty() {
                let Some(whole) = whole_frames(arrived) else { return };
                if whole > 0 {
                    answer(&parts, from, &arrived[..whole]);
                }
                part.extend_from_slice(&arrived[whole..]);
            } else {
                part.extend_from_slice(arrived);
                let Some(whole) = whole_frames(&part) else { return };
                if whole > 0 {
                    answer(&parts, from, &part[..whole]);
                    part.drain(..whole);
                }
            }
            parts.insert(from, part);
        }
        NetEvent::Accepted(from, _) => drop(parts.insert(from, Vec::new())),
        NetEvent::Disconnected(from) => drop(parts.remove(&from)),
        NetEvent::Connected(..) => {}
    });
}
