//! The configuration as people write it, right and wrong.

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/mf/message-flow.toml"), &Overrides::default())
}

fn problems(text: &str) -> String {
    parse(text).expect_err("there is something wrong").to_string()
}

#[test]
fn nothing_written_means_the_defaults() {
    let config = Config::load(None, &Overrides::default()).unwrap();
    assert_eq!(config.proxy.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:8081");
    assert_eq!(config.data.dir, Path::new("data"));
    assert_eq!(config.plugins.dir, Path::new("plugins"));
    assert_eq!(config.table.adapter, "memory");
    assert_eq!(config.proxy.client_id.len(), 3);
    assert_eq!(config.plugin("etcd").grant, [plugin::Grant::Etcd]);
    assert_eq!(config.plugin("geo").deadline, None);
    let beside_a_file = parse("").unwrap();
    let expected = Config {
        data: DataConfig { dir: "/etc/mf/data".into() },
        plugins: PluginsConfig { dir: "/etc/mf/plugins".into(), ..config.plugins.clone() },
        ..config
    };
    assert_eq!(beside_a_file, expected);
    assert_eq!(parse("data.dir = 'data'\nplugins.dir = 'plugins'").unwrap(), expected);
}

#[test]
fn every_key_is_read() {
    let config = parse(include_str!("../../../tests/golden/config-every-key.toml")).unwrap();
    golden("config-every-key.txt", &format!("{config:#?}\n"));
}

#[test]
fn every_error_is_reported_at_once() {
    let found = problems(include_str!("../../../tests/golden/config-errors.toml"));
    golden("config-errors.txt", &format!("{found}\n"));
}

/// With `UPDATE_GOLDEN=1` in the environment the files are written instead, to be read and committed.
fn golden(name: &str, found: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, found).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(found, expected, "{name} differs");
}

#[test]
fn syntax_errors_hide_what_may_follow_from_them() {
    let found = problems("[proxy]\nlisten = \n[api]\nlissten = 1\n[proxy]\n");
    let lines: Vec<&str> = found.lines().collect();
    assert!(lines[0].starts_with("/etc/mf/message-flow.toml:2:"), "{found}");
    assert!(lines.iter().any(|line| line.contains(":4:1: api.lissten: unknown key")), "{found}");
    assert!(lines.iter().any(|line| line.contains(":5:")), "{found}");
}

#[test]
fn the_command_line_goes_before_the_file() {
    let overrides = Overrides {
        plugins: Some("p".into()),
        data: Some("d".into()),
        proxy: Some("127.0.0.1:1".parse().unwrap()),
        api: Some("127.0.0.1:2".parse().unwrap()),
    };
    let text = "proxy.listen = '127.0.0.1:3'\napi.listen = '0.0.0.0:4'\ndata.dir = 'x'\nplugins.dir = 'y'";
    let config = Config::parse(text, Path::new("a.toml"), &overrides).unwrap();
    assert_eq!((config.proxy.listen.port(), config.api.listen.port()), (1, 2));
    assert_eq!((config.data.dir, config.plugins.dir), ("d".into(), "p".into()));
}

#[test]
fn a_public_api_needs_rules_or_an_open_door() {
    let public = |rest: &str, api: Option<&str>| {
        let overrides = Overrides { api: api.map(|api| api.parse().unwrap()), ..Overrides::default() };
        Config::parse(rest, Path::new("a.toml"), &overrides).map_err(|error| error.to_string())
    };
    let refused = public("[api]\nlisten = '0.0.0.0:1'", None).unwrap_err();
    assert!(refused.starts_with("a.toml:2:1: api.listen: 0.0.0.0:1 is not a loopback address"), "{refused}");
    assert!(refused.contains("[[access]]") && refused.contains("`open = true`"), "{refused}");
    let refused = public("", Some("[::]:1")).unwrap_err();
    assert!(refused.starts_with("--api: [::]:1 is not"), "{refused}");
    assert!(public("api.open = true", Some("0.0.0.0:1")).is_ok());
    let rule = format!("[[access]]\ntoken_sha256 = '{}'\nactions = ['read']", "0".repeat(64));
    assert!(public(&rule, Some("0.0.0.0:1")).is_ok());
    assert!(public("", Some("127.0.0.9:1")).is_ok());
}

#[test]
fn relative_paths_start_at_the_file() {
    let config = parse("data.dir = 'd'\nplugins.dir = '/p'").unwrap();
    assert_eq!((config.data.dir, config.plugins.dir), ("/etc/mf/d".into(), "/p".into()));
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Some(Path::new("/nowhere/a.toml")), &Overrides::default()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration /nowhere/a.toml");
}

const PAGE: &str = include_str!("../../docs/configuration.md");

fn toml_of_the_page() -> Vec<&'static str> {
    PAGE.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_page_gives_the_defaults() {
    let [defaults, others] = toml_of_the_page()[..] else { panic!("the page has two blocks of TOML") };
    let mut told = Config::parse(defaults, Path::new("a.toml"), &Overrides::default()).unwrap();
    // The one section that is named as an example: all of it is what holds without it.
    let etcd = told.plugin.remove("etcd").unwrap();
    assert_eq!(etcd.grant, plugin::Settings::default_for("etcd").grant);
    assert_eq!(told, Config::load(None, &Overrides::default()).unwrap());
    Config::parse(others, Path::new("a.toml"), &Overrides::default()).unwrap();
}

#[test]
fn the_page_names_every_key() {
    let all = include_str!("../../../tests/golden/config-every-key.toml");
    let keys = all.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| line.split_once(" = "));
    let blocks = toml_of_the_page().concat();
    for (key, _) in keys {
        let named = blocks.lines().any(|line| line.split_once(" = ").is_some_and(|(named, _)| named == key));
        assert!(named, "{key} is not in docs/configuration.md");
    }
}
