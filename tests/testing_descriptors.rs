//! Descriptors that are left are found. One test alone in its process, as it counts the process's.

#![cfg(all(feature = "testing", target_os = "linux"))]

mod testing_support;

use std::fs::File;

use hythe::testing::LeakCheck;
use testing_support::failure;

#[tokio::test(start_paused = true)]
async fn a_descriptor_that_is_left_is_named() {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    let kept = File::open("/dev/null").expect("a file");
    let check = LeakCheck::start().with_descriptors();
    drop(File::open("/proc/self/status").expect("a file"));
    check.finish().await;

    let check = LeakCheck::start().with_descriptors();
    let left = File::open("/proc/self/status").expect("a file");
    let text = failure(check.finish()).await;
    assert!(text.contains("is open: /proc/") && text.ends_with("/status"), "{text}");
    drop((kept, left));
}
