//! Routes as people write them, with a share and without.

use super::*;
use plimsoll_core::Timestamp;
use serde_json::json;

fn run(number: u16) -> RunId {
    RunId::new(Timestamp::from_millis(1_700_000_000_000), number)
}

fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

fn share(service: &str, percent: u8) -> Share {
    Share { service: service.to_owned(), slot: Slot::Green, percent }
}

/// A route as the API server has it, to which patches are applied as it does.
#[derive(Clone)]
struct Served(Value);

impl Served {
    fn new(rules: &[Value]) -> Self {
        let rules: Vec<Value> = rules.iter().map(|refs| json!({"matches": [], "backendRefs": refs})).collect();
        let metadata = json!({"name": "shop", "namespace": "shop", "resourceVersion": "1", "generation": 1});
        let kind = "HTTPRoute";
        let api = "gateway.networking.k8s.io/v1";
        Self(json!({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": {"rules": rules}}))
    }

    fn route(&self) -> Route {
        Route::of(serde_json::from_value(self.0.clone()).unwrap())
    }

    fn patched(&mut self, patch: Option<Patch>) -> &mut Self {
        if let Some(patch) = patch {
            json_patch::patch(&mut self.0, &patch).unwrap();
            let version: u64 = self.0["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            self.0["metadata"]["resourceVersion"] = (version + 1).to_string().into();
        }
        self
    }

    /// Announced and given by run `number`.
    fn given(&mut self, name: &str, percent: u8, number: u16) -> &mut Self {
        for percent in [0, percent] {
            let patch = self.route().give(&service(name), &share(name, percent), &run(number), &BTreeSet::new());
            self.patched(patch.unwrap());
        }
        self
    }

    fn taken(&mut self, name: &str) -> Result<&mut Self, RouteError> {
        let patch = self.route().take(&service(name), &BTreeSet::new())?;
        Ok(self.patched(patch))
    }

    /// `gateway 75, gateway-green 25 | …` by rule.
    fn shown(&self) -> String {
        let one = |r: &Value| format!("{} {}", r["name"].as_str().unwrap_or_default(), r["weight"]);
        let rule = |rule: &Value| references(rule).iter().map(one).collect::<Vec<_>>().join(", ");
        self.0["spec"]["rules"].as_array().unwrap().iter().map(rule).collect::<Vec<_>>().join(" | ")
    }

    fn note(&self) -> Option<&str> {
        self.0["metadata"]["annotations"][names::SHARE].as_str()
    }

    fn refs(&mut self, rule: usize) -> &mut Value {
        &mut self.0["spec"]["rules"][rule]["backendRefs"]
    }
}

fn to(name: &str) -> Value {
    json!({"group": "", "kind": "Service", "name": name, "port": 80, "weight": 1})
}

fn weighing(name: &str, weight: u64) -> Value {
    with(&to(name), "weight", weight.into())
}

#[test]
fn a_share_divides_what_leads_to_the_service_and_nothing_else() {
    let check = |rules: &[Value], percent, expected: &str| {
        let mut served = Served::new(rules);
        let before = served.0["spec"].clone();
        served.given("web", percent, 1);
        assert_eq!(served.shown(), expected, "{percent} % of {before}");
        served.taken("web").unwrap();
        assert_eq!((&served.0["spec"], served.note()), (&before, None), "as it was");
    };
    check(&[json!([to("web")])], 25, "web 75, web-green 25");
    check(&[json!([{"name": "web"}])], 1, "web 99, web-green 1");
    check(&[json!([weighing("web", 7)])], 100, "web 0, web-green 100");
    check(
        &[json!([to("web")]), json!([to("api")]), json!([to("web")])],
        5,
        "web 95, web-green 5 | api 1 | web 95, web-green 5",
    );
    check(&[json!([weighing("web", 9), to("old")])], 20, "web 720, web-green 180, old 100");
    // Nobody comes that way, or it is another thing of that name.
    check(&[json!([weighing("web", 0)]), json!([to("web")])], 50, "web 0 | web 50, web-green 50");
    check(&[json!([with(&to("web"), "namespace", "b".into()), to("web")])], 50, "web 100, web 50, web-green 50");
    check(&[json!([with(&to("web"), "kind", "ServiceImport".into()), to("web")])], 50, "web 100, web 50, web-green 50");
}

#[test]
fn a_twin_has_everything_else_of_its_reference() {
    let filters = json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x"]}}]);
    let mut served = Served::new(&[json!([with(&to("web"), "filters", filters.clone())])]);
    served.given("web", 10, 1);
    let twin = &served.refs(0)[1];
    assert_eq!((&twin["name"], &twin["filters"], &twin["port"]), (&json!("web-green"), &filters, &json!(80)));
}

#[test]
fn steps_follow_each_other_and_are_seen_as_they_are() {
    let mut served = Served::new(&[json!([to("web")])]);
    let announced = served.route().give(&service("web"), &share("web", 0), &run(1), &BTreeSet::new()).unwrap();
    served.patched(announced);
    let route = served.route();
    assert!(route.announces(&service("web"), Slot::Green) && !route.announces(&service("web"), Slot::Blue));
    assert_eq!((served.shown().as_str(), route.percent("web", "web-green")), ("web 1", 0), "nothing is given by that");
    for percent in [5, 25, 50] {
        served.given("web", percent, 1);
        assert_eq!(served.route().percent("web", "web-green"), percent);
    }
    assert_eq!(served.route().percent("web", "web-blue"), 0);
    *served.refs(0) = json!([weighing("web", 999), weighing("web-green", 1)]);
    assert_eq!(served.route().percent("web", "web-green"), 1, "little is not nothing");
}

#[test]
fn two_services_share_a_rule_and_each_gives_back_its_own() {
    let mut served = Served::new(&[json!([weighing("web", 3), to("api")])]);
    let before = served.0["spec"].clone();
    served.given("web", 50, 1).given("api", 10, 1);
    assert_eq!(served.shown(), "web 150, web-green 150, api 90, api-green 10");
    served.taken("web").unwrap();
    assert_eq!(served.shown(), "web 300, api 90, api-green 10");
    assert!(served.route().is_of(&service("api"), Slot::Green, &run(1)), "it is still its run's");
    served.taken("api").unwrap();
    assert_eq!(served.0["spec"], before);
}

#[test]
fn a_rule_is_found_again_where_others_were_put_before_it() {
    let mut served = Served::new(&[json!([to("web")])]);
    served.given("web", 25, 1);
    served.0["spec"]["rules"].as_array_mut().unwrap().insert(0, json!({"backendRefs": [to("docs")]}));
    served.taken("web").unwrap();
    assert_eq!((served.shown().as_str(), served.note()), ("docs 1 | web 1", None));
}

#[test]
fn what_somebody_else_made_of_the_references_is_left_to_them() {
    let check = |now: Value| {
        let mut served = Served::new(&[json!([to("web")])]);
        served.given("web", 25, 1);
        *served.refs(0) = now;
        let before = served.0.clone();
        let taken = served.taken("web").map(|_| ()).unwrap_err().to_string();
        let given = served.route().give(&service("web"), &share("web", 50), &run(1), &BTreeSet::new()).unwrap_err();
        for words in [taken, given.to_string()] {
            assert!(words.contains("somebody else changed backendRefs of its rule 0") && words.contains("web-green"));
        }
        assert_eq!(served.0, before);
    };
    check(json!([weighing("web", 90), weighing("web-green", 10)]));
    check(json!([weighing("web", 75), weighing("web-green", 25), to("new")]));
    check(json!([weighing("web-green", 25)]));
}

#[test]
fn weights_that_were_taken_away_are_not_given_again_by_the_same_run() {
    let mut served = Served::new(&[json!([to("web")])]);
    served.given("web", 25, 1);
    *served.refs(0) = json!([to("web")]);
    let again = |number| served.route().give(&service("web"), &share("web", 25), &run(number), &BTreeSet::new());
    assert!(again(1).unwrap_err().to_string().contains("somebody else took away the weight of web-green"));
    assert!(matches!(again(2), Err(RouteError::NotAnnounced)));
    let mut later = served.clone();
    assert_eq!(later.given("web", 5, 2).shown(), "web 95, web-green 5", "another run begins anew");
    served.taken("web").unwrap();
    assert_eq!((served.shown().as_str(), served.note()), ("web 1", None));
}

#[test]
fn nobody_gives_what_another_run_took_back() {
    let mut served = Served::new(&[json!([to("web")])]);
    served.given("web", 25, 1).taken("web").unwrap();
    let late = served.route().give(&service("web"), &share("web", 25), &run(1), &BTreeSet::new());
    assert!(matches!(late, Err(RouteError::NotAnnounced)), "{late:?}");
}

#[test]
fn an_announcement_alone_is_taken_away_by_a_write() {
    let mut served = Served::new(&[json!([to("web")])]);
    let announced = served.route().give(&service("web"), &share("web", 0), &run(1), &BTreeSet::new()).unwrap();
    served.patched(announced);
    let mut late = served.clone();
    let late = late.given("web", 25, 1).route();
    assert!(served.taken("web").unwrap().route().version >= late.version, "a late write has an old version");
    assert_eq!(served.route().take(&service("web"), &BTreeSet::new()).unwrap(), None, "and then nothing is left");
}

#[test]
fn without_its_note_a_route_that_leads_to_a_slot_is_somebodys() {
    let served = Served::new(&[json!([weighing("web", 75), weighing("web-green", 25)])]);
    let twins = BTreeSet::from(["web-green".to_owned()]);
    assert!(matches!(served.route().take(&service("web"), &twins), Err(RouteError::Changed { rule: 0, .. })));
    assert_eq!(
        served.route().take(&service("web"), &BTreeSet::new()).unwrap(),
        None,
        "where no slot has such a Service"
    );
    let mut noted = Served::new(&[json!([to("web")])]);
    noted.0["metadata"]["annotations"] = json!({ (names::SHARE): "yes" });
    let error = noted.route().take(&service("web"), &twins).unwrap_err().to_string();
    assert!(error.contains("plimsoll.dev/share cannot be read; take web-green out"), "{error}");
}

#[test]
fn what_the_api_does_not_take_is_refused_before() {
    let check = |refs: Value| {
        let mut served = Served::new(&[refs]);
        let announced = served.route().give(&service("web"), &share("web", 0), &run(1), &BTreeSet::new()).unwrap();
        served.patched(announced);
        let error = served.route().give(&service("web"), &share("web", 5), &run(1), &BTreeSet::new()).unwrap_err();
        assert!(matches!(error, RouteError::NoRoom { rule: 0 }), "{error}");
    };
    check(Value::Array((0..15).map(|n| to(&format!("x{n}"))).chain([to("web")]).collect()));
    check(json!([to("web"), weighing("old", 10_001)]));
}

#[test]
fn controllers_have_heard_when_all_that_speak_know_the_generation() {
    let check = |status: Value, expected| {
        let mut served = Served::new(&[json!([to("web")])]);
        served.0["metadata"]["generation"] = 4.into();
        served.0["status"] = status.clone();
        assert_eq!(served.route().is_heard, expected, "{status}");
    };
    let parents = |seen: &[i64]| {
        let one = |n: &i64| json!({"conditions": [{"type": "Accepted", "observedGeneration": n}]});
        json!({"parents": seen.iter().map(one).collect::<Vec<_>>()})
    };
    check(Value::Null, true);
    check(parents(&[]), true);
    check(parents(&[4, 5]), true);
    check(parents(&[4, 3]), false);
}

#[test]
fn only_what_we_changed_is_disowned_and_only_once_it_is_as_it_was() {
    let mut served = Served::new(&[json!([to("web")])]);
    let entry = |manager: &str, operation: &str| json!({"manager": manager, "operation": operation});
    let ours = entry(names::MANAGER, "Update");
    let all = [ours.clone(), entry("helm", "Update"), entry(names::MANAGER, "Apply"), ours];
    served.0["metadata"]["managedFields"] = json!(all);
    assert!(served.given("web", 25, 1).route().disown().is_none());
    served.taken("web").unwrap();
    let patch = served.route().disown();
    served.patched(patch);
    assert_eq!(served.0["metadata"]["managedFields"], json!(all[1..3]));
    assert!(served.route().disown().is_none());
}
