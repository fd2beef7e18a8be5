//! What happens without the driver: slots get ready or fail, workers begin, and somebody else changes the environment.

use super::{Health, Model, RIVAL, World};

impl Model {
    /// Everything that slots may do next.
    pub(super) fn nature(world: &World, next: &mut Vec<(World, bool)>) {
        for (at, service) in world.services.iter().enumerate() {
            if service.idle {
                let mut changed = world.clone();
                changed.services[at].idle = false;
                next.push((changed, false));
            }
            for slot in 0..2 {
                let Some((version, health)) = service.slots[slot] else { continue };
                let mut set = |health, cost: u8| {
                    let mut changed = world.clone();
                    changed.services[at].slots[slot] = Some((version, health));
                    changed.failures_left -= cost;
                    next.push((changed, false));
                };
                if health == Health::Starting {
                    set(Health::Ready, 0);
                }
                if health != Health::Failed && world.failures_left > 0 {
                    set(Health::Failed, 1);
                }
            }
        }
    }

    /// Somebody else changes the record, and moves the first service if its standby is ready.
    pub(super) fn rival(world: &World, next: &mut Vec<(World, bool)>) {
        let Some(live) = world.live.as_ref().filter(|_| world.rival_left > 0) else { return };
        let mut services = live.services.clone();
        let mut changed = world.clone();
        let other = 1 - services[0].0;
        if let Some((version, Health::Ready)) = world.services[0].slots[other] {
            services[0] = (other, version);
            changed.services[0].live = Some(other);
            changed.services[0].idle = false;
        }
        changed.rival_left -= 1;
        changed.commit(3, RIVAL, services);
        next.push((changed, false));
    }
}
