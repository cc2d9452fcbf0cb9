//! A cluster with an image and somebody who writes to it: the fake, and the real one with QEMU's own driver.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use pvc_core::model::ceph::ImageName;
use pvc_host::{
    ceph::{
        Access, Ceph, CephAdmin, Librados,
        fake::{FakeCeph, FakeWriter},
    },
    testing::ceph::{CephCluster, POOL, QemuWriter},
    warrant::{Void, Warrant},
};

pub(crate) trait Rig {
    type Writer: Writer;

    fn ceph(&self) -> &dyn Ceph;
    fn ceph_shared(&self) -> Arc<dyn Ceph>;
    fn admin(&self) -> &dyn CephAdmin;
    fn create(&self, image: &ImageName);
    fn open(&self, image: &ImageName) -> Self::Writer;
    fn contents(&self, image: &ImageName) -> u8;
}

pub(crate) trait Writer {
    /// Fills the image with a byte; whether that succeeded.
    fn write(&mut self, byte: u8) -> bool;
    /// Closes the image in order.
    fn close(self);
    /// Stops executing, having begun to fill the image with a byte where that can be.
    fn freeze_before_writing(&mut self, byte: u8);
    /// Goes on; whether what had begun succeeded.
    fn thaw(&mut self, byte: u8) -> bool;
}

/// Holds so many times.
pub(crate) struct Holds(AtomicUsize);

impl Holds {
    pub(crate) fn times(times: usize) -> Self {
        Self(AtomicUsize::new(times))
    }

    pub(crate) fn always() -> Self {
        Self::times(usize::MAX)
    }
}

#[async_trait]
impl Warrant for Holds {
    async fn holds(&self) -> Result<(), Void> {
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| Void::Overtaken("the fence".to_owned()))
    }
}

pub(crate) fn image(name: &str) -> ImageName {
    format!("{POOL}/{name}").parse().unwrap()
}

pub(crate) struct Fake(pub(crate) Arc<FakeCeph>);

impl Rig for Fake {
    type Writer = FakeWriter;

    fn ceph(&self) -> &dyn Ceph {
        &*self.0
    }

    fn ceph_shared(&self) -> Arc<dyn Ceph> {
        Arc::clone(&self.0) as Arc<dyn Ceph>
    }

    fn admin(&self) -> &dyn CephAdmin {
        &*self.0
    }

    fn create(&self, image: &ImageName) {
        self.0.create(image);
    }

    fn open(&self, image: &ImageName) -> FakeWriter {
        self.0.open(image, Ipv4Addr::LOCALHOST)
    }

    fn contents(&self, image: &ImageName) -> u8 {
        self.0.contents(image).unwrap()
    }
}

impl Writer for FakeWriter {
    fn write(&mut self, byte: u8) -> bool {
        FakeWriter::write(self, byte)
    }

    fn close(self) {
        FakeWriter::close(self);
    }

    fn freeze_before_writing(&mut self, _byte: u8) {
        self.freeze();
    }

    fn thaw(&mut self, byte: u8) -> bool {
        FakeWriter::thaw(self);
        FakeWriter::write(self, byte)
    }
}

pub(crate) struct Real {
    pub(crate) ceph: Arc<Librados>,
    /// Dropped last: it waits for connections to be closed.
    pub(crate) cluster: CephCluster,
}

impl Real {
    pub(crate) fn start() -> Self {
        let cluster = CephCluster::start().unwrap();
        let ceph = Librados::new(Access { configuration: cluster.configuration(), ..Access::default() });
        Self { ceph: Arc::new(ceph), cluster }
    }
}

impl Rig for Real {
    type Writer = QemuWriter;

    fn ceph(&self) -> &dyn Ceph {
        &*self.ceph
    }

    fn ceph_shared(&self) -> Arc<dyn Ceph> {
        Arc::clone(&self.ceph) as Arc<dyn Ceph>
    }

    fn admin(&self) -> &dyn CephAdmin {
        &*self.ceph
    }

    fn create(&self, image: &ImageName) {
        self.cluster.create(image.volume.as_str()).unwrap();
    }

    fn open(&self, image: &ImageName) -> QemuWriter {
        self.cluster.open(image).unwrap()
    }

    fn contents(&self, image: &ImageName) -> u8 {
        self.cluster.contents(image).unwrap()
    }
}

impl Writer for QemuWriter {
    fn write(&mut self, byte: u8) -> bool {
        self.begin(byte).unwrap();
        self.end().unwrap()
    }

    fn close(self) {
        QemuWriter::close(self).unwrap();
    }

    fn freeze_before_writing(&mut self, byte: u8) {
        self.freeze().unwrap();
        self.begin(byte).unwrap();
    }

    fn thaw(&mut self, _byte: u8) -> bool {
        QemuWriter::thaw(self).unwrap();
        self.end().unwrap()
    }
}
