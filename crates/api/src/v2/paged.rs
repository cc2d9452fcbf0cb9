//! A list a page at a time: `count` rows after the one that `after` names, and where the next page is. The mark of a row is made of what does not change while
//! it is there, so a row that comes or goes neither repeats nor hides another.

use std::{fmt::Display, str::FromStr};

use axum::{
    http::{HeaderValue, header},
    response::Response,
};
use serde::Serialize;

use super::{Outcome, Problem, typed};
use crate::{
    ask::Ask,
    reply::{Failed, json},
};

/// The most rows of a page.
const MOST: usize = 1000;

/// Asks for what there is to say beside the rows.
pub(super) const WHOLE: &str = "whole";

/// Which rows are asked for.
pub(super) struct Page<M> {
    count: Option<usize>,
    after: Option<M>,
}

impl<M: FromStr<Err: Display>> Page<M> {
    pub(super) fn of(ask: &Ask) -> Result<Self, Problem> {
        let count: Option<usize> = ask.given("count").map(|text| typed("count", text)).transpose()?;
        let after: Option<M> = ask.given("after").map(|text| typed("after", text)).transpose()?;
        if count.is_some_and(|count| !(1..=MOST).contains(&count)) {
            return Err(Failed::Bad(format!("count: a page has 1 to {MOST} rows")).into());
        }
        Ok(Self { count, after })
    }

    /// The mark behind which it begins.
    pub(super) fn after(&self) -> Option<&M> {
        self.after.as_ref()
    }

    /// As many of these, which are behind the mark and in their order, as a page has; and the mark of the last, if there are more.
    pub(super) fn take<R>(
        &self,
        rows: impl Iterator<Item = R>,
        mark: impl Fn(&R) -> String,
    ) -> (Vec<R>, Option<String>) {
        let Some(count) = self.count else { return (rows.collect(), None) };
        let mut rows: Vec<R> = rows.take(count + 1).collect();
        if rows.len() <= count {
            return (rows, None);
        }
        rows.truncate(count);
        let next = rows.last().map(mark);
        (rows, next)
    }
}

/// What there is to say beside the rows of a list: with `whole`, the list is an object that has both.
pub(super) fn is_whole(ask: &Ask) -> Result<bool, Problem> {
    let whole = ask.given(WHOLE).map_or(Ok(false), |text| typed(WHOLE, text))?;
    if whole && (ask.flag("count") || ask.flag("after")) {
        return Err(
            Failed::Bad("a page is no whole list: leave out count and after, or whole".to_owned()).into()
        );
    }
    Ok(whole)
}

/// The same, or with `whole` an object with the rows and what is wrong with those that cannot be shown.
pub(super) fn list_with<R: Serialize, M: Ord + Display + FromStr<Err: Display>>(
    ask: &Ask,
    rows: Vec<R>,
    problems: &[pvc_core::model::Problem],
    mark: impl Fn(&R) -> M,
) -> Outcome {
    if is_whole(ask)? {
        return Ok(json(&serde_json::json!({ "rows": rows, "problems": problems }))?);
    }
    list(ask, rows, mark)
}

/// All rows, or a page of them in the order of their marks, if one is asked for.
pub(super) fn list<R: Serialize, M: Ord + Display + FromStr<Err: Display>>(
    ask: &Ask,
    mut rows: Vec<R>,
    mark: impl Fn(&R) -> M,
) -> Outcome {
    let page = Page::<M>::of(ask)?;
    if page.count.is_none() && page.after.is_none() {
        return Ok(json(&rows)?);
    }
    rows.sort_by_cached_key(&mark);
    if let Some(after) = page.after() {
        let beyond = rows.partition_point(|row| mark(row) <= *after);
        rows.drain(..beyond);
    }
    let (rows, next) = page.take(rows.into_iter(), |row| mark(row).to_string());
    Ok(linked(json(&rows)?, ask, next))
}

/// The same, and where the next page is, which begins behind that mark.
pub(super) fn linked(mut response: Response, ask: &Ask, next: Option<String>) -> Response {
    let query = next.map(|mark| ask.with("after", &mark));
    let link = query.and_then(|query| HeaderValue::from_str(&format!("<?{query}>; rel=\"next\"")).ok());
    link.and_then(|link| response.headers_mut().insert(header::LINK, link));
    response
}
