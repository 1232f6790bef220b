//! Buffers that belong to a thread while no connection needs them, so that an idle connection holds none.

use std::cell::Cell;

use bytes::BytesMut;

/// What one read takes at most, in bytes: a little more than 64 KiB of messages with their framing.
pub(crate) const READ: usize = 80 << 10;
/// A larger buffer than this is given back to the allocator.
pub(crate) const KEEP: usize = 256 << 10;

/// What the buffers of one thread may take, in bytes: the stage, a roll, and one for each direction.
pub(crate) const THREAD: usize = 4 * KEEP;

thread_local! {
    static READER: Cell<Option<BytesMut>> = const { Cell::new(None) };
    static WRITER: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// An empty buffer with room for one read.
pub(crate) fn take_read() -> BytesMut {
    let mut buffer = READER.take().unwrap_or_default();
    if buffer.capacity() < READ / 2 {
        buffer.reserve(READ);
    }
    buffer
}

/// Gives back a read buffer; its content is of no use any more.
pub(crate) fn give_read(mut buffer: BytesMut) {
    if (1..=KEEP).contains(&buffer.capacity()) {
        buffer.clear();
        READER.set(Some(buffer));
    }
}

/// An empty buffer for outgoing messages.
pub(crate) fn take_write() -> BytesMut {
    WRITER.take().unwrap_or_default()
}

/// Gives back a write buffer; its content is of no use any more.
pub(crate) fn give_write(mut buffer: BytesMut) {
    if (1..=KEEP).contains(&buffer.capacity()) {
        buffer.clear();
        WRITER.set(Some(buffer));
    }
}
