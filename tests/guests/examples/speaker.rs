//! A filter that asks for everything there is to know of a request, and of a response, and says it in
//! headers. A registrar that answers as the header `choose` says.

use message_flow_sdk::{
    Decision, Registrar, RequestFilter, ResponseFilter, Verdict, candidates, config, log, request, response,
};

struct Speaker;

impl RequestFilter for Speaker {
    fn on_request() -> Result<Verdict, String> {
        let service = request::service();
        let said = [
            ("method", request::method()),
            ("path", request::path()),
            ("query", format!("{:?}", request::query())),
            ("authority", request::authority()),
            ("client", request::client()),
            ("peer", request::peer()),
            ("service", format!("{}@{:?}", service.name, service.version)),
            ("server", format!("{:?}", request::server())),
            ("names", request::header_names().join(",")),
            ("every", format!("{:?}", request::headers("many"))),
            ("first", format!("{:?}", request::header("many"))),
            ("nothing", format!("{:?}, {:?}", request::header("empty"), request::header("missing"))),
            ("setting", format!("{:?}", config::get("setting"))),
        ];
        for (name, text) in said {
            request::set_header(&format!("said-{name}"), &text.escape_default().to_string());
        }
        request::add_header("many", "three");
        request::remove_header("empty");
        request::set_path("/elsewhere?q");
        log::log(log::Level::Info, "it spoke");
        match request::header("fault").as_deref() {
            Some("respond") => Ok(Verdict::respond(451, "not here")),
            Some("other") => Ok(Verdict::Other("thing".to_owned())),
            _ => Ok(Verdict::Forward),
        }
    }
}

impl ResponseFilter for Speaker {
    fn on_response() -> Result<(), String> {
        let said =
            format!("{} {:?} {:?}", response::status(), response::header_names(), response::headers("many"));
        response::set_header("said", &said);
        match response::header("fault").as_deref() {
            Some("error") => return Err("told to err".to_owned()),
            Some("status") => response::set_status(99),
            _ => response::set_status(418),
        }
        response::remove_header("many");
        Ok(())
    }
}

impl Registrar for Speaker {
    fn resolve() -> Result<Decision, String> {
        match request::header("choose").as_deref() {
            Some("server") => Ok(Decision::Server("http://a:1".to_owned())),
            Some("least") => {
                let near = candidates::least_loaded(&[("region", "eu"), ("disk", "fast")]);
                Ok(near.map_or(Decision::Pass, Decision::Server))
            }
            Some("too many") => {
                let _ = candidates::least_loaded(&[("region", "eu"); 9]);
                Ok(Decision::Pass)
            }
            Some("reject") => Ok(Decision::reject(451, "not here")),
            Some("other") => Ok(Decision::Other("thing".to_owned())),
            Some("error") => Err("no idea".to_owned()),
            _ => Ok(Decision::Pass),
        }
    }
}

message_flow_sdk::export!(Speaker: Registrar + RequestFilter + ResponseFilter);
