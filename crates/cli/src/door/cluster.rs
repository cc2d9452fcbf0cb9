//! The cluster as a whole: its status, maintenance, forecasts, tokens, the audit.

use pvc_core::{
    command::{
        forecast::{Expected, Place},
        status::Status,
    },
    model::{Problem, audit::AuditEntry},
    plan::placement::Selector,
};
use pvc_operate::{
    Answer, Maintenance, audit, forecast, status,
    token::{self, Added, NewToken, TokenRow},
    top::{self, Top},
};
use serde_json::json;

use super::{Call, Door, Listing, now_unix_s, whole};
use crate::{connect, failure::Failure};

impl Door {
    pub(crate) async fn status(&self) -> Result<Status, Failure> {
        match self {
            Self::Direct(cluster) => Ok(status::status(cluster, now_unix_s()).await?),
            Self::Api(api) => api.ask(Call::get(&["status"])).await,
        }
    }

    pub(crate) async fn maintenance(&self) -> Result<Maintenance, Failure> {
        match self {
            Self::Direct(cluster) => Ok(cluster.maintenance().await?),
            Self::Api(api) => api.ask(Call::get(&["maintenance"])).await,
        }
    }

    pub(crate) async fn set_maintenance(&self, on: bool) -> Result<Answer, Failure> {
        match self {
            Self::Direct(cluster) => Ok(cluster.set_maintenance(on).await?),
            Self::Api(api) => api.ask(Call::put(&["maintenance"]).json(&json!({ "maintenance": on }))).await,
        }
    }

    /// One look for who watches.
    pub(crate) async fn top(&self, most: usize) -> Result<Top, Failure> {
        match self {
            Self::Direct(cluster) => Ok(top::top(cluster, now_unix_s(), most).await?),
            Self::Api(api) => api.ask(Call::get(&["top"]).query("most", &most.to_string())).await,
        }
    }

    pub(crate) async fn forecast_of_flush(
        &self,
        node: &str,
        selector: Selector,
    ) -> Result<Vec<Expected>, Failure> {
        match self {
            Self::Direct(cluster) => Ok(forecast::flush(cluster, node, selector).await?),
            Self::Api(api) => api.ask(forecast_call(&["plan", "flush", node], selector)).await,
        }
    }

    pub(crate) async fn forecast_of_death(
        &self,
        node: &str,
        selector: Selector,
    ) -> Result<Vec<Expected>, Failure> {
        match self {
            Self::Direct(cluster) => Ok(forecast::death(cluster, node, selector).await?),
            Self::Api(api) => api.ask(forecast_call(&["plan", "death", node], selector)).await,
        }
    }

    pub(crate) async fn forecast_of_vm(&self, vm: &str, selector: Selector) -> Result<Vec<Place>, Failure> {
        match self {
            Self::Direct(cluster) => Ok(forecast::vm(cluster, vm, selector).await?),
            Self::Api(api) => api.ask(forecast_call(&["plan", "vm", vm], selector)).await,
        }
    }

    pub(crate) async fn audit(&self, most: u64) -> Result<(Vec<AuditEntry>, Vec<Problem>), Failure> {
        match self {
            Self::Direct(cluster) => Ok(audit::list(cluster, most).await?),
            Self::Api(api) => {
                let call = whole(&["audit"]).query("lines", &most.to_string());
                Ok(api.ask::<Listing<_>>(call).await?.into())
            }
        }
    }

    pub(crate) async fn add_token(&self, new: NewToken) -> Result<Added, Failure> {
        match self {
            Self::Direct(cluster) => Ok(token::add(cluster, new, now_unix_s()).await?),
            Self::Api(api) => {
                let NewToken { name, role, vms, expires_unix_s } = new;
                let mut body = json!({ "name": name, "role": role });
                if let Some(vms) = vms {
                    body["vms"] = json!(vms);
                }
                if let Some(end) = expires_unix_s {
                    body["expires_unix_s"] = end.into();
                }
                api.ask(Call::post(&["tokens"]).json(&body)).await
            }
        }
    }

    pub(crate) async fn tokens(&self) -> Result<(Vec<TokenRow>, Vec<Problem>), Failure> {
        match self {
            Self::Direct(cluster) => Ok(token::list(cluster).await?),
            Self::Api(api) => Ok(api.ask::<Listing<_>>(whole(&["tokens"])).await?.into()),
        }
    }

    pub(crate) async fn remove_token(&self, name: &str) -> Result<Answer, Failure> {
        match self {
            Self::Direct(cluster) => Ok(token::remove(cluster, name).await?),
            Self::Api(api) => api.ask(Call::delete(&["tokens", name])).await,
        }
    }

    /// How a node is chosen where nobody says it: by this machine's configuration; the API says it by itself.
    pub(super) fn selector(given: Option<Selector>) -> Selector {
        connect::selector(given)
    }
}

fn forecast_call(parts: &[&str], selector: Selector) -> Call {
    Call::get(parts).query("selector", &selector.to_string())
}
