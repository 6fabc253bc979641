//! The package `message-flow:plugin`, as it is in `wit/`: for modules that do not say what they
//! implement, and for the projects that `message-flow plugin new` makes.

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../wit/", $name)))),*]
    };
}

/// Every file of it, by name.
pub const FILES: [(&str, &str); 21] = files![
    "body.wit",
    "candidates.wit",
    "clock.wit",
    "config.wit",
    "etcd.wit",
    "event-filter.wit",
    "event.wit",
    "lifecycle.wit",
    "log.wit",
    "random.wit",
    "registrar.wit",
    "request-body.wit",
    "request-filter.wit",
    "request.wit",
    "response-body.wit",
    "response-filter.wit",
    "response.wit",
    "routing-table.wit",
    "state.wit",
    "types.wit",
    "worlds.wit",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_left_out() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
        let mut there: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".wit"))
            .collect();
        there.sort();
        assert_eq!(there, FILES.map(|(name, _)| name));
    }
}
