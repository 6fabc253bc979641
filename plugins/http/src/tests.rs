//! The registrar over a scene: what it asks, what it remembers.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use message_flow_sdk::{Decision, Registrar, testing::Scene};

use super::*;

/// Runs inside a scene: the scene's functions work only there.
struct Played;

thread_local!(static ANSWERS: std::cell::RefCell<Vec<Result<&'static str, &'static str>>> = const { std::cell::RefCell::new(Vec::new()) });
thread_local!(static ASKED: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) });

impl Registrar for Played {
    fn resolve() -> Result<Decision, String> {
        decide(&settings()?, |question| {
            ASKED.with_borrow_mut(|asked| asked.push(String::from_utf8(question.to_vec()).unwrap()));
            let answer = ANSWERS.with_borrow_mut(|answers| answers.remove(0));
            answer.map(|text| text.as_bytes().to_vec()).map_err(str::to_owned)
        })
    }
}

fn scene() -> Scene {
    Scene::new()
        .config("uri", "http://r:80/ask")
        .server("a", &[])
        .server("b", &[("region", "eu")])
        .client("ann")
}

fn will_answer(answers: &[Result<&'static str, &'static str>]) {
    ANSWERS.with_borrow_mut(|held| *held = answers.to_vec());
    ASKED.with_borrow_mut(Vec::clear);
}

fn asked() -> usize {
    ASKED.with_borrow(Vec::len)
}

fn to(server: &str) -> Result<Decision, String> {
    Ok(Decision::Server(server.to_owned()))
}

#[test]
fn settings_are_read_or_refused() {
    let read = |pairs: &[(&str, &str)]| {
        Settings::read(|key| {
            pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned())
        })
    };
    let settings = read(&[("uri", "http://r:81?x=1"), ("headers", "Region, ")]);
    assert!(settings.is_ok_and(|settings| settings.headers == ["region"]));
    for (pairs, part) in [
        (&[][..], "config.uri is missing"),
        (&[("uri", "ftp://r")], "config.uri: `ftp://r`"),
        (&[("uri", "http://u:p@r")], "is not a URI"),
        (&[("uri", "http://r:99999/ask")], "is not a URI"),
        (&[("uri", "http://r:/ask")], "is not a URI"),
        (&[("uri", "https://r:0")], "is not a URI"),
        (&[("uri", "http://r:80:80/")], "is not a URI"),
        (&[("uri", "http://::1/")], "is not a URI"),
        (&[("uri", "http://r"), ("ttl", "soon")], "config.ttl: `soon` is not a duration"),
        (&[("uri", "http://r"), ("entries", "0")], "config.entries: `0` is out of bounds"),
    ] {
        let error = read(pairs).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn answers_are_read_or_refused() {
    for (text, answer) in [
        (r#"{"server": "a"}"#, Answer::Server("a".into())),
        (r#"{"pass": true}"#, Answer::Pass),
        (r#"{"reject": {"status": 403}}"#, Answer::Reject { status: 403, reason: String::new() }),
    ] {
        assert_eq!(Answer::read(text.as_bytes()), Ok(answer));
    }
    for text in [
        "",
        "{}",
        "a",
        r#"{"sever": "a"}"#,
        r#"{"server": "a", "pass": true}"#,
        r#"{"reject": {"status": 7}}"#,
    ] {
        assert!(Answer::read(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn it_asks_with_the_message_and_remembers_the_answer() {
    let mut scene = scene().config("headers", "region").header("region", "eu").header("cookie", "secret");
    will_answer(&[Ok(r#"{"server": "b"}"#), Ok(r#"{"server": "a"}"#)]);
    assert_eq!(scene.resolve::<Played>(), to("b"));
    let question = ASKED.with_borrow(|asked| asked[0].clone());
    assert!(question.contains(r#""headers":{"region":"eu"}"#) && !question.contains("secret"), "{question}");
    assert!(question.contains(r#""client":"ann""#) && question.contains(r#""metadata":{"region":"eu"}"#));
    assert_eq!(scene.resolve::<Played>(), to("b"));
    assert_eq!(asked(), 1);
    scene.now += 5001;
    assert_eq!(scene.resolve::<Played>(), to("a"));
    assert_eq!(asked(), 2);
}

#[test]
fn a_server_that_is_gone_is_asked_for_again() {
    let mut scene = scene();
    will_answer(&[Ok(r#"{"server": "b"}"#), Ok(r#"{"pass": true}"#)]);
    assert_eq!(scene.resolve::<Played>(), to("b"));
    scene.servers.retain(|server| server.id != "b");
    assert_eq!(scene.resolve::<Played>(), Ok(Decision::Pass));
}

#[test]
fn an_old_answer_is_used_while_the_server_is_down_if_so_configured() {
    let mut scene = scene().config("stale", "1m");
    will_answer(&[Ok(r#"{"server": "b"}"#), Err("down"), Err("down")]);
    assert_eq!(scene.resolve::<Played>(), to("b"));
    scene.now += 6000;
    assert_eq!(scene.resolve::<Played>(), to("b"));
    scene.now += 60_000;
    assert_eq!(scene.resolve::<Played>(), Err("http://r:80/ask: down".to_owned()));
}

#[test]
fn the_cache_is_bounded_and_can_be_off() {
    let mut bounded = scene().config("entries", "3");
    for number in 0..50 {
        will_answer(&[Ok(r#"{"pass": true}"#)]);
        bounded.client = format!("c{number}");
        bounded.resolve::<Played>().unwrap();
    }
    assert!(bounded.state.len() <= 3);
    let mut off = scene().config("ttl", "0s");
    will_answer(&[Ok(r#"{"pass": true}"#), Ok(r#"{"pass": true}"#)]);
    off.resolve::<Played>().unwrap();
    off.resolve::<Played>().unwrap();
    assert_eq!((asked(), off.state.len()), (2, 0));
}
