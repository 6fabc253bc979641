//! The README and that of every example, command by command.

use message_flow_tests::readme::{follow, follow_file};

#[tokio::test]
async fn the_readme() {
    follow_file("README.md").await;
}

#[tokio::test]
async fn quick_start() {
    follow("quick-start").await;
}

#[tokio::test]
async fn region_registrar() {
    follow("region-registrar").await;
}

#[tokio::test]
async fn stamp() {
    follow("stamp").await;
}

#[tokio::test]
async fn rate_limit() {
    follow("rate-limit").await;
}

#[tokio::test]
async fn blue_green() {
    follow("blue-green").await;
}
