//! What is wrong with a certificate or a key is said when it is loaded, with the name of its file.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used)] // Tests may.

mod tls_support;

use std::error::Error as _;
use std::path::Path;

use hythe::tls::{ClientTls, Pem, ServerTls};
use hythe::{Error, ErrorKind};
use tempfile::TempDir;
use tls_support::{Authority, Identity};

struct Files {
    dir: TempDir,
    authority: Authority,
    identity: Identity,
}

impl Files {
    fn new() -> Self {
        let authority = Authority::new();
        let identity = authority.server(&["localhost"]);
        let files = Self { dir: TempDir::new().unwrap(), authority, identity };
        files.identity.write(files.dir.path());
        files
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn build(&self) -> Result<ServerTls, Error> {
        ServerTls::from_pem_files(self.path("chain.pem"), self.path("key.pem")).build()
    }

    /// The error, without the directory.
    #[track_caller]
    fn error(&self) -> String {
        self.text(self.build().unwrap_err())
    }

    fn text(&self, error: Error) -> String {
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string().replace(&format!("{}/", self.dir.path().display()), "")
    }
}

#[test]
fn a_chain_and_its_key_are_taken() {
    let files = Files::new();
    files.build().unwrap();
    // one file for both, and an issuer after the certificate
    let all = format!("{}{}{}", files.identity.chain, files.authority.pem, files.identity.key);
    files.write("all.pem", all);
    ServerTls::from_pem_files(files.path("all.pem"), files.path("all.pem")).build().unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_cause() {
    let files = Files::new();
    std::fs::remove_file(files.path("key.pem")).unwrap();
    let error = files.build().unwrap_err();
    let cause = error.source().unwrap().downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(cause.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(files.text(error), "key.pem cannot be read");
}

#[test]
fn what_is_missing_is_said_and_what_is_there_instead() {
    let files = Files::new();
    let Identity { chain, key, .. } = &files.identity;
    files.write("chain.pem", key);
    assert_eq!(files.error(), "chain.pem contains no certificate, but a private key");
    files.write("chain.pem", "");
    assert_eq!(files.error(), "chain.pem contains no certificate: it is empty");
    files.write("chain.pem", "hello");
    assert_eq!(files.error(), "chain.pem contains no certificate: it is not PEM");
    files.write("chain.pem", &files.identity.der);
    assert!(files.error().starts_with("chain.pem contains no certificate: it is not PEM; it looks like DER"));
    files.write("chain.pem", chain);
    files.write("key.pem", chain);
    assert_eq!(files.error(), "key.pem contains no private key, but a certificate");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let files = Files::new();
    let other = files.authority.server(&["localhost"]);
    files.write("key.pem", &other.key);
    assert_eq!(files.error(), "the private key in key.pem does not belong to the certificate in chain.pem");
    files.write("chain.pem", format!("{}{}", files.identity.chain, other.chain));
    let text = "the private key in key.pem does not belong to the certificate in chain.pem: \
                the one that it belongs to must come first";
    assert_eq!(files.error(), text);
}

#[test]
fn an_encrypted_key_is_called_so() {
    let files = Files::new();
    let label = files.identity.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    files.write("key.pem", label);
    assert!(files.error().starts_with("key.pem contains an encrypted private key"), "{}", files.error());
    let text = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                -----END EC PRIVATE KEY-----\n";
    files.write("key.pem", text);
    assert!(files.error().starts_with("key.pem contains an encrypted private key"), "{}", files.error());
}

#[test]
fn torn_and_wrong_text_is_refused_and_never_shown() {
    let files = Files::new();
    let Identity { chain, key, .. } = &files.identity;
    let cut = |text: &str, at: usize| text.get(..at).unwrap().to_owned();
    files.write("chain.pem", cut(chain, chain.len() - 30));
    assert_eq!(files.error(), "chain.pem is no valid PEM: a section has no end line");
    files.write("chain.pem", chain);
    files.write("key.pem", cut(key, key.len() - 30));
    assert_eq!(files.error(), "key.pem is no valid PEM: a section has no end line");
    files.write("key.pem", "-----BEGIN PRIVATE KEY-----\nsecret?secret\n-----END PRIVATE KEY-----\n");
    assert_eq!(files.error(), "key.pem is no valid PEM: a section is not base64");
    assert!(!format!("{:?}", files.build().unwrap_err()).contains("secret"));
    files.write("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert_eq!(files.error(), "key.pem contains a private key that cannot be used");
    files.write("key.pem", key);
    files.write("chain.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_eq!(files.error(), "chain.pem contains a certificate that cannot be used");
}

#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let zero = Path::new("/dev/zero");
    if zero.exists() {
        let error = ServerTls::from_pem_files(zero, zero).build().unwrap_err();
        assert_eq!(error.to_string(), "/dev/zero cannot be read");
    }
}

#[test]
fn debug_shows_no_key() {
    let files = Files::new();
    let tls = files.identity.server_tls();
    let (chain, key) = files.identity.pems();
    let client = files.authority.client_tls().client_certificate(chain, key);
    let shown = format!("{tls:?} {client:?} {:?} {:?}", tls.clone().build().unwrap(), client.clone().build().unwrap());
    for line in files.identity.key.lines() {
        assert!(!shown.contains(line), "{shown}");
    }
    assert!(format!("{:?}", files.build().unwrap()).contains("key.pem"), "files are named");
}

#[test]
fn authorities_and_names_are_checked_as_well() {
    let files = Files::new();
    files.write("ca.pem", "");
    let ca = || Pem::file(files.path("ca.pem"));
    let error = files.identity.server_tls().client_auth_required(ca()).build().unwrap_err();
    assert_eq!(files.text(error), "ca.pem contains no certificate: it is empty");
    let error = ClientTls::builder().only_roots(ca()).build().unwrap_err();
    assert_eq!(files.text(error), "ca.pem contains no certificate: it is empty");
    let error = files.authority.client_tls().server_name("a name").build().unwrap_err();
    assert!(files.text(error).contains("\"a name\""));
    let error = files.identity.server_tls().alpn(["h2", ""]).build().unwrap_err();
    assert_eq!(files.text(error), "a protocol's name for ALPN has 1 to 255 bytes: 0 are no name");
}

#[test]
fn a_reload_keeps_what_is_in_use_where_a_file_is_broken() {
    let files = Files::new();
    let tls = files.build().unwrap();
    assert!(!tls.reload().unwrap(), "nothing is new");
    files.write("key.pem", "");
    assert_eq!(files.text(tls.reload().unwrap_err()), "key.pem contains no private key: it is empty");
    files.write("key.pem", &files.identity.key);
    assert!(!tls.reload().unwrap(), "what is there is what is in use");
    files.authority.server(&["localhost"]).write(files.dir.path());
    assert!(tls.reload().unwrap());
}

#[test]
fn files_are_watched_in_a_runtime_only() {
    let files = Files::new();
    let error = files.build().unwrap().watch(std::time::Duration::from_secs(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}
