//! The description of `/api/v2` (OpenAPI 3.1), made from the table of routes: what a row says of a call is what is written here, and the schema of a
//! body is that of the type which reads it. `docs/openapi.json` is this text.

use std::sync::LazyLock;

use axum::{http::StatusCode, response::Response};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    Access, Route,
    about::{About, Body, Gives},
    routes,
};
use crate::{gate::KEY, reply::text};

/// Answers the description.
pub(super) async fn serve() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| openapi().to_string());
    text(StatusCode::OK, "application/json", TEXT.as_str())
}

/// What a change answers.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used: what is answered is `pvc_operate::Answer`")]
struct Message {
    /// One sentence: what was done, or is to be done.
    message: String,
    /// What to know besides.
    #[schemars(default)]
    notes: Vec<String>,
}

/// A token that was made.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used: what is answered is `pvc_operate::token::Added`")]
struct MadeToken {
    /// What to send as `X-Api-Key`.
    token: String,
    message: String,
    notes: Vec<String>,
}

/// What was asked of storage.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
struct Accepted {
    /// Its number at `/api/v2/tasks`.
    task: u32,
    message: String,
    notes: Vec<String>,
}

/// Why not (RFC 9457).
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
struct Problem {
    r#type: String,
    title: String,
    status: u16,
    /// The words of the command line.
    detail: String,
    /// Of a refusal: what was not done.
    #[schemars(default)]
    what: String,
    /// Of a refusal: why not.
    #[schemars(default)]
    why: String,
    /// Of a refusal: what to do instead.
    #[schemars(default)]
    todo: String,
}

/// By this a list is asked for as an object.
pub(super) const WHOLE: &str = "whole";

/// The whole description.
pub fn openapi() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let mut paths = Map::new();
    for route in routes() {
        let Some(about) = &route.about else { continue };
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation(route, about, &mut schemas);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Parallel Virtual Cluster",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Commands a cluster. What is read is what `pvc --format json` prints.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": { "token": { "type": "apiKey", "in": "header", "name": KEY } },
        },
    })
}

fn operation(route: &Route, about: &About, schemas: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = parts(route.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": part(name) }))
        .collect();
    parameters.extend(about.query.iter().map(|query| {
        let mut schema = json!({ "type": query.kind });
        if query.kind == "integer" {
            schema["minimum"] = 0.into();
        }
        json!({ "name": query.name, "in": "query", "description": query.about, "schema": schema })
    }));
    let mut operation = json!({
        "operationId": id(route),
        "summary": about.summary,
        "responses": responses(about, schemas),
    });
    match about.body {
        Body::Nothing => {}
        Body::Json(schema, optional) => {
            let content = json!({ "application/json": { "schema": schema(schemas) } });
            operation["requestBody"] = json!({ "required": !optional, "content": content });
        }
        Body::Definition => {
            let content = json!({ "application/xml": { "schema": { "type": "string" } } });
            operation["requestBody"] = json!({ "required": true, "content": content });
            parameters.push(json!({
                "name": "If-Match", "in": "header", "required": true, "schema": { "type": "string" },
                "description": "The ETag of the definition that the new one was made from, or *.",
            }));
        }
    }
    if about.asks {
        parameters.push(json!({
            "name": "If-Match", "in": "header", "schema": { "type": "string" },
            "description": "The mark of the question that a trial has answered: refused with 412 if another one would be asked now.",
        }));
    }
    if matches!(route.access, Access::Change(_)) {
        parameters.push(json!({
            "name": "dry_run", "in": "query", "schema": { "type": "boolean" },
            "description": "Decide and answer, and write nothing.",
        }));
        if route.answer_is_kept() {
            parameters.push(json!({
                "name": "Idempotency-Key", "in": "header",
                "schema": { "type": "string", "pattern": "^[!-~]{1,128}$" },
                "description": "Asked again with the same key, the same change is not made again, and answered as before.",
            }));
        }
    }
    operation["parameters"] = parameters.into();
    if route.access != Access::Public {
        operation["security"] = json!([{ "token": [] }]);
    }
    operation
}

/// The names in braces.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// What a part of a path is.
fn part(name: &str) -> Value {
    match name {
        "task" | "osd" => json!({ "type": "integer", "minimum": 0 }),
        _ => json!({ "type": "string" }),
    }
}

/// `post_vms_vm_migrate`.
fn id(route: &Route) -> String {
    let path = route.path.trim_start_matches("/api/v2/").replace(['{', '}'], "").replace(['/', '.'], "_");
    format!("{}_{path}", route.method.as_str().to_lowercase())
}

fn responses(about: &About, schemas: &mut SchemaGenerator) -> Value {
    let gives = about.gives;
    let mut responses = json!({ "default": {
        "description": "why not",
        "content": { "application/problem+json": { "schema": schemas.subschema_for::<Problem>() } },
    } });
    let (kind, schema, about) = match gives {
        Gives::Object => ("application/json", json!({ "type": "object" }), "what there is"),
        Gives::List => {
            let list = json!({ "type": "array", "items": { "type": "object" } });
            let has_whole = about.query.iter().any(|query| query.name == WHOLE);
            let schema = if has_whole { json!({ "oneOf": [list, { "type": "object" }] }) } else { list };
            ("application/json", schema, "what there is")
        }
        Gives::Done | Gives::Asked => {
            ("application/json", json!(schemas.subschema_for::<Message>()), "it is done")
        }
        Gives::Created => ("application/json", json!(schemas.subschema_for::<Message>()), "it is made"),
        Gives::Token => ("application/json", json!(schemas.subschema_for::<MadeToken>()), "it is made"),
        Gives::Task => {
            ("application/json", json!(schemas.subschema_for::<Accepted>()), "the task is asked for")
        }
        // What its events are this kind of description cannot say.
        Gives::Text(kind @ "text/event-stream") => (kind, json!({}), "what there is"),
        Gives::Text(kind) => (kind, json!({ "type": "string" }), "what there is"),
        Gives::Socket => {
            responses[StatusCode::SWITCHING_PROTOCOLS.as_str()] =
                json!({ "description": "from here on it is a WebSocket (RFC 6455)" });
            return responses;
        }
    };
    let mut answer = json!({ "description": about, "content": { kind: { "schema": schema } } });
    let status = match gives {
        Gives::Created | Gives::Token => StatusCode::CREATED,
        Gives::Task => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    };
    if matches!(gives, Gives::Created | Gives::Token | Gives::Task) {
        answer["headers"] = json!({ "Location": { "required": true, "schema": { "type": "string", "format": "uri-reference" } } });
    }
    if matches!(gives, Gives::List) {
        answer["headers"] =
            json!({ "Link": { "description": "where the next page is", "schema": { "type": "string" } } });
    }
    if matches!(gives, Gives::Asked) {
        let mut later = answer.clone();
        later["description"] = "the cluster has yet to do it".into();
        responses[StatusCode::ACCEPTED.as_str()] = later;
    }
    responses[status.as_str()] = answer;
    responses
}
