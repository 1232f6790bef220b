//! No text makes the parser panic; an endpoint prints text that parses to itself; an error stays short and printable.
#![no_main]

use hythe::Endpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match text.parse::<Endpoint>() {
        Ok(endpoint) => {
            let printed = endpoint.to_string();
            assert_eq!(printed.parse::<Endpoint>().as_ref(), Ok(&endpoint), "{printed:?}");
            assert_eq!(endpoint.to_string(), printed);
            assert!(printed.starts_with(endpoint.scheme()), "{printed:?}");
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.len() <= 1024, "{} bytes: {message:?}", message.len());
            assert!(!message.chars().any(char::is_control), "{message:?}");
        }
    }
});
