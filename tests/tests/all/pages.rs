//! The pages of the documentation hold what the program has: every route and every metric, and links
//! that lead somewhere. That they hold every key is tested beside the reader of the configuration.

use std::{fs, path::Path};

use message_flow_tests::{Gateway, readme::repository};

fn page(name: &str) -> String {
    let path = repository().join("host/docs").join(format!("{name}.md"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test]
async fn every_route_is_on_the_page_of_the_api() {
    let gateway = Gateway::start().await;
    let document = gateway.ask("GET", "/v1/openapi.json").send().await.expect(200).json();
    let page = page("api");
    let paths = document["paths"].as_object().expect("a document of OpenAPI has paths");
    assert!(paths.len() > 15, "{paths:?}");
    for (path, methods) in paths {
        for method in methods.as_object().expect("methods by name").keys() {
            let method = format!("`{}", method.to_uppercase());
            let on_page = page.lines().any(|line| {
                let mut cells = line.split('|').skip(1);
                let named = cells.next().unwrap_or_default();
                named.contains(&method) && named.split(['`', ' ', '?', ',']).any(|word| word == path)
            });
            assert!(on_page, "{method} {path}` is not in host/docs/api.md");
        }
    }
}

#[tokio::test]
async fn every_metric_is_on_the_page_of_operations() {
    let gateway = Gateway::start().await;
    let metrics = gateway.ask("GET", "/metrics").send().await.expect(200).text();
    let page = page("operations");
    let names: Vec<_> =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(names.len() > 40, "{names:?}");
    // Those of the process itself are the Prometheus library's.
    for name in names.into_iter().filter(|name| name.starts_with("message_flow_")) {
        assert!(page.contains(&format!("| `{name}` |")), "{name} is not in host/docs/operations.md");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let pages = fs::read_dir(repository().join("host/docs")).expect("there are pages");
    let files = pages.map(|page| page.expect("a page").path()).chain([repository().join("README.md")]);
    let mut links = 0;
    for file in files {
        let text = fs::read_to_string(&file).expect("a page is text");
        let directory = file.parent().unwrap_or(Path::new("/"));
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !target.contains("://") {
                links += 1;
                assert!(directory.join(target).exists(), "{}: {target} is not there", file.display());
            }
        }
    }
    assert!(links > 20, "{links}");
}

#[tokio::test]
async fn help_prints_each_page_and_names_them_all() {
    let all = help(None).await;
    for page in fs::read_dir(repository().join("host/docs")).expect("there are pages") {
        let path = page.expect("a page").path();
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        assert!(all.contains(&format!("\n  {name}\n")), "{name} is not in\n{all}");
        let printed = help(Some(&name)).await;
        assert_eq!(printed, fs::read_to_string(&path).expect("a page is text"));
    }
}

async fn help(topic: Option<&str>) -> String {
    let setup = topic.into_iter().fold(Gateway::setup(), |setup, topic| setup.argument(topic));
    let (status, printed) = setup.run("help").await;
    assert!(status.success(), "{printed}");
    printed
}
