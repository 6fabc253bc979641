//! `[[route]]`.

use message_flow_tests::{Gateway, Upstream};

#[tokio::test]
async fn the_first_that_matches_decides() {
    let upstreams = [Upstream::start("a").await, Upstream::start("b").await, Upstream::start("c").await];
    let services: String = ["a", "b", "c"]
        .iter()
        .zip(&upstreams)
        .map(|(name, upstream)| format!("[service.{name}]\nserver = \"{}\"\n", upstream.uri()))
        .collect();
    let config = services
        + "[[route]]\nhost = \"a.example.com\"\nservice = \"a\"\n\
           [[route]]\nhost = \"*.example.com\"\npath = \"/v1/\"\nservice = \"b\"\n\
           [[route]]\nmethod = \"POST\"\nservice = \"c\"\n\
           [[route]]\nheaders = { kind = \"special\" }\nservice = \"c\"\n";
    let gateway = Gateway::setup().config(config).start().await;
    let send = async |method: &str, host: &str, path: &str, kind: &str| {
        gateway.call(method, path).header("host", host).header("kind", kind).send().await
    };

    assert_eq!(send("GET", "a.example.com", "/x", "").await.expect(200).text(), "a");
    assert_eq!(send("GET", "A.Example.com:8080", "/x", "").await.expect(200).text(), "a");
    assert_eq!(send("GET", "z.example.com", "/v1/x", "").await.expect(200).text(), "b");
    assert_eq!(send("POST", "elsewhere.test", "/x", "").await.expect(200).text(), "c");
    assert_eq!(send("GET", "elsewhere.test", "/x", "special").await.expect(200).text(), "c");
    send("GET", "elsewhere.test", "/x", "usual").await.problem(404);
    send("GET", "z.example.com", "/v10/x", "").await.problem(404);
    send("GET", "elsewhere.test", "/a/x", "").await.problem(404);
}
