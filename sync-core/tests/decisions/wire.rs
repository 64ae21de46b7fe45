//! The JSON bodies on the wire, as snapshots: a changed byte is seen in review.

use crate::device::Device;
use crate::server::TinyServer;

fn json<T: serde::Serialize>(message: &T) -> String {
    serde_json::to_string(message).unwrap()
}

#[test]
fn a_first_push_and_its_answer() {
    let (mut server, mut device) = (TinyServer::new(), Device::new(1));
    device.write(r#"a={"x":1} b-"#);
    let request = device.request(true).unwrap();
    insta::assert_snapshot!(json(&request), @r#"{"name":"tables","push":{"device":"01010101010101010101010101010101","sequence":1,"groups":[{"change_id":"00010000000000030001000000000004","patches":[{"key":"a","op":{"replace":[{"x":1},"base"]},"base":0,"time":500}]}]}}"#);
    insta::assert_snapshot!(json(&server.sync(&request)), @r#"{"name":"tables","push":{"sequence":1,"ack":{"epoch":"005e000000000001005e000000000002","count":1,"tag":"005e000000000003"},"groups":[{"status":"applied"}]},"page":{"records":[{"key":"a","state":{"value":{"x":1}},"count":1,"by":"01010101010101010101010101010101","at":1000,"time":500}],"position":{"epoch":"005e000000000001005e000000000002","count":1,"tag":"005e000000000003"},"line":[{"epoch":"005e000000000001005e000000000002","start":0,"why":"created"}],"tags":[[1,"005e000000000003"]],"digest":"481c5e955774192f64ea96f39714f42a","total":1}}"#);
}

#[test]
fn a_merge_and_a_removal() {
    let (mut server, mut device) = (TinyServer::new(), Device::new(1));
    device.write(r#"a={"x":1} b=1"#);
    device.sync(&mut server);
    device.write(r#"a={"x":2,"y":{"$bytes":"AA=="}} b-"#);
    let request = device.request(true).unwrap();
    insta::assert_snapshot!(json(&request), @r#"{"name":"tables","cursor":{"epoch":"005e000000000001005e000000000002","count":1,"tag":"005e000000000003"},"push":{"device":"01010101010101010101010101010101","sequence":2,"groups":[{"change_id":"00010000000000070001000000000008","patches":[{"key":"a","op":{"merge":{"fields":{"x":{"set":2},"y":{"set":{"$bytes":"AA=="}}}}},"base":1,"time":500},{"key":"b","op":{"remove":"nothing"},"base":1,"time":500}]}]}}"#);
    insta::assert_snapshot!(json(&server.sync(&request)), @r#"{"name":"tables","push":{"sequence":2,"ack":{"epoch":"005e000000000001005e000000000002","count":2,"tag":"005e000000000004"},"groups":[{"status":"applied"}]},"page":{"records":[{"key":"a","state":{"value":{"x":2,"y":{"$bytes":"AA=="}}},"count":2,"by":"01010101010101010101010101010101","at":1000,"time":500},{"key":"b","state":{"removed":"removed"},"count":2,"by":"01010101010101010101010101010101","at":1000,"time":500}],"position":{"epoch":"005e000000000001005e000000000002","count":2,"tag":"005e000000000004"},"line":[{"epoch":"005e000000000001005e000000000002","start":0,"why":"created"}],"tags":[[1,"005e000000000003"],[2,"005e000000000004"]],"digest":"0806332f2bbaafc56212fb90d5a86623","total":1}}"#);
}

#[test]
fn a_cursor_off_the_line() {
    let (mut server, mut device) = (TinyServer::new(), Device::new(1));
    device.write("a=1");
    device.sync(&mut server);
    insta::assert_snapshot!(json(&TinyServer::new().sync(&device.request(true).unwrap())), @r#"{"name":"tables","reset":{"lineage":{"entries":[],"count":0,"tags":{}},"floor":0}}"#);
}
