//! A filter that answers with its configuration and with what it sees of the message, as lines.

use message_flow_sdk::{RequestFilter, Verdict, config, request};

struct EchoConfig;

impl RequestFilter for EchoConfig {
    fn on_request() -> Result<Verdict, String> {
        let service = request::service();
        let mut lines: Vec<_> =
            config::entries().into_iter().map(|(key, value)| format!("config {key}={value}")).collect();
        lines.push(format!("method={}", request::method()));
        lines.push(format!("path={}", request::path()));
        lines.push(format!("query={:?}", request::query()));
        lines.push(format!("authority={}", request::authority()));
        lines.push(format!("client={}", request::client()));
        lines.push(format!("peer={}", request::peer()));
        lines.push(format!("service={} {:?}", service.name, service.version));
        lines.push(format!("server={:?}", request::server()));
        lines.push(format!("many={:?}", request::headers("many")));
        Ok(Verdict::respond(200, lines.join("\n")))
    }
}

message_flow_sdk::export!(EchoConfig: RequestFilter);
