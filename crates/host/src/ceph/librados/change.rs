//! Changes pools, images and OSDs.
//!
//! While a running VM's client holds an image's lock, librbd has that client make the change. It asks a client that hangs again and
//! again; after half a minute it shuts that client out and makes the change itself: the VM has lost its disk because of a snapshot. So an image
//! is changed over a connection of its own, which can be cut off, and which is not the one that fences:
//!
//! ```text
//!   is it still to be done? ──no──► void
//!        │
//!   ask all who have the image open ──one is silent──► refused
//!        └─all answer──► change ──made──► close
//!                          └─another holds the lock after 10 s──► blocklist this connection ──► late
//! ```
//! What is changed is the image that was looked at, by its id: another one that has its name by now is left alone.
//! Who has answered is taken for alive by everybody for the next 20 s at least. It may make the change after we have said `late`.
//!
//! This process may freeze between any two steps, and the cluster goes on without it. Whoever carries its task on shuts out its client first, which stands at the
//! task before anything is done. A VM that starts meanwhile is no less safe: what would lose data holds the image's lock before it looks who has the image open for
//! the last time, and gives the lock to nobody; librbd takes it from one that is silent by shutting it out.

use std::{sync::Arc, time::Duration};

use pvc_core::model::{
    ceph::{ClientAddress, ImageName, SnapshotName, Users},
    storage::CephChange,
};
use serde_json::{Value, json};
use tokio::time::{Instant, interval_at, timeout};

use super::{
    super::{
        Ceph as _, CephError, OnlyIf, Progress,
        cluster::{Cluster, Image},
    },
    CALL, Librados, Link, blocklist, client, told, users,
};
use crate::blocking::Slot;

/// After how long a change of an image is cut off that says nothing of how far it is, or gets no further: one is removed object by object, some thousands a second.
const CHANGE: Duration = Duration::from_hours(1);
/// How long one may take at all.
const LONGEST: Duration = Duration::from_hours(48);
/// After how long one of its operations ends without an answer, in seconds. One slow OSD should leave nothing half removed.
const OPERATION: &str = "60";
/// How long another client may let a change wait.
const ANOTHERS: Duration = Duration::from_secs(10);
/// How often it is looked at after that who holds the lock.
const LOOK: Duration = Duration::from_secs(5);
/// How long a change may take to end after it was cut off.
const END: Duration = Duration::from_mins(2);

impl Librados {
    pub(super) async fn make(
        &self,
        change: CephChange,
        only_if: OnlyIf<'_>,
        progress: &Progress,
    ) -> Result<(), CephError> {
        let doing = change.to_string();
        let slot = self.changes.take(Instant::now() + CHANGE).await;
        let slot = slot.map_err(|failure| told(failure, &doing))?;
        let made = match work(change, only_if.image.map(str::to_owned), progress) {
            Work::Ask(commands) => {
                only_if.warrant.holds().await?;
                self.ask(commands).await
            }
            Work::Image(image, job) => {
                let (link, own) = self.connect_to_change(Instant::now() + CHANGE, &doing).await?;
                only_if.warrant.holds_for(&own).await?;
                // Somebody must be there to cut it off until it has ended, also if the caller is not.
                let (this, doing) = (self.clone(), doing.clone());
                let work = Guarded { image, job, link, own, slot, progress: progress.clone() };
                let guarded = async move { this.make_guarded(work, &doing).await };
                let panicked = |error| Err(CephError::Strange(format!("{error}")));
                tokio::spawn(guarded).await.unwrap_or_else(panicked)
            }
        };
        made.map_err(|error| match error {
            CephError::Refused { why, .. } => CephError::Refused { doing, why },
            CephError::Late { doing: what } => CephError::Late { doing: format!("{doing} ({what})") },
            other => other,
        })
    }

    async fn ask(&self, commands: Vec<Value>) -> Result<(), CephError> {
        for command in commands {
            self.monitors(command).await?;
        }
        Ok(())
    }

    /// A connection of a change's own, and where it is.
    async fn connect_to_change(
        &self,
        deadline: Instant,
        doing: &str,
    ) -> Result<(Arc<Link>, ClientAddress), CephError> {
        let (access, workers) = (self.access.clone(), self.workers.clone());
        let connect = move || {
            let link = super::connect(&access, OPERATION, workers)?;
            let own = client(&link.cluster()?.own_address()?)?;
            Ok((link, own))
        };
        self.workers.call(deadline, connect).await.map_err(|failure| told(failure, doing))
    }

    async fn make_guarded(&self, work: Guarded, doing: &str) -> Result<(), CephError> {
        let Guarded { image, job, link, own, slot, progress } = work;
        let fault = |failure| told(failure, doing);
        let (of_job, named) = (link.clone(), image.clone());
        let work = move || {
            let _slot = slot;
            step("warranted");
            job(of_job.cluster()?, &named)
        };
        // It is waited for until it has ended or is cut off.
        let mut made = std::pin::pin!(self.workers.call(Instant::now() + 10 * LONGEST, work));
        let (mut moved, mut done) = (Instant::now(), 0);
        let end = moved + LONGEST;
        let mut looks = interval_at(Instant::now() + ANOTHERS, LOOK);
        let what = loop {
            let now = tokio::select! {
                made = &mut made => return made.map_err(fault),
                now = looks.tick() => now,
            };
            if progress.done() != done {
                (moved, done) = (now, progress.done());
            }
            let what = match (progress.called_off(), self.another(&image, &own).await) {
                (Some(why), _) => why,
                (None, Ok(Some(holder))) => format!("client {holder}, which holds the lock, does not do it"),
                _ if now >= end || now.duration_since(moved) >= CHANGE => format!("for {CHANGE:?}"),
                // What is not known now is looked at again.
                (None, Ok(None) | Err(_)) => continue,
            };
            tracing::warn!(doing, what, "a change of an image is cut off");
            match self.cut_off(&link, &own).await {
                Ok(()) => break what,
                Err(error) => tracing::warn!(doing, %error, "a change of an image is not cut off yet"),
            }
        };
        let Ok(made) = timeout(END, made).await else {
            // Its entry stays.
            return Err(CephError::Late { doing: what });
        };
        // Nobody writes by it any more. An entry that stays harms nobody.
        if let Err(error) = self.lift(&own).await {
            tracing::warn!(doing, %error, "the entry of a connection that was cut off stays in the blocklist");
        }
        match progress.called_off() {
            // Nobody else does it: what is called off is done by us alone.
            Some(why) => made.map_err(|_| refused(why)),
            // Whoever was asked may do it yet.
            None => made.map_err(|_| CephError::Late { doing: what }),
        }
    }

    /// Returns when nothing more is done by a connection.
    async fn cut_off(&self, link: &Arc<Link>, own: &ClientAddress) -> Result<(), CephError> {
        self.blocklist(own).await?;
        // The OSDs learn it from this connection.
        let link = Arc::clone(link);
        let hear = move || Ok(link.cluster()?.await_latest_map()?);
        let doing = "cutting off a connection";
        self.workers.call(Instant::now() + CALL, hear).await.map_err(|failure| told(failure, doing))
    }

    /// Who holds the lock of an image, unless it is us.
    async fn another(
        &self,
        image: &ImageName,
        own: &ClientAddress,
    ) -> Result<Option<ClientAddress>, CephError> {
        let users = self.users(image).await?.unwrap_or_default();
        Ok(users.locks.iter().map(|lock| lock.address).find(|address| address != own))
    }
}

/// Who makes a change, and how.
enum Work {
    /// The monitors, one command after the other.
    Ask(Vec<Value>),
    /// We, with librbd.
    Image(ImageName, Job),
}

/// A change of an image, and what it is made with.
struct Guarded {
    image: ImageName,
    job: Job,
    link: Arc<Link>,
    own: ClientAddress,
    slot: Slot,
    progress: Progress,
}

type Job = Box<dyn FnOnce(&Cluster, &ImageName) -> Result<(), CephError> + Send>;

/// A change, of the image that has this id.
fn work(change: CephChange, id: Option<String>, progress: &Progress) -> Work {
    let progress = progress.clone();
    let ask = |command| Work::Ask(vec![command]);
    match change {
        CephChange::CreatePool { pool, pgs } => ask(json!({
            "prefix": "osd pool create", "pool": pool.as_str(), "pg_num": pgs.0, "pool_type": "replicated"
        })),
        CephChange::KeepCopies { pool, copies, min_copies } => {
            let set = |key, count: u32| json!({"prefix": "osd pool set", "pool": pool.as_str(), "var": key, "val": count.to_string()});
            // The least is lowered with the first if it must be.
            Work::Ask(vec![set("size", copies), set("min_size", min_copies)])
        }
        CephChange::MarkForImages { pool } => {
            ask(json!({"prefix": "osd pool application enable", "pool": pool.as_str(), "app": "rbd"}))
        }
        CephChange::RenamePool { pool, to } => ask(json!({
            "prefix": "osd pool rename", "srcpool": pool.as_str(), "destpool": to.as_str()
        })),
        CephChange::RemovePool { pool } => ask(json!({
            "prefix": "osd pool delete", "pool": pool.as_str(), "pool2": pool.as_str(),
            "yes_i_really_really_mean_it": true
        })),
        CephChange::UseOsd { osd, is_in } => {
            let prefix = if is_in { "osd in" } else { "osd out" };
            ask(json!({"prefix": prefix, "ids": [osd.to_string()]}))
        }
        CephChange::WeighOsd { osd, weight } => ask(json!({
            "prefix": "osd crush reweight", "name": format!("osd.{osd}"), "weight": weight.value()
        })),
        CephChange::DestroyOsd { osd } => ask(super::osds::destroy(osd)),
        // A refusal of the first ends it. Of one that never was up Ceph can say nothing while anything is amiss anywhere.
        CephChange::PurgeOsd { osd, was_up: true } => {
            Work::Ask(vec![super::osds::is_safe(osd), super::osds::purge(osd)])
        }
        CephChange::PurgeOsd { osd, was_up: false } => ask(super::osds::purge_new(osd)),
        CephChange::Flag { flag, is_set } => {
            let prefix = if is_set { "osd set" } else { "osd unset" };
            ask(json!({"prefix": prefix, "key": flag.as_str()}))
        }
        CephChange::CreateImage { image, size } => at(image, move |cluster, image| {
            let (pool, volume) = parts(image);
            Ok(cluster.create_image(pool, volume, size.0)?)
        }),
        CephChange::ResizeImage { image, size, .. } => {
            at(image, move |cluster, image| resize(cluster, (image, id.as_deref()), size.0, &progress))
        }
        CephChange::RenameImage { image, to } => {
            at(image, move |cluster, image| rename(cluster, (image, id.as_deref()), to.as_str()))
        }
        CephChange::RemoveImage { image } => {
            at(image, move |cluster, image| remove(cluster, (image, id.as_deref()), &progress))
        }
        CephChange::CreateSnapshot { image, snapshot } => at(image, move |cluster, image| {
            all_answer(cluster, image, id.as_deref())?;
            Ok(open_to_change(cluster, image, id.as_deref())?.create_snapshot(snapshot.as_str())?)
        }),
        CephChange::RenameSnapshot { image, snapshot, to } => at(image, move |cluster, image| {
            all_answer(cluster, image, id.as_deref())?;
            Ok(open_to_change(cluster, image, id.as_deref())?
                .rename_snapshot(snapshot.as_str(), to.as_str())?)
        }),
        CephChange::RemoveSnapshot { image, snapshot } => at(image, move |cluster, image| {
            all_answer(cluster, image, id.as_deref())?;
            Ok(open_to_change(cluster, image, id.as_deref())?.remove_snapshot(snapshot.as_str())?)
        }),
        // What is changed is the copy: whoever uses the other image is asked nothing.
        CephChange::CopyImage { image: from, snapshot, to, mark } => {
            let copy = ImageName { pool: from.pool.clone(), volume: to };
            at(copy, move |cluster, copy| {
                self::copy(cluster, (&from, id.as_deref(), &snapshot), (copy, &mark), &progress)
            })
        }
        CephChange::RollBack { image, snapshot, marks } => at(image, move |cluster, image| {
            roll_back(cluster, (image, id.as_deref()), (&snapshot, &marks), &progress)
        }),
    }
}

fn at(
    image: ImageName,
    job: impl FnOnce(&Cluster, &ImageName) -> Result<(), CephError> + Send + 'static,
) -> Work {
    Work::Image(image, Box::new(job))
}

fn parts(image: &ImageName) -> (&str, &str) {
    (image.pool.as_str(), image.volume.as_str())
}

/// Opens an image, if it has this id. What is done with it then is done to that one, whatever has its name by then.
fn open_to_change<'c>(
    cluster: &'c Cluster,
    image: &ImageName,
    id: Option<&str>,
) -> Result<Image<'c>, CephError> {
    let (pool, volume) = parts(image);
    let open = cluster.open_to_change(pool, volume)?;
    is_same(&open, id)?;
    Ok(open)
}

fn is_same(open: &Image<'_>, id: Option<&str>) -> Result<(), CephError> {
    if open.id()?.as_deref() == id {
        return Ok(());
    }
    Err(refused("another image has that name since it was looked at"))
}

/// Ceph renames in steps: it writes the new name, changes the pool's list, and removes the old name. Whoever was cut off in between has left both names,
/// and Ceph renames neither. The one that is in the list stays.
fn rename(cluster: &Cluster, (image, id): (&ImageName, Option<&str>), to: &str) -> Result<(), CephError> {
    let (pool, volume) = parts(image);
    all_answer(cluster, image, id)?;
    step("looked");
    if let (Some(id), Some(other)) = (id, cluster.open(pool, to)?)
        && other.id()?.as_deref() == Some(id)
    {
        drop(other);
        match cluster.name_of(pool, id)? {
            Some(listed) if listed == to => return Ok(cluster.forget_name(pool, volume)?),
            Some(listed) if listed == volume => cluster.forget_name(pool, to)?,
            _ => return Err(refused("it has two names, and neither is in its pool's list")),
        }
    }
    Ok(cluster.rename_image(pool, volume, to)?)
}

fn resize(
    cluster: &Cluster,
    (image, id): (&ImageName, Option<&str>),
    size: u64,
    progress: &Progress,
) -> Result<(), CephError> {
    let is_used = !all_answer(cluster, image, id)?.watchers.is_empty();
    let open = open_to_change(cluster, image, id)?;
    if size < open.stats()?.size {
        if is_used {
            return Err(refused("somebody who has it open would lose what is beyond"));
        }
        lock_unused(cluster, &open)?;
    }
    Ok(open.resize(size, progress)?)
}

/// A lock whose holder has not been heard for half a minute is taken from it, as a fence does: it has nothing left to write to.
fn remove(
    cluster: &Cluster,
    (image, id): (&ImageName, Option<&str>),
    progress: &Progress,
) -> Result<(), CephError> {
    let (pool, volume) = parts(image);
    if let Some(open) = cluster.open(pool, volume)? {
        is_same(&open, id)?;
        bury(cluster, &open)?;
        let users = users(&open)?;
        if let Some(user) = users.watchers.first() {
            return Err(has_it_open(user));
        }
        if !open.snapshots()?.is_empty() {
            return Err(refused("it has snapshots"));
        }
        for lock in &users.locks {
            open.break_lock(&lock.client, &lock.cookie)?;
        }
        open.set_changer(&cluster.own_address()?)?;
        open_to_change(cluster, image, id)?.remove_leftovers()?;
    }
    step("looked");
    Ok(cluster.remove_image(pool, volume, progress)?)
}

/// Copies a snapshot of the image with this id.
fn copy(
    cluster: &Cluster,
    (from, id, snapshot): (&ImageName, Option<&str>, &SnapshotName),
    (to, mark): (&ImageName, &str),
    progress: &Progress,
) -> Result<(), CephError> {
    let open = || -> Result<(Image<'_>, u64), CephError> {
        let (pool, volume) = parts(from);
        let Some(image) = cluster.open_snapshot(pool, volume, snapshot.as_str())? else {
            return Err(refused("there is no such snapshot"));
        };
        is_same(&image, id)?;
        let number = image.snapshot_id(snapshot.as_str())?;
        Ok((image, number.ok_or_else(|| refused("there is no such snapshot"))?))
    };
    let (source, number) = open()?;
    let (pool, volume) = parts(to);
    cluster.create_image(pool, volume, source.stats()?.size)?;
    let copy = cluster.open_to_change(pool, volume)?;
    copy.set_changer(&cluster.own_address()?)?;
    source.copy_to(&copy, progress)?;
    // What is read of a snapshot after its removal is zeros, without an error.
    if open()?.1 != number {
        return Err(refused("its snapshot was removed while it was copied"));
    }
    Ok(copy.set_mark(mark)?)
}

fn roll_back(
    cluster: &Cluster,
    (image, id): (&ImageName, Option<&str>),
    (snapshot, [begun, done]): (&SnapshotName, &[String; 2]),
    progress: &Progress,
) -> Result<(), CephError> {
    if let Some(client) = all_answer(cluster, image, id)?.watchers.first() {
        return Err(has_it_open(client));
    }
    let open = open_to_change(cluster, image, id)?;
    lock_unused(cluster, &open)?;
    if open.snapshot_id(snapshot.as_str())?.is_none() {
        return Err(refused("there is no such snapshot"));
    }
    open.set_mark(begun)?;
    step("marked");
    open.roll_back(snapshot.as_str(), progress)?;
    step("rolled back");
    Ok(open.set_mark(done)?)
}

fn has_it_open(client: &ClientAddress) -> CephError {
    refused(format!("client {client} has it open"))
}

/// Takes the lock of an image, which nobody gets until it is closed, and looks once more who else has it open: whoever opens it after that look gets no lock, and
/// can write nothing.
fn lock_unused(cluster: &Cluster, open: &Image<'_>) -> Result<(), CephError> {
    step("opened");
    open.lock()?;
    step("locked");
    let own = client(&cluster.own_address()?)?;
    let another = users(open)?.watchers.into_iter().find(|client| *client != own);
    step("looked");
    another.map_or(Ok(()), |client| Err(has_it_open(&client)))
}

/// Between two steps of a change: a test freezes the process here.
fn step(name: &str) {
    #[cfg(test)]
    tests::freeze_at(name);
    #[cfg(not(test))]
    let _ = name;
}

/// Who uses the image with this id, all of whom execute.
fn all_answer(cluster: &Cluster, image: &ImageName, id: Option<&str>) -> Result<Users, CephError> {
    let (pool, volume) = parts(image);
    let Some(open) = cluster.open(pool, volume)? else { return Err(refused("there is no such image")) };
    is_same(&open, id)?;
    bury(cluster, &open)?;
    if !open.is_answered()? {
        return Err(refused("whoever has it open does not answer"));
    }
    let users = users(&open)?;
    let silent = users.locks.iter().find(|lock| !users.watchers.contains(&lock.address));
    match silent {
        Some(lock) => Err(refused(format!(
            "client {} holds its lock and is not heard any more; if its VM is off, `pvc vm flush-locks` takes the lock",
            lock.address
        ))),
        None => {
            step("asked");
            open.set_changer(&cluster.own_address()?)?;
            Ok(users)
        }
    }
}

/// Shuts out who changed an image before us and died over it, its lock and its watch with it. One that lives is waited for; if it lives and another one is
/// silent, a change is broken off that could not have got on.
fn bury(cluster: &Cluster, open: &Image<'_>) -> Result<(), CephError> {
    let Some(earlier) = open.changer()?.and_then(|text| client(&text).ok()) else { return Ok(()) };
    let users = users(open)?;
    if !users.addresses().any(|address| address == earlier) {
        return Ok(());
    }
    if users.watchers.contains(&earlier) && open.is_answered()? {
        // Another primary's, which goes on for as long as it takes.
        return Err(CephError::Late { doing: format!("client {earlier} is changing it") });
    }
    cluster.ask_monitors(&blocklist(&earlier).to_string())?;
    cluster.await_latest_map()?;
    for lock in users.locks.iter().filter(|lock| lock.address == earlier) {
        open.break_lock(&lock.client, &lock.cookie)?;
    }
    Ok(())
}

fn refused(why: impl Into<String>) -> CephError {
    CephError::Refused { doing: String::new(), why: why.into() }
}

#[cfg(test)]
mod tests;
