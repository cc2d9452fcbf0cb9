//! The description of `/api/v2`.

use pvc_api::{Limits, openapi, routes};
use pvc_operate::testing::Fake;
use serde_json::Value;

use crate::support::{Served, again, authentication};

#[test]
fn the_committed_description_is_that_of_the_routes() {
    let committed = include_str!("../../../../docs/openapi.json");
    assert!(
        committed == format!("{:#}\n", openapi()),
        "write it anew: cargo run -p pvc-api -- --openapi >docs/openapi.json"
    );
}

#[test]
fn every_route_of_the_api_is_described() {
    let described = openapi();
    for route in routes().filter(|route| route.path.starts_with("/api/v2/")) {
        let operation = &described["paths"][route.path][route.method.as_str().to_lowercase()];
        assert!(operation["summary"].is_string(), "{} {}", route.method, route.path);
    }
}

#[test]
fn what_is_referred_to_is_there_and_no_call_is_named_twice() {
    fn walk(value: &Value, whole: &Value) {
        if let Some(at) = value.get("$ref") {
            let at = at.as_str().unwrap().trim_start_matches('#');
            assert!(whole.pointer(at).is_some(), "{at}");
        }
        match value {
            Value::Object(inner) => inner.values().for_each(|value| walk(value, whole)),
            Value::Array(inner) => inner.iter().for_each(|value| walk(value, whole)),
            _ => {}
        }
    }
    let described = openapi();
    walk(&described, &described);
    let methods = described["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap());
    let mut names: Vec<&Value> = methods.map(|(_, operation)| &operation["operationId"]).collect();
    let all = names.len();
    names.sort_by_key(ToString::to_string);
    names.dedup();
    assert_eq!(names.len(), all);
}

#[tokio::test]
async fn it_is_served_to_everybody() {
    let fake = Fake::with(&[]).await;
    let served = Served::of(again(&fake), Some(authentication()), Limits::default()).await;
    let answer = served.send("GET", "/api/v2/openapi.json", "", "").await;
    assert_eq!((answer.status, answer.json()), (200, openapi()));
}
