//! Over a transport of messages each one means what the codec makes of it alone, however the session and the transport
//! stall; what it sends goes out as one message each, in order.
#![no_main]

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use bytes::BytesMut;
use hythe::CloseReason;
use hythe::codec::{CodecError, Datagram};
use hythe::fuzzing::drive_messages;
use hythe_fuzz::{Choice, FromBytes, Len, Script, Told, Visit, decode, echo, limits, reason, run};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use tokio_util::codec::{Decoder, Encoder};

#[derive(Arbitrary, Debug)]
struct Input {
    /// `None`: a datagram is a message.
    choice: Option<Choice>,
    limit: u8,
    /// An invalid message is not the end.
    outlives: bool,
    outbox: u16,
    writes: Vec<u8>,
    patience: Vec<u8>,
    wire: Vec<Vec<u8>>,
}

type Expected<T> = (Vec<T>, Option<CloseReason>);

impl Input {
    fn check<C, T>(self, codec: C, (messages, end): Expected<T>)
    where
        C: Decoder<Item = T, Error = CodecError> + Encoder<T, Error = CodecError> + Clone + Send + 'static,
        T: Debug + PartialEq + Clone + Send + 'static,
    {
        let mut answers = Vec::new();
        let mut sent = messages.clone();
        sent.retain(|message| {
            let mut answer = BytesMut::new();
            let taken = codec.clone().encode(message.clone(), &mut answer).is_ok();
            if taken {
                answers.push(answer.to_vec());
            }
            taken
        });

        let told = Arc::new(Mutex::new(Told { messages: Vec::new(), sent: Vec::new(), end: None }));
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut script, writes) = (Script::new(self.writes), Arc::clone(&written));
        let write = move |message: &[u8]| {
            let takes = script.next().is_some();
            if takes {
                writes.lock().unwrap().push(message.to_vec());
            }
            takes
        };
        let limits = limits().with_outbox(usize::from(self.outbox).max(1));
        let patience = Script::new(self.patience);
        let session = |conn| echo(conn, patience, Arc::clone(&told));
        let closed = run(drive_messages(codec, (self.wire.into(), self.outlives), write, limits, session));

        let told = told.lock().unwrap();
        assert_eq!((&told.messages, told.end), (&messages, end));
        assert_eq!(told.sent, sent);
        assert_eq!(closed.reason, end.unwrap_or(CloseReason::PeerClosed));
        let written = written.lock().unwrap();
        assert_eq!(written[..], answers[..written.len()]);
        assert_eq!(closed.unsent_bytes, answers[written.len()..].iter().map(Vec::len).sum::<usize>() as u64);
        assert!(end.is_some() || written.len() == answers.len());
    }
}

impl Visit for Input {
    fn visit<C, T>(self, codec: C, limit: usize)
    where
        C: Decoder<Item = T, Error = CodecError> + Encoder<T, Error = CodecError> + Clone + Send + 'static,
        T: Debug + PartialEq + Clone + Len + FromBytes + Send + 'static,
    {
        let (mut messages, mut end) = (Vec::new(), None);
        for wire in &self.wire {
            let (of_one, error) = decode(&codec, limit, [&wire[..]]);
            messages.extend(of_one);
            end = error.map(reason).filter(|_| !self.outlives);
            if end.is_some() {
                break;
            }
        }
        self.check(codec, (messages, end));
    }
}

thread_local! {
    static CLOCK: Runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
}

fuzz_target!(|input: Input| {
    CLOCK.with(|clock| {
        let _clock = clock.enter();
        if let Some(choice) = input.choice.clone() {
            return choice.visit(input);
        }
        let limit = usize::from(input.limit);
        let mut messages = input.wire.clone();
        let fits = messages.iter().take_while(|message| message.len() <= limit).count();
        let end = (fits < messages.len() && !input.outlives).then_some(CloseReason::TooLarge);
        if input.outlives {
            messages.retain(|message| message.len() <= limit);
        } else {
            messages.truncate(fits);
        }
        let messages = messages.into_iter().map(Into::into).collect();
        input.check(Datagram::new().max_length(limit), (messages, end));
    });
});
