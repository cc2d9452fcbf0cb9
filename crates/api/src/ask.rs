//! What a request asks, bounded before anything looks at it: the values of its path, of its query and of its form, or a body as it is.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts as _, RawPathParams, Request},
    http::header,
};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use crate::{api::Shared, limits::MostBytes, reply::Failed, who::Who};

/// Of a change in the query: try it and write nothing.
pub(crate) const TRIAL: &str = "dry_run";

/// No call has so many.
const MOST_FIELDS: usize = 64;

/// A request.
#[derive(Debug, Default)]
pub(crate) struct Ask {
    path: Vec<(String, String)>,
    /// Those of the query first: of two with one name the first counts.
    fields: Vec<(String, String)>,
    /// A body that is no form.
    raw: Option<String>,
    /// Who asks.
    who: Option<Who>,
    from: Option<SocketAddr>,
    /// What the body is said to be, without parameters.
    content: String,
    /// What it is done for only, by its mark (`If-Match`).
    only_for: Option<String>,
}

impl Ask {
    /// What `If-Match` names.
    pub(crate) fn only_for(&self) -> Option<&str> {
        self.only_for.as_deref()
    }

    /// A part of the path; the route has it.
    pub(crate) fn part(&self, name: &str) -> &str {
        value(&self.path, name).unwrap_or_default()
    }

    /// A value that may be absent; empty is absent.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        value(&self.fields, name).filter(|value| !value.is_empty())
    }

    /// A value as it was sent: an empty one takes something away.
    pub(crate) fn sent(&self, name: &str) -> Option<&str> {
        value(&self.fields, name)
    }

    /// A flag: present, whatever its value is.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.given(name).is_some()
    }

    /// A value that must be there.
    pub(crate) fn required(&self, name: &'static str) -> Result<&str, Failed> {
        self.given(name).ok_or(Failed::Missing(name))
    }

    /// Who asks, for those who look at what was asked for.
    pub(crate) fn by(&self) -> String {
        self.who.as_ref().map_or_else(String::new, |who| format!("{:.100} over HTTP", who.name))
    }

    /// Whether who asks is limited to VMs, by their names.
    pub(crate) fn is_limited(&self) -> bool {
        self.who.as_ref().is_some_and(|who| who.vms.is_some())
    }

    /// From where.
    pub(crate) fn from(&self) -> IpAddr {
        self.from.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |from| from.ip())
    }

    /// The query, with one value in place of its own.
    pub(crate) fn with(&self, name: &str, value: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.fields.iter().filter(|(known, _)| known != name));
        query.append_pair(name, value).finish()
    }

    /// A body that is no form.
    pub(crate) fn raw(&self) -> Option<&str> {
        self.raw.as_deref()
    }

    /// A definition: the field `xml`, or the whole body.
    pub(crate) fn xml(&self) -> Result<&str, Failed> {
        self.given("xml").or(self.raw.as_deref()).ok_or(Failed::Missing("xml"))
    }
}

fn value<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

impl FromRequest<Shared> for Ask {
    type Rejection = Failed;

    async fn from_request(request: Request, api: &Shared) -> Result<Self, Failed> {
        let (mut ask, text) = Self::read(request, api).await?;
        // curl calls every body a form, also a definition; no form begins so.
        if text.trim_start().starts_with('<') || ask.content == "application/json" {
            ask.raw = Some(text);
        } else if ask.content.starts_with("multipart/") {
            return Err(Failed::Bad(
                "a multipart form is not read; send application/x-www-form-urlencoded".to_owned(),
            ));
        } else {
            let of_query = ask.fields.len();
            ask.take(&text)?;
            if value(&ask.fields[of_query..], TRIAL).is_some() {
                return Err(Failed::Bad(format!(
                    "{TRIAL} is for changes below /api/v2, in the query: nothing was done"
                )));
            }
        }
        Ok(ask)
    }
}

impl Ask {
    /// A request whose body is JSON or XML, never a form.
    pub(crate) async fn without_form(request: Request, api: &Shared) -> Result<Self, Failed> {
        let (mut ask, text) = Self::read(request, api).await?;
        if text.trim_start().starts_with('<') || ask.content == "application/json" {
            // No body has such a value, and a handler that wants none would not look.
            let has_value = |text: &str| {
                serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(text)
                    .is_ok_and(|body| body.contains_key(TRIAL))
            };
            if text.contains(TRIAL) && has_value(&text) {
                return Err(Failed::Bad(format!("{TRIAL} is said in the query: nothing was done")));
            }
            ask.raw = Some(text);
        } else if !text.is_empty() {
            return Err(Failed::NoJson);
        }
        Ok(ask)
    }

    /// All but the body, which is text yet.
    async fn read(request: Request, api: &Shared) -> Result<(Self, String), Failed> {
        let (mut parts, body) = request.into_parts();
        let path = RawPathParams::from_request_parts(&mut parts, api)
            .await
            .map_err(|_| Failed::Bad("the path is not UTF-8 text".to_owned()))?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let most = parts.extensions.get().map_or(api.limits.body_bytes, |MostBytes(most)| *most);
        let text =
            timeout(api.limits.body_within, read(body, most)).await.map_err(|_| Failed::SlowBody)??;
        let content = parts.headers.get(header::CONTENT_TYPE).map_or("", |kind| kind.to_str().unwrap_or("?"));
        let mut ask = Self {
            path,
            who: parts.extensions.remove(),
            from: parts.extensions.remove(),
            only_for: parts
                .headers
                .get(header::IF_MATCH)
                .map(|mark| mark.to_str().unwrap_or_default().to_owned()),
            content: content.split(';').next().unwrap_or_default().trim().to_ascii_lowercase(),
            ..Self::default()
        };
        ask.take(parts.uri.query().unwrap_or_default())?;
        // Whoever holds the body back until the token is taken away is nobody any more.
        if ask.who.as_ref().is_some_and(|who| !api.gate.still(who)) {
            return Err(Failed::Revoked);
        }
        Ok((ask, text))
    }

    fn take(&mut self, form: &str) -> Result<(), Failed> {
        self.fields.extend(form_urlencoded::parse(form.trim().as_bytes()).into_owned().take(MOST_FIELDS + 1));
        if self.fields.len() > MOST_FIELDS {
            return Err(Failed::Bad(format!("there are more than {MOST_FIELDS} values")));
        }
        Ok(())
    }
}

/// A request with its body in memory, and that: the same bytes.
pub(crate) async fn whole(request: Request, api: &Shared, most: usize) -> Result<(Request, Bytes), Failed> {
    let (parts, body) = request.into_parts();
    let text = timeout(api.limits.body_within, read(body, most)).await.map_err(|_| Failed::SlowBody)??;
    let bytes = Bytes::from(text);
    Ok((Request::from_parts(parts, Body::from(bytes.clone())), bytes))
}

/// A request that only reads, with its body, and whether that says anything: no more than a few words.
pub(crate) async fn at_hand(request: Request, api: &Shared) -> Result<(Request, bool), Failed> {
    let MostBytes(most) = MostBytes::OF_READS;
    let (request, body) = whole(request, api, most).await?;
    Ok((request, !body.is_empty()))
}

/// Into one buffer, whatever pieces it comes in: a handle for each byte would be many times as large.
async fn read(body: Body, most: usize) -> Result<String, Failed> {
    let (mut pieces, mut bytes) = (body.into_data_stream(), Vec::new());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Failed::LargeBody(most))?;
        if piece.len() > most - bytes.len() {
            return Err(Failed::LargeBody(most));
        }
        bytes.extend_from_slice(&piece);
    }
    String::from_utf8(bytes).map_err(|_| Failed::Bad("the body is not UTF-8 text".to_owned()))
}
