//! A registrar that keeps clients in their region.
//!
//! A client that says where it is (in the `region` header) gets a server there, the one with the
//! least to do for its weight; a client that does not, or whose region has no server, gets the least
//! loaded of all. Servers say where they are in their metadata. Among equals each client has its own
//! favourite, the same at every router, so that idle servers share new clients.

use message_flow_sdk::{Decision, Registrar, candidates, config, request};

struct ByRegion;

message_flow_sdk::export!(ByRegion: Registrar);

impl Registrar for ByRegion {
    fn resolve() -> Result<Decision, String> {
        let near = region().and_then(|region| candidates::least_loaded(&[("region", &region)]));
        let chosen = near.or_else(|| candidates::least_loaded(&[]));
        Ok(chosen.map_or(Decision::Pass, Decision::Server))
    }
}

/// Where the client says that it is.
fn region() -> Option<String> {
    request::header(config::get("header").as_deref().unwrap_or("region"))
}

#[cfg(test)]
mod tests {
    use message_flow_sdk::testing::Scene;

    use super::*;

    fn scene() -> Scene {
        let eu = [("region", "eu")];
        Scene::new()
            .server("eu-1", &eu)
            .in_flight(3)
            .server("eu-2", &eu)
            .in_flight(2)
            .server("us-1", &[("region", "us")])
            .in_flight(1)
    }

    fn chosen(mut scene: Scene) -> String {
        match scene.resolve::<ByRegion>() {
            Ok(Decision::Server(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn clients_stay_in_their_region() {
        assert_eq!(chosen(scene().header("region", "eu")), "eu-2");
        assert_eq!(chosen(scene().header("region", "us")), "us-1");
    }

    #[test]
    fn others_get_the_least_loaded() {
        assert_eq!(chosen(scene()), "us-1");
        assert_eq!(chosen(scene().header("region", "")), "us-1");
        assert_eq!(chosen(scene().header("region", "moon")), "us-1");
    }

    #[test]
    fn the_header_can_be_configured() {
        assert_eq!(
            chosen(scene().config("header", "x-geo").header("x-geo", "eu").header("region", "us")),
            "eu-2"
        );
    }

    #[test]
    fn load_is_measured_by_weight_and_health_comes_first() {
        let mut heavy = scene().header("region", "eu");
        heavy.servers[0].weight = 3;
        assert_eq!(chosen(heavy.clone()), "eu-1");
        heavy.servers[0].healthy = false;
        assert_eq!(chosen(heavy.clone()), "eu-2");
        heavy.servers[1].weight = 0;
        assert_eq!(chosen(heavy), "eu-1");
    }

    #[test]
    fn equals_share_the_clients() {
        let equals = || Scene::new().server("a", &[]).server("b", &[]);
        let clients = (0..100).map(|n| chosen(equals().client(&format!("c{n}"))));
        let of_a = clients.filter(|id| id == "a").count();
        assert!((20..80).contains(&of_a), "{of_a}");
        assert_eq!(chosen(equals().client("ann")), chosen(equals().client("ann")));
    }

    #[test]
    fn without_servers_it_has_no_opinion() {
        assert_eq!(Scene::new().resolve::<ByRegion>(), Ok(Decision::Pass));
    }
}
