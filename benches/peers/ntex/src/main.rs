//! ntex, on tokio: a codec of one's own, and whole messages.

use std::io::{Error, ErrorKind};

use common::{LONGEST, Task};
use ntex::codec::{Decoder, Encoder};
use ntex::fn_service;
use ntex::io::Io;
use ntex::util::{BufMut, BytePages, Bytes, BytesMut};

struct LengthDelimited;

impl Decoder for LengthDelimited {
    type Item = Bytes;
    type Error = Error;

    fn decode(&self, input: &mut BytesMut) -> Result<Option<Bytes>, Error> {
        let Some(prefix) = input.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > LONGEST {
            return Err(ErrorKind::InvalidData.into());
        }
        if input.len() < 4 + length {
            return Ok(None);
        }
        let mut frame = input.split_to(4 + length);
        Ok(Some(frame.split_off(4)))
    }
}

impl Encoder for LengthDelimited {
    type Item = Bytes;
    type Error = Error;

    fn encodev(&self, message: Bytes, output: &mut BytePages) -> Result<(), Error> {
        output.put_u32(message.len() as u32);
        output.append(message);
        Ok(())
    }
}

/// What is encoded is written when the loop waits for the next message.
async fn echo(io: Io) -> Result<(), Error> {
    while let Some(message) = io.recv(&LengthDelimited).await.map_err(|_| ErrorKind::InvalidData)? {
        io.encode(message, &LengthDelimited)?;
        // waits only where too much is unsent
        io.flush(false).await?;
    }
    Ok(())
}

#[ntex::main]
async fn main() -> std::io::Result<()> {
    let task = Task::from_args();
    let server = ntex::server::build().workers(1).maxconn(20_000).disable_signals();
    let listener = task.listener()?;
    let server = if task.mode == "unix" {
        server.listen_uds("echo", listener.into(), async |_| fn_service(echo))?
    } else {
        server.listen("echo", listener.into(), async |_| fn_service(echo))?
    };
    server.run().await
}
