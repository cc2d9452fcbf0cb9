//! What a desk does over IPv6: it gives out addresses by DHCPv6, and says what the network's router is.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use pvc_core::{
    model::{
        HostName, Mac, Vni,
        dhcp::Request,
        dhcp6::{Lease6, Request6},
    },
    plan::{
        dhcp6,
        gateway_services::{Served, Served4},
        guest_names::Names,
    },
};
use pvc_host::dhcp::{Asked6, Asker, Dhcp6Exchange};
use pvc_store::schema::network::leases6;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{Asked, Desk, Open, TRY_AGAIN, pass_on};

/// How often all guests are told of the router that nobody asks for (RFC 4861, section 6.2.1).
const SAY_EVERY: Duration = Duration::from_mins(10);

/// How often at first: one that is lost shall not matter (section 6.2.4).
const SAY_FIRST: Duration = Duration::from_secs(16);

/// So many are the first.
const FIRST: u32 = 3;

/// All guests are told again at the earliest after so long, whoever asks (section 6.2.6).
const SAY_AGAIN: Duration = Duration::from_secs(3);

/// The router's address may come a little later.
const TRY_TO_SAY_AGAIN: Duration = Duration::from_secs(1);

/// When all guests are told of the router.
#[derive(Default)]
pub(super) struct Herald {
    /// How often it was said.
    said: u32,
    last: Option<Instant>,
    next: Option<Instant>,
}

impl Herald {
    /// When it is said next.
    pub(super) fn next(&self, is_router: bool) -> Instant {
        let now = Instant::now();
        if is_router { self.next.unwrap_or(now) } else { now + SAY_EVERY }
    }

    fn note(&mut self, was_said: bool) {
        let now = Instant::now();
        if was_said {
            self.said = self.said.saturating_add(1);
            self.last = Some(now);
        }
        let pause = match self.said {
            _ if !was_said => TRY_TO_SAY_AGAIN,
            ..=FIRST => SAY_FIRST,
            _ => SAY_EVERY,
        };
        self.next = Some(now + pause);
    }

    /// Somebody without an address asks.
    fn is_asked(&mut self) {
        let soonest = self.last.map_or_else(Instant::now, |last| last + SAY_AGAIN);
        self.next = Some(self.next.map_or(soonest, |next| next.min(soonest)));
    }
}

pub(super) async fn hear(exchange: Arc<dyn Dhcp6Exchange>, open: Arc<Mutex<BTreeMap<Vni, Open>>>) {
    loop {
        match exchange.receive().await {
            Ok((asked, asker)) => {
                let device = asker.device.clone();
                let what = match asked {
                    Asked6::Dhcp(request, number) => Asked::Six(request, number, asker),
                    Asked6::Router => Asked::Router(asker),
                    Asked6::Has(mac, address) => Asked::Has(mac, address),
                };
                pass_on(&open, &device, what);
            }
            Err(error) => {
                warn!("client networks: no request over IPv6 is heard: {error}");
                sleep(TRY_AGAIN).await;
            }
        }
    }
}

impl Desk {
    /// Answers a request by DHCPv6.
    pub(super) async fn answer6(
        &mut self,
        served: &Served,
        mut request: Request6,
        number: [u8; 3],
        asker: &Asker,
    ) {
        let Some(six) = &served.six else { return };
        // What an operator has called the card's guest it is called over IPv6, too.
        let reserved = served.called.get(&request.mac);
        request.name = reserved.map(ToString::to_string).or(request.name);
        let (now_s, mac) = (self.now_s(), request.mac);
        let book = &self.book;
        let is_anothers = |name: &HostName| {
            served.called.iter().any(|(card, called)| *card != mac && called == name)
                || served.four.as_ref().is_some_and(|four| book.has_name(&four.pool, name, mac, now_s))
        };
        let Some(answer) = self.book6.answer(&six.pool, &request, is_anothers, now_s) else { return };
        if answer
            .reply
            .granted
            .iter()
            .any(|granted| granted.status == Some(pvc_core::model::dhcp6::Status::NoAddresses))
        {
            self.warn("it has no IPv6 addresses for all that ask");
        }
        let is_new = |lease: &Lease6| !self.book6.leases().any(|had| had == lease);
        let changes = !answer.forget.is_empty() || answer.give.iter().any(is_new);
        if changes && !self.may_change(mac) {
            return;
        }
        for lease in answer.give {
            if !self.write6(&lease).await {
                return;
            }
        }
        for lease in answer.forget {
            self.spend(mac);
            self.remove6(&lease).await;
        }
        if let Some(exchange) = self.ports.six.get() {
            exchange.answer(asker, number, &answer.reply);
        }
    }

    /// What the guest at a card is called.
    fn name_of(&self, served: &Served, mac: Mac) -> Option<HostName> {
        let now_s = self.now_s();
        let reserved = served.called.get(&mac);
        let leased = served.four.as_ref().and_then(|_| self.book.name_of(mac, now_s));
        reserved.or(leased).or_else(|| self.book6.name_of(mac, now_s)).cloned()
    }

    /// Has the tree say which address a card has made for itself, for as long as its guest has a name. What is not written now is when the card is heard again.
    pub(super) async fn keep_own(&mut self, served: &Served, mac: Mac) {
        let Some(six) = &served.six else { return };
        let is_named = self.name_of(served, mac).is_some();
        if !is_named {
            self.known.remove(mac);
        }
        let cluster = self.cluster.clone();
        let (store, me) = (&*cluster.store, &cluster.me);
        if let Some(address) = self.own.unwritten(mac, is_named) {
            let write = leases6::write_own(store, self.vni, (mac, address), me);
            if self.commit("a guest's own address is not written", write).await {
                self.own.note(mac, address);
                self.is_stale = true;
            }
            return;
        }
        match self.own.of(mac) {
            Some(address) if !is_named => {
                let remove = leases6::remove_own(store, self.vni, (mac, address), me);
                if self.commit("a guest's own address is not removed", remove).await {
                    self.own.forget(mac);
                    self.is_stale = true;
                }
            }
            Some(address) => {
                self.known.insert(mac, address);
            }
            // It may have one that nobody has heard of: it had it before this node was primary.
            None if is_named && six.advertisement.prefix.prefix_len() == 64 => {
                let address = Some(mac.own_address(six.advertisement.prefix));
                if let Some(exchange) = self.ports.six.get() {
                    exchange.look_for(&Asker { device: self.vni.bridge(), address });
                }
            }
            _ => {}
        }
    }

    /// A guest does not get by one family the name that another guest has by the other.
    pub(super) fn leave_anothers_name(&self, served: &Served4, request: &mut Request) {
        let domain = served.pool.domain.as_deref().unwrap_or_default();
        let name = request.name.as_ref().and_then(|said| HostName::of(said, domain).ok());
        if name.is_some_and(|name| self.book6.has_name(&name, request.mac, self.now_s())) {
            request.name = None;
        }
    }

    /// The guests' names over IPv6, as `/etc/hosts` would have them.
    pub(super) fn hosts6(&self, served: &Served, now_s: u64) -> String {
        let Some(six) = &served.six else { return String::new() };
        let reserved = served.called.iter().map(|(mac, name)| (*mac, name));
        let leased = served.four.iter().flat_map(|_| self.book.names(now_s));
        let names = Names::new(reserved.chain(leased).chain(self.book6.names(now_s)));
        dhcp6::hosts(&six.pool, &self.book6, &names, now_s) + &self.own.hosts(&six.pool, &names)
    }

    /// Tells all guests of the router.
    pub(super) fn advertise(&mut self, served: &Served) {
        let all = Asker { device: self.vni.bridge(), address: None };
        let said = self.say(served, &all);
        self.herald.note(said);
    }

    /// Tells who has asked of the router. Who has no address is told with all.
    pub(super) fn tell_router(&mut self, served: &Served, asker: &Asker) {
        if asker.address.is_none() {
            return self.herald.is_asked();
        }
        self.say(served, asker);
    }

    fn say(&mut self, served: &Served, to: &Asker) -> bool {
        let (Some(six), Some(exchange)) = (&served.six, self.ports.six.get()) else { return false };
        match exchange.advertise(to, &six.advertisement) {
            Ok(()) => true,
            Err(error) => {
                self.warn(&format!("no router is advertised: {error}"));
                false
            }
        }
    }
}
