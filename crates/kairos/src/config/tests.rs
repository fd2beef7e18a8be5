//! The configuration table: what is taken, what is refused, and in which words.

use super::*;

fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut values = BTreeMap::from([("PORT".to_owned(), "8080".to_owned())]);
    values.extend(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    values
}

fn config(pairs: &[(&str, &str)]) -> Config {
    Config::from_values(Service::ApiGateway, &values(pairs)).expect("valid")
}

fn refused(pairs: &[(&str, &str)]) -> Vec<Problem> {
    match Config::from_values(Service::ApiGateway, &values(pairs)) {
        Err(ConfigError::Invalid(problems)) => problems,
        other => panic!("{pairs:?} should be refused, was {other:?}"),
    }
}

#[test]
fn each_rule_refuses_its_bad_values_by_variable() {
    let table: &[(&str, &[&str])] = &[
        ("PORT", &["", "abc", "-1", "65536", "80.5"]),
        ("DEPLOY_ENV", &["prod", "Production"]),
        ("MAX_POSITION_SIZE", &["0", "-5", "lots", "1000000001"]),
        ("RISK_LIMIT_PCT", &["0", "-1", "100.1", "NaN", "inf"]),
        ("STARTING_EQUITY", &["0", "NaN"]),
        ("ENABLE_TRADING", &["yes", "1"]),
        ("READ_ONLY", &["yes"]),
        ("LOG_FORMAT", &["xml"]),
        ("SERVICE_SLOT", &["red"]),
        ("ACTIVATION", &["sometimes"]),
        ("API_ENDPOINT", &["nonsense", "ftp://example.com", "/path"]),
        (
            "RISK_MANAGER_URL",
            &[
                "https://example.com",
                "risk",
                "http://h/?q=1",
                "http://h,",
                "http://h,http://h/",
                "http://h;zone=",
                "http://h;z=a",
            ],
        ),
        ("ZONE", &["a b", "a,b"]),
        ("LAME_DUCK_MS", &["-1", "600001"]),
        ("DRAIN_GRACE_MS", &["-1", "600001"]),
        ("TICK_MS", &["0"]),
        ("INSTRUMENTS", &["aapl", "AAPL,,MSFT", "AAPL,AAPL"]),
        ("ORDER_SIZE", &["0"]),
        ("SEED", &["x"]),
        ("STATE_SCHEMA", &["1", "4"]),
        ("LOG_LEVEL", &["loud"]),
        ("KAIROS_API_KEY_GRACE_MS", &["-1"]),
    ];
    for (variable, bad) in table {
        for value in *bad {
            let problems = refused(&[(variable, value)]);
            assert_eq!(problems.len(), 1, "{variable}={value}: {problems:?}");
            assert_eq!(problems[0].variable, *variable);
        }
    }
}

#[test]
fn all_mistakes_are_named_at_once_with_value_and_rule() {
    let problems = refused(&[("PORT", "x"), ("RISK_LIMIT_PCT", "0"), ("SERVICE_SLOT", "red")]);
    let text = ConfigError::Invalid(problems).to_string();
    assert!(text.contains("3 mistake(s)"), "{text}");
    assert!(text.contains("PORT=\"x\": allowed is a number from 0 to 65535"), "{text}");
    assert!(text.contains("RISK_LIMIT_PCT=\"0\": allowed is a number above 0 and up to 100"), "{text}");
    assert!(text.contains("SERVICE_SLOT=\"red\": allowed is blue or green"), "{text}");
}

#[test]
fn production_refuses_an_endpoint_on_this_machine_but_not_its_peers() {
    for host in [
        "localhost",
        "LOCALHOST:80",
        "localhost.",
        "a.localhost",
        "127.0.0.1:9",
        "127.1",
        "[::1]:80",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
    ] {
        let url = format!("https://{host}");
        let problems = refused(&[("DEPLOY_ENV", "production"), ("API_ENDPOINT", &url)]);
        assert_eq!(problems[0].variable, "API_ENDPOINT", "{url}");
        config(&[("DEPLOY_ENV", "staging"), ("API_ENDPOINT", &url)]);
    }
    let fine = config(&[
        ("DEPLOY_ENV", "production"),
        ("API_ENDPOINT", "https://localhost.example.com"),
        ("RISK_MANAGER_URL", "http://127.0.0.1:1/"),
    ]);
    assert_eq!(fine.peers[&Service::RiskManager], [Address { url: "http://127.0.0.1:1".to_owned(), zone: None }]);
}

#[test]
fn a_service_has_several_addresses_each_with_or_without_a_zone() {
    let text = "http://10.0.0.1:80/;zone=eu-1, http://10.0.0.2:80";
    let config = config(&[("RISK_MANAGER_URL", text), ("ZONE", "eu-1")]);
    let address = |url: &str, zone: Option<&str>| Address { url: url.to_owned(), zone: zone.map(str::to_owned) };
    let expected = [address("http://10.0.0.1:80", Some("eu-1")), address("http://10.0.0.2:80", None)];
    assert_eq!(config.peers[&Service::RiskManager], expected);
    assert_eq!(config.zone.as_deref(), Some("eu-1"));
}

#[test]
fn trading_is_off_in_production_unless_switched_on() {
    assert!(config(&[]).at_start.enable_trading);
    assert!(config(&[("DEPLOY_ENV", "staging")]).at_start.enable_trading);
    assert!(!config(&[("DEPLOY_ENV", "production")]).at_start.enable_trading);
    assert!(config(&[("DEPLOY_ENV", "production"), ("ENABLE_TRADING", "true")]).at_start.enable_trading);
}

#[test]
fn an_empty_optional_value_counts_as_absent() {
    let config = config(&[("SERVICE_SLOT", ""), ("STATE_DIR", " "), ("API_ENDPOINT", "")]);
    assert_eq!((config.slot, config.state_dir, config.api_endpoint), (None, None, None));
}

#[test]
fn the_api_key_is_masked_in_debug_output_and_compared_whole() {
    let config = config(&[("KAIROS_API_KEY", "correct-horse")]);
    let shown = format!("{config:?}");
    assert!(!shown.contains("horse") && shown.contains("***"), "{shown}");
    let key = config.api_key.expect("set");
    assert!(key.matches(b"correct-horse") && !key.matches(b"correct-hors") && !key.matches(b"correct-Horse"));
}

#[test]
fn a_key_is_given_in_one_way_and_a_file_has_one() {
    let problems = refused(&[("KAIROS_API_KEY", "k"), ("KAIROS_API_KEY_FILE", "f")]);
    assert_eq!(problems[0].variable, "KAIROS_API_KEY_FILE");
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("key");
    assert!(matches!(read_key(&path), Err(ConfigError::Read { .. })));
    std::fs::write(&path, " \n").expect("written");
    assert!(matches!(read_key(&path), Err(ConfigError::NoKey { .. })));
    std::fs::write(&path, "a key\n").expect("written");
    assert!(read_key(&path).expect("a key").matches(b"a key"));
}

#[test]
fn a_file_has_the_same_names_and_refuses_unknown_keys() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("kairos.toml");
    std::fs::write(&path, "port = 9\nrisk_limit_pct = 1.5\nenable_trading = false\nhost = \"::1\"\n").expect("written");
    let values = read_file(path.clone()).expect("readable");
    let config = Config::from_values(Service::RiskManager, &values).expect("valid");
    assert_eq!((config.port, config.host.as_str(), config.at_start.enable_trading), (9, "::1", false));

    for bad in ["prot = 9", "port = [9]", "port = "] {
        std::fs::write(&path, bad).expect("written");
        assert!(read_file(path.clone()).is_err(), "{bad}");
    }
}
