//! Any text as a certificate, as a key and as an authority: an error or a configuration, and an error is one line that does
//! not show the text.
#![no_main]

use hythe::tls::{ClientTls, Pem, ServerTls};
use libfuzzer_sys::fuzz_target;

const CHAIN: &str = include_str!("../data/chain.pem");
const KEY: &str = include_str!("../data/key.pem");

fuzz_target!(|text: &[u8]| {
    check(ServerTls::from_pem(text, KEY).build());
    check(ServerTls::from_pem(CHAIN, text).build());
    check(ServerTls::from_pem(text, text).build());
    check(ServerTls::from_pem(CHAIN, KEY).client_auth_required(Pem::text(text)).build());
    check(ClientTls::builder().only_roots(Pem::text(text)).build());
});

fn check<T>(result: Result<T, hythe::Error>) {
    if let Err(error) = result {
        let text = error.to_string();
        assert!(!text.is_empty() && text.len() < 1000 && !text.contains('\n'), "{text}");
    }
}
