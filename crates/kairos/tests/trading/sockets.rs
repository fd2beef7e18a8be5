//! The WebSocket diagnostic: it tells who it is, echoes, and is closed with 1001 when the service ends.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use crate::support;

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_greets_echoes_and_is_sent_away_on_termination() {
    let mut gateway = support::start(support::GATEWAY, &[("SERVICE_SLOT", "blue"), ("SERVICE_VERSION", "1.2.3")]);
    let url = format!("ws://{}/ws", gateway.address);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("connected");
    let greeting = socket.next().await.expect("a frame").expect("received").into_text().expect("a text");
    let greeting: serde_json::Value = serde_json::from_str(&greeting).expect("JSON");
    assert_eq!(greeting, serde_json::json!({"slot": "blue", "version": "1.2.3"}));
    socket.send(Message::text("hello")).await.expect("sent");
    assert_eq!(socket.next().await.expect("a frame").expect("received"), Message::text("hello"));

    gateway.terminate();
    match socket.next().await.expect("a frame").expect("received") {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1001),
        other => panic!("not a close frame: {other:?}"),
    }
    while socket.next().await.is_some() {}
    assert_eq!(gateway.ended().code(), Some(0));
}
