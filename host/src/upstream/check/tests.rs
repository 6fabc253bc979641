//! When servers are asked, and whom the answers concern: with a clock that is moved by hand and
//! servers that answer as they are told.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::{Instant, advance, sleep};

use super::{
    probe::{Ask, Outcome, REST},
    *,
};
use crate::upstream::{Metrics, UpstreamOptions};

/// Servers that answer as they are told, and every time at which one was asked.
#[derive(Default)]
struct World {
    unwell: AtomicBool,
    local: AtomicBool,
    /// Seconds until an answer comes.
    slow: AtomicUsize,
    asked: Mutex<Vec<(String, Instant)>>,
}

struct Rig {
    checks: Checks,
    endpoints: Arc<Endpoints>,
    world: Arc<World>,
}

fn rig() -> Rig {
    let world = Arc::<World>::default();
    let asked = Arc::clone(&world);
    let ask: Arc<Ask> = Arc::new(move |endpoint, path, _| {
        let world = Arc::clone(&asked);
        async move {
            let question = format!("{}{}", endpoint.uri, path.as_deref().unwrap_or_default());
            world.asked.lock().push((question, Instant::now()));
            sleep(Duration::from_secs(world.slow.load(SeqCst) as u64)).await;
            match (world.local.load(SeqCst), world.unwell.load(SeqCst)) {
                (true, _) => Outcome::Unknown,
                (false, true) => Outcome::Unwell,
                (false, false) => Outcome::Well,
            }
        }
        .boxed()
    });
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let endpoints = Endpoints::new(UpstreamOptions::default(), metrics);
    let tasks = (Handle::current(), Supervisor::default());
    let prober = Prober::new(tasks, ask, endpoints.metrics().checks.clone());
    Rig { checks: Checks::asking(endpoints.board().clone(), prober), endpoints, world }
}

fn health(json: &str) -> HealthCheck {
    serde_json::from_str(json).unwrap()
}

impl Rig {
    /// Has the server `a` of a service checked like this.
    fn set(&self, service: &str, uri: &str, health: &HealthCheck) -> Arc<Verdict> {
        let endpoint = self.endpoints.get(&uri.parse().unwrap());
        let wanted = Wanted { server: "a".into(), endpoint: &endpoint, health };
        self.checks.set(&service.parse().unwrap(), &[wanted]).remove(0)
    }

    fn told(&self) -> Vec<String> {
        let failing = self.endpoints.failing();
        let mut told: Vec<_> = failing
            .borrow()
            .iter()
            .flat_map(|(service, servers)| servers.iter().map(move |server| format!("{service}/{server}")))
            .collect();
        told.sort();
        told
    }

    fn asked(&self) -> Vec<(String, Instant)> {
        self.world.asked.lock().clone()
    }
}

/// Lets so many seconds pass, one after the other.
async fn pass(seconds: u64) {
    for _ in 0..seconds * 10 {
        advance(Duration::from_millis(100)).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
}

const OFTEN: &str = r#"{"path":"/h","interval":"1s","timeout":"1s","unhealthy_after":2,"healthy_after":2}"#;

#[tokio::test(start_paused = true)]
async fn a_verdict_is_its_services_own() {
    let rig = rig();
    rig.world.unwell.store(true, SeqCst);
    let (one, two) =
        (rig.set("one", "http://a:1", &health(OFTEN)), rig.set("two", "http://a:1", &health(OFTEN)));
    let patient = health(r#"{"path":"/h","interval":"1s","unhealthy_after":100}"#);
    let three = rig.set("three", "http://a:1", &patient);
    pass(5).await;
    assert!(one.is_failing() && two.is_failing() && !three.is_failing());
    assert_eq!(rig.told(), ["one/a", "two/a"]);
    rig.checks.remove(&"two".parse().unwrap());
    assert!(one.is_failing(), "what another service no longer asks for says nothing to this one");
    assert_eq!(rig.told(), ["one/a"]);
    pass(5).await;
    assert_eq!(rig.told(), ["one/a"]);
    drop(rig.checks);
    assert!(rig.endpoints.failing().borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_verdict_outlasts_a_changed_interval_and_path_but_not_another_server() {
    let rig = rig();
    rig.world.unwell.store(true, SeqCst);
    rig.set("one", "http://a:1", &health(OFTEN));
    pass(4).await;
    assert_eq!(rig.told(), ["one/a"]);
    for changed in [
        r#"{"path":"/h","interval":"7s"}"#,
        r#"{"path":"/h","interval":"7s","healthy_after":3}"#,
        r#"{"path":"/other","interval":"7s"}"#,
        r#"{"interval":"7s"}"#,
    ] {
        assert!(rig.set("one", "http://a:1", &health(changed)).is_failing(), "{changed}");
        assert_eq!(rig.told(), ["one/a"], "{changed}");
        pass(3).await;
        assert_eq!(rig.told(), ["one/a"], "{changed}");
    }
    assert!(!rig.set("one", "http://a:2", &health(OFTEN)).is_failing());
    assert!(rig.told().is_empty());
    rig.set("one", "http://a:1", &health(OFTEN));
    pass(4).await;
    rig.world.unwell.store(false, SeqCst);
    pass(4).await;
    assert!(rig.told().is_empty(), "and it ends when the server is well");
}

#[tokio::test(start_paused = true)]
async fn one_question_is_asked_for_all_and_at_most_once_a_second() {
    let rig = rig();
    for service in 0..20 {
        let interval = [20, 100, 1000, 1500][service % 4];
        let health = health(&format!(r#"{{"path":"/h","interval":"{interval}ms"}}"#));
        rig.set(&format!("s{service}"), "http://a:1", &health);
    }
    pass(20).await;
    let asked = rig.asked();
    assert!((15..=21).contains(&asked.len()), "{}", asked.len());
    assert!(asked.windows(2).all(|two| two[1].1 - two[0].1 >= REST), "{asked:?}");
    // Services that come and go do not hasten it.
    for _ in 0..20 {
        (0..20).for_each(|service| rig.checks.remove(&format!("s{service}").parse().unwrap()));
        pass(1).await;
        rig.set("s0", "http://a:1", &health(OFTEN));
        advance(Duration::from_millis(50)).await;
    }
    let asked = rig.asked();
    assert!(asked.windows(2).all(|two| two[1].1 - two[0].1 >= REST), "{asked:?}");
    rig.set("other", "http://a:1", &health(r#"{"path":"/other"}"#));
    rig.set("tcp", "http://a:1", &health("{}"));
    pass(2).await;
    let questions: BTreeSet<_> = rig.asked().into_iter().map(|(question, _)| question).collect();
    assert_eq!(questions.into_iter().collect::<Vec<_>>(), ["http://a:1", "http://a:1/h", "http://a:1/other"]);
}

#[tokio::test(start_paused = true)]
async fn each_waits_for_an_answer_as_long_as_it_says() {
    let rig = rig();
    rig.world.slow.store(3, SeqCst);
    let hasty = rig.set("hasty", "http://a:1", &health(OFTEN));
    let patient = health(r#"{"path":"/h","interval":"1s","timeout":"10s","unhealthy_after":1}"#);
    let patient = rig.set("patient", "http://a:1", &patient);
    pass(4).await;
    assert!(hasty.is_failing(), "a service that waits for long does not hold up the others");
    assert!(!patient.is_failing());
}

#[tokio::test(start_paused = true)]
async fn what_the_router_lacks_itself_says_nothing_of_a_server() {
    let rig = rig();
    rig.world.local.store(true, SeqCst);
    let verdict = rig.set("one", "http://a:1", &health(OFTEN));
    pass(5).await;
    assert!(!verdict.is_failing() && !rig.asked().is_empty());
    rig.world.local.store(false, SeqCst);
    rig.world.unwell.store(true, SeqCst);
    pass(5).await;
    rig.world.local.store(true, SeqCst);
    pass(5).await;
    assert!(verdict.is_failing(), "nor that it is well");
}
