use super::super::{BrokerConfig, Protocol};
use super::*;

const FILE: &str = r#"
broker_id = 3
rack = "east"
[registry]
connect = "zk1:2181,zk2:2181/baton"
[log]
dir = "/data"
"#;

#[derive(Default)]
struct Given {
    file: &'static str,
    variables: Vec<(&'static str, &'static str)>,
    flags: Vec<(&'static str, &'static str)>,
}

fn read(given: Given) -> Result<BrokerConfig, ConfigError> {
    let owned = |pairs: Vec<(&str, &str)>| -> Vec<(String, String)> {
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    load(&Sources {
        file: Some((PathBuf::from("baton.toml"), given.file.to_owned())),
        environment: owned(given.variables),
        foreign: vec!["BATON_TIMEOUT".to_owned()],
        flags: owned(given.flags),
    })
}

fn variables(variables: Vec<(&'static str, &'static str)>) -> Result<BrokerConfig, ConfigError> {
    read(Given { file: FILE, variables, ..Given::default() })
}

fn flag(key: &'static str, value: &'static str) -> Result<BrokerConfig, ConfigError> {
    read(Given { file: FILE, flags: vec![(key, value)], ..Given::default() })
}

/// The configuration is refused, and the message has every one of the parts.
fn refused(result: Result<BrokerConfig, ConfigError>, parts: &[&str]) {
    let message = result.expect_err("the configuration was taken").to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
}

#[test]
fn flags_stand_above_variables_above_the_file_above_defaults() {
    let config = read(Given {
        file: FILE,
        variables: vec![
            ("BATON_RACK", "west"),
            ("BATON_LOG__DIR", "/env"),
            ("HOME", "/root"),
            ("BATON_BOOTSTRAP", "x"),
        ],
        flags: vec![("log.dir", "/flag")],
    })
    .unwrap();
    assert_eq!(config.broker_id, 3);
    assert_eq!(config.rack, "west");
    assert_eq!(config.log.dir, PathBuf::from("/flag"));
    assert_eq!(config.timing.heartbeat_ms, 250);
    assert_eq!(config.peer.advertised, config.peer.bind);
}

#[test]
fn a_list_is_set_whole_or_by_element_in_any_order() {
    let config = variables(vec![
        ("BATON_LISTENERS__1__NAME", "outside"),
        ("BATON_LISTENERS__0__ADVERTISED", "b1:7400"),
        ("BATON_LISTENERS__1__BIND", "10.0.0.1:7401"),
        ("BATON_LISTENERS", r#"[{name = "inside", bind = "0.0.0.0:7400"}]"#),
    ])
    .unwrap();
    assert_eq!(config.listeners.len(), 2);
    assert_eq!(config.listeners[0].name, "inside");
    assert_eq!(config.listeners[0].advertised, "b1:7400");
    assert_eq!(config.listeners[1].advertised, "10.0.0.1:7401");
    assert_eq!(config.listeners[1].protocol, Protocol::Grpc);
}

#[test]
fn elements_beyond_the_next_are_refused() {
    refused(variables(vec![("BATON_LISTENERS__5__NAME", "x")]), &["BATON_LISTENERS__5__NAME", "1 elements", "5"]);
}

#[test]
fn unknown_keys_are_refused_everywhere_and_the_nearest_is_named() {
    refused(
        read(Given { file: "[log]\ndri = '/x'", ..Given::default() }),
        &["baton.toml", "log.dri", "did you mean log.dir"],
    );
    refused(read(Given { file: "[[listeners]]\nbinds = 'x'", ..Given::default() }), &["listeners[].binds"]);
    refused(read(Given { file: "[nonsense]\na = 1", ..Given::default() }), &["no key nonsense"]);
    refused(variables(vec![("BATON_LOG__DRI", "/x")]), &["the variable BATON_LOG__DRI", "log.dri", "log.dir"]);
    refused(variables(vec![("BATON_", "")]), &["BATON_"]);
    refused(variables(vec![("BATON_LOG", "/x")]), &["BATON_LOG", "no key log"]);
    refused(flag("log.dri", "/x"), &["the flag for log.dri", "log.dir"]);
    assert!(variables(vec![("BATON_TIMEOUT", "5s")]).is_ok(), "a variable of the command line was refused");
}

#[test]
fn wrong_types_name_the_key_the_value_and_what_is_allowed() {
    refused(read(Given { file: "broker_id = 'one'", ..Given::default() }), &["broker_id = \"one\"", "whole number"]);
    refused(read(Given { file: "broker_id = -1", ..Given::default() }), &["broker_id = -1", "0 to 4294967295"]);
    refused(read(Given { file: "log = '/x'", ..Given::default() }), &["log = ", "a table"]);
    refused(read(Given { file: "listeners = ['x']", ..Given::default() }), &["listeners[] = ", "a table"]);
    refused(read(Given { file: "broker_id = ", ..Given::default() }), &["baton.toml is no TOML", "line 1"]);
    refused(variables(vec![("BATON_BROKER_ID", "1.5")]), &["BATON_BROKER_ID", "1.5", "whole number"]);
    refused(variables(vec![("BATON_LISTENERS", "grpc")]), &["BATON_LISTENERS", "TOML"]);
    refused(
        variables(vec![("BATON_LISTENERS__0__PROTOCOL", "amqp")]),
        &["listeners[].protocol", "amqp", "one of grpc"],
    );
    refused(read(Given { file: "[registry]\nauth = 12345", ..Given::default() }), &["registry.auth", "text"]);
}

#[test]
fn a_secret_of_a_wrong_type_is_not_shown() {
    let error = read(Given { file: "[registry]\nauth = 12345", ..Given::default() }).unwrap_err();
    assert!(!error.to_string().contains("12345"), "{error}");
    let error = flag("registry.auth", "hunter2").unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn values_that_are_not_allowed() {
    refused(flag("broker_id", "0"), &["broker_id is not set", "1 to 2147483647"]);
    refused(flag("broker_id", "2147483648"), &["broker_id = 2147483648", "1 to 2147483647"]);
    refused(flag("registry.connect", ""), &["registry.connect is not set", "zk1:2181"]);
    refused(flag("registry.connect", "zk"), &["registry.connect = \"zk\"", "zk1:2181"]);
    refused(flag("registry.session_timeout_ms", "10"), &["registry.session_timeout_ms = 10", "1000 to 60000"]);
    refused(flag("registry.auth", "secret"), &["registry.auth", "scheme:credentials"]);
    refused(flag("rack", "a\nb"), &["rack", "control"]);
    refused(flag("shards", "5000"), &["shards = 5000", "0 to 1024"]);
    refused(flag("listeners", "[]"), &["the number of listeners = 0"]);
    refused(flag("listeners.0.name", "A"), &["listeners[0].name = \"A\"", "[a-z0-9-]"]);
    refused(flag("listeners.0.bind", "7400"), &["listeners[0].bind = \"7400\"", "host:port"]);
    refused(flag("listeners.0.advertised", "here"), &["listeners[0].advertised = \"here\"", "host:port"]);
    refused(flag("listeners.0.advertised", "0.0.0.0:1"), &["listeners[0].advertised", "nobody can connect"]);
    refused(flag("http.bind", "x"), &["http.bind = \"x\"", "host:port"]);
    refused(flag("log.dir", ""), &["log.dir is not set"]);
    refused(flag("limits.connections", "0"), &["limits.connections = 0", "1 to"]);
    refused(flag("timing.heartbeat_ms", "0"), &["timing.heartbeat_ms = 0", "10 to"]);
    refused(flag("timing.lag_max_ms", "500"), &["timing.lag_max_ms = 500", "750"]);
}

#[test]
fn to_listen_everywhere_needs_an_advertised_address() {
    refused(
        flag("listeners.0.bind", "0.0.0.0:7400"),
        &["listeners[0].advertised is not set", "host:port", "0.0.0.0:7400"],
    );
    refused(flag("peer.bind", "[::]:7410"), &["peer.advertised is not set", "[::]:7410"]);
}

#[test]
fn limits_that_contradict_each_other() {
    refused(flag("limits.frame_bytes_max", "1048576"), &["limits.frame_bytes_max = 1048576", "limits.batch_bytes_max"]);
    refused(
        flag("limits.in_flight_bytes_max", "1"),
        &["limits.in_flight_bytes_max = 1", "limits.in_flight_bytes_soft"],
    );
    refused(flag("limits.connection_bytes_max", "1"), &["limits.connection_bytes_max = 1", "limits.frame_bytes_max"]);
}

#[test]
fn one_address_twice_is_refused_but_not_two_free_ports() {
    refused(flag("peer.bind", "127.0.0.1:7400"), &["peer.bind", "listeners[0].bind is the same address"]);
    let free = vec![("BATON_PEER__BIND", "127.0.0.1:0"), ("BATON_HTTP__BIND", "127.0.0.1:0")];
    assert!(variables(free).is_ok());
}

#[test]
fn every_problem_is_shown_at_once() {
    let result = read(Given { file: "", flags: vec![("shards", "5000")], ..Given::default() });
    refused(result, &["broker_id is not set", "shards = 5000", "registry.connect is not set"]);
}

#[test]
fn a_file_that_is_not_there() {
    let error = Sources::of_process(Some(Path::new("/nonexistent/baton.toml"))).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/baton.toml"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = |name: &str| (OsString::from(name), OsString::from_vec(vec![0xff]));
    assert!(utf8_variables([bytes("OTHER")].into_iter()).unwrap().is_empty());
    let error = utf8_variables([bytes("BATON_RACK")].into_iter()).unwrap_err();
    assert!(error.to_string().contains("BATON_RACK"), "{error}");
}

#[test]
fn a_free_port_is_advertised_once_it_is_known() {
    use super::super::broker::advertised_address;
    let bound = "127.0.0.1:4242".parse().unwrap();
    assert_eq!(advertised_address("b1:0", bound), "b1:4242");
    assert_eq!(advertised_address("b1:7400", bound), "b1:7400");
}
