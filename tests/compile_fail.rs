//! What the compiler says to the usual mistakes names the mistake. The texts are those of the toolchain that the
//! repository is built with; `TRYBUILD=overwrite cargo test --test compile_fail` writes them anew.

#![cfg(all(feature = "tcp", feature = "udp", feature = "unix"))]

#[test]
fn mistakes_are_named() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
