//! Models of what a server's threads share: the permits, and the drain.

mod drain;
mod permits;
