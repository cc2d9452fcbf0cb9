//! Random histories of three nodes that crash and are fenced, of their daemons and libvirts, of a network that comes and
//! goes, and of a capricious operator: a VM never executes twice, no old copy of it ever goes on, and in the end it is where it
//! shall be.

mod events;
mod world;

use proptest::prelude::*;

use self::{
    events::{Event, events},
    world::{World, node},
};
use super::*;

const NODES: [&str; 3] = ["a", "b", "c"];

fn methods() -> impl Strategy<Value = MigrationMethod> {
    use MigrationMethod::{Live, None, Shutdown};
    prop_oneof![3 => Just(None), 2 => Just(Live), 1 => Just(Shutdown)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_vm_never_executes_twice_whatever_the_order_of_events(events in events(), method in methods(), runs in any::<bool>()) {
        let mut world = World::new(method, runs);
        for event in events {
            world.happen(event.clone());
            let running = world.executing();
            prop_assert!(running.len() <= 1, "{event:?} made it run on {running:?}");
            for n in running {
                prop_assert!(!world.old.contains(n), "{event:?}: an old copy runs on {n}");
                let claim = &world.vm.claim.value;
                prop_assert!(claim.names(n), "{event:?}: runs on {n}, claim {claim}");
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn when_events_stop_the_desired_state_is_reached(
        events in events(),
        method in methods(),
        state in proptest::sample::select(vec![Start, Stop, Shutdown, Restart, Migrate]),
        target in 0..NODES.len(),
        hurry in any::<bool>(),
    ) {
        let mut world = World::new(method, true);
        for event in events {
            world.happen(event);
        }
        (0..NODES.len()).for_each(|n| world.happen(Event::Fence(n)));
        (0..NODES.len()).for_each(|n| world.happen(Event::Slow(n, false)));
        world.happen(Event::Cut(false));
        world.happen(Event::Desired(state, target));
        // Also one that is under way already.
        let hurried = hurry || world.migration.as_ref().is_some_and(|journey| journey.endless);
        for round in 0..500 {
            world.happen(Event::Round);
            if hurry {
                world.happen(Event::Hurry);
            }
            if round % 2 == 0 {
                world.happen(Event::Advance);
            }
            if round % 4 == 0 {
                world.happen(Event::Pass(1));
            }
            if round == 50 {
                (0..NODES.len()).for_each(|n| world.happen(Event::Late(n)));
            }
            prop_assert!(world.executing().len() <= 1);
        }
        let shall_run = matches!(state, Start | Restart | Migrate);
        prop_assert_eq!(world.vm.state.value, if shall_run { Start } else { Stop });
        let claim = &world.vm.claim.value;
        if shall_run {
            let home = &world.vm.node.value;
            prop_assert_eq!(world.executing(), vec![home]);
            prop_assert!(claim.is_only(home), "claim {}", claim);
            let may_stay = state == Migrate && method == MigrationMethod::Live && hurried;
            prop_assert!(*home == node(target) || may_stay, "on {}: {}", home, world.vm.failed_reason.value);
        } else {
            prop_assert_eq!(world.lives.values().collect::<Vec<_>>(), vec![&Off; 3]);
            prop_assert!(claim.is_empty(), "claim {}", claim);
        }
    }
}
