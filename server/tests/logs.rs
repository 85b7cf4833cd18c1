//! What tasks wrote: ordered by an operator, answered by the node whose allocation it is, read by whoever may order it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::Write;

use skerry_wire::api::{LogRequest, PlanRequest, Submitter};
use skerry_wire::logs::{LogAnswer, LogLines, LogOrder};
use skerry_wire::{AllocId, Blob, LogOrderId, limits};
use support::job::{job, submit};
use support::node::TestNode;
use support::{TestImage, TestServer, code, noise};

fn request(task: Option<&str>, lines: u32) -> LogRequest {
    let submitter = Submitter { name: "Ada".to_owned(), email: "ada@example.org".to_owned() };
    LogRequest { task: task.map(str::to_owned), lines, submitter }
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(text).unwrap();
    packer.finish().unwrap()
}

/// A poll that answers an order; the next order, if there is one.
async fn answer(server: &TestServer, node: &mut TestNode, id: LogOrderId, lines: Result<Vec<u8>, String>) -> Option<LogOrder> {
    let lines = lines.map(|packed| LogLines { task: "web".to_owned(), packed: Blob(packed), cut: true });
    let mut message = node.next();
    message.log = Some(Box::new(LogAnswer { id, lines }));
    node.send(&server.url, &message).await.unwrap().log
}

#[tokio::test]
async fn output_comes_from_its_node_once_it_polls() {
    let mut server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    TestImage::new("till:1", &[&noise(1, 20_000)]).publish(&client, &key).await.unwrap();
    let token = TestNode::token(server.folder.path());
    let mut node = TestNode::new(server.folder.path(), "one");
    node.enrol(&server.url, &token).await.unwrap();
    node.tell_facts(&server.url).await.unwrap();
    let plan = client.plan_job(&PlanRequest { job: job("till", "till:1") }).await.unwrap();
    submit(&client, &key, plan.job.unwrap()).await.unwrap();
    let mut other = TestNode::new(server.folder.path(), "two");
    other.enrol(&server.url, &token).await.unwrap();
    let alloc = client.allocs().await.unwrap()[0].id;
    assert_eq!(node.poll(&server.url).await.unwrap().log, None);

    // What cannot be ordered.
    let stranger = AllocId::new([7; 16]);
    assert_eq!(code(client.order_log(&stranger, &request(None, 5)).await), "404 unknown_alloc");
    for wrong in [request(None, 0), request(None, limits::LOG_LINES + 1), request(Some(""), 5)] {
        assert_eq!(code(client.order_log(&alloc, &wrong).await), "422 bad_log_order");
    }
    assert_eq!(code(client.log_order(&LogOrderId::new([7; 16])).await), "404 unknown_log_order");

    // Ordered twice it is one order; a restart of the server forgets neither order nor answer.
    let first = client.order_log(&alloc, &request(None, 5)).await.unwrap();
    assert_eq!(client.order_log(&alloc, &request(None, 5)).await.unwrap().id, first.id);
    let second = client.order_log(&alloc, &request(Some("web"), 7)).await.unwrap();
    assert_eq!((first.node, first.answered_at, second.lines), (node.id, None, 7));
    server.restart().await;
    let client = server.client();
    let told = LogOrder { id: first.id, alloc, task: None, lines: 5 };
    assert_eq!(node.poll(&server.url).await.unwrap().log, Some(told.clone()));
    assert_eq!(node.poll(&server.url).await.unwrap().log, Some(told), "until it is answered");

    // Another node's answer is passed over, and so is one to no order.
    let forged = zlib(b"forged\n");
    assert_eq!(answer(&server, &mut other, first.id, Ok(forged.clone())).await, None);
    answer(&server, &mut node, LogOrderId::new([7; 16]), Ok(forged)).await;
    assert_eq!(client.log_order(&first.id).await.unwrap().answered_at, None);
    let next = answer(&server, &mut node, first.id, Ok(zlib("caf\u{e9}\n".as_bytes()))).await;
    assert_eq!(next.map(|o| o.id), Some(second.id));
    answer(&server, &mut node, first.id, Ok(zlib(b"again\n"))).await;
    let read = client.log_order(&first.id).await.unwrap();
    assert_eq!((read.text.as_deref(), read.task.as_deref(), read.cut, read.error), (Some("caf\u{e9}\n"), Some("web"), true, None));
    assert!(read.answered_at.is_some());

    // What a node sends beyond what is agreed is not kept.
    let order = async |lines| client.order_log(&alloc, &request(Some("web"), lines)).await.unwrap().id;
    let bomb = zlib(&vec![0; limits::LOG_TEXT + 1]);
    for (lines, sent, said) in [
        (7, Ok(b"no zlib".to_vec()), "cannot be read: it is not packed as agreed"),
        (8, Ok(bomb), "more than 1048576 bytes"),
        (9, Ok(vec![0; limits::LOG_ANSWER + 1]), "more than the 65536 bytes"),
        (10, Err("the engine is gone".to_owned()), "the engine is gone"),
    ] {
        let id = order(lines).await;
        answer(&server, &mut node, id, sent).await;
        let read = client.log_order(&id).await.unwrap();
        assert!(read.text.is_none() && read.error.as_ref().is_some_and(|e| e.contains(said)), "{said}: {:?}", read.error);
    }

    // A node that is away is not given orders without end.
    for lines in 1..=limits::LOG_ORDERS {
        order(lines).await;
    }
    assert_eq!(code(client.order_log(&alloc, &request(None, 9999)).await), "409 too_many");
    server.stop().await;
}
