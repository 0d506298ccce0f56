//! Who runs in the loop: services launched, replaced by a reload, drained and retired.

use super::service::{Planned, Service};
use super::{Done, Reactor, ServiceId, Slot, bank};
use crate::clock::Now;
use crate::members::{BalancerId, Policy};

impl Reactor {
    /// Plans anew and replaces what changed, or says why not and changes nothing. A service that cannot start although
    /// its sockets are open is named.
    pub(super) fn reload(&mut self, now: Now) {
        let result = match self.replan(now) {
            Ok(failures) if failures.is_empty() => Ok(()),
            Ok(failures) => Err(format!("reloaded, but {}", failures.join("; "))),
            Err(why) => Err(format!("reload failed, nothing changed: {why}")),
        };
        match &result {
            Ok(()) => log::info!(target: "beacond", "configuration reloaded"),
            Err(why) => log::error!(target: "beacond", "{why}"),
        }
        for (id, key) in std::mem::take(&mut self.core.reload_for) {
            let done = Done::Reloaded(result.clone());
            self.call(id, now, |s, cx| s.done(key, done, cx));
        }
    }

    fn replan(&mut self, now: Now) -> Result<Vec<String>, String> {
        let plan = (self.planner)()?;
        self.open(&plan)?;
        // Committed: from here on nothing fails for the configuration's sake.
        self.govern(plan.balancers, now);
        let mut old = self.running();
        old.retain(|id| !self.services[id.index].draining);
        let mut changed = Vec::new();
        for planned in plan.services {
            let name = planned.service.name();
            let same = |id: &ServiceId| {
                let slot = &self.services[id.index];
                slot.name == name && slot.fingerprint == planned.fingerprint
            };
            match old.iter().position(same) {
                Some(at) => drop(old.remove(at)),
                None => changed.push((name, planned)),
            }
        }
        let mut failures = Vec::new();
        for (name, mut planned) in changed {
            if let Some(at) = self.predecessor(&old, &name, &planned) {
                let id = old.remove(at);
                let Some(service) = self.keep(id, planned.service, &planned.fingerprint, now) else {
                    continue;
                };
                planned.service = service;
                if let Some(retired) = self.retire(id, now) {
                    planned.service.inherit(retired);
                }
            }
            failures.extend(self.launch(planned, now).err());
        }
        for id in old {
            self.services[id.index].draining = true;
        }
        Ok(failures)
    }

    /// Has a running service take over what `new` was configured to be; gives `new` back if it must be replaced.
    fn keep(
        &mut self,
        id: ServiceId,
        new: Box<dyn Service>,
        fingerprint: &str,
        now: Now,
    ) -> Option<Box<dyn Service>> {
        let mut new = Some(new);
        self.call(id, now, |s, cx| new = new.take().and_then(|new| s.reload(new, cx)));
        if new.is_none()
            && let Some(slot) = self.services.get_mut(id.index)
        {
            slot.fingerprint = fingerprint.to_owned();
            slot.name = slot.service.as_ref().map_or_else(String::new, |s| s.name());
        }
        new
    }

    /// Which of `old` a new service replaces: the one of its text, which another section has left only another name; or
    /// the one of its name, else one that holds a socket it wants.
    fn predecessor(&self, old: &[ServiceId], name: &str, new: &Planned) -> Option<usize> {
        let wanted = new.service.sockets();
        let holds = |id: &ServiceId| {
            let service = self.services[id.index].service.as_ref();
            service.is_some_and(|old| old.sockets().iter().any(|socket| wanted.contains(socket)))
        };
        let itself = old.iter().position(|id| self.services[id.index].fingerprint == new.fingerprint);
        let namesake = || old.iter().position(|id| self.services[id.index].name == name);
        itself.or_else(namesake).or_else(|| old.iter().position(holds))
    }

    /// Puts policies in force; balancers that nobody names any more are gone.
    pub(super) fn govern(&mut self, balancers: Vec<(String, Policy)>, now: Now) {
        let members = &mut self.shared.members;
        let gone: Vec<BalancerId> = members
            .balancers()
            .filter(|(_, name)| !balancers.iter().any(|(kept, _)| kept == name))
            .map(|(id, _)| id)
            .collect();
        for id in gone {
            members.remove(id);
        }
        for (name, policy) in balancers {
            members.balancer(&name, policy, now.mono);
        }
    }

    pub(super) fn launch(&mut self, planned: Planned, now: Now) -> Result<(), String> {
        self.generation = self.generation.wrapping_add(1);
        let name = planned.service.name();
        let index = self.services.insert(Slot {
            generation: self.generation,
            name: name.clone(),
            fingerprint: planned.fingerprint,
            service: Some(planned.service),
            draining: false,
        });
        let id = ServiceId { index, generation: self.generation };
        let mut started = Ok(());
        self.call(id, now, |s, cx| started = s.start(cx));
        started.map_err(|e| {
            self.retire(id, now);
            format!("{name}: cannot start: {}", bank::plain(&e))
        })
    }

    /// Stops a service and takes it out of the loop.
    pub(super) fn retire(&mut self, id: ServiceId, now: Now) -> Option<Box<dyn Service>> {
        self.call(id, now, |s, cx| s.stop(cx));
        let slot = self.services.try_remove(id.index)?;
        for (token, source) in &mut self.core.sources {
            // A source that `stop` forgot must not speak for a service that is gone.
            if source.as_ref().is_some_and(|s| s.service == id) {
                *source = None;
                self.core.freed.push(token);
            }
        }
        slot.service
    }

    /// Asks everybody for his sessions, for those who want to know.
    pub(super) fn gather(&mut self, now: Now) {
        for (id, key, form) in std::mem::take(&mut self.core.gather_for) {
            let mut told = Vec::new();
            for service in self.services.iter().filter_map(|(_, slot)| slot.service.as_ref()) {
                let mut text = String::new();
                service.sessions(form, now, &self.shared, &mut text);
                told.push(text);
            }
            told.retain(|text| !text.is_empty());
            self.call(id, now, |s, cx| s.done(key, Done::Gathered(form, told), cx));
        }
    }

    /// Asks who is leaving whether it is done; `true` when nobody is left to wait for.
    pub(super) fn drain(&mut self, now: Now) -> bool {
        let mut idle = true;
        for id in self.leaving() {
            let mut done = false;
            self.call(id, now, |s, cx| done = s.drain(cx));
            if done && !self.core.stopping {
                self.retire(id, now);
            }
            idle &= done;
        }
        // What a reload left and what was just given back: nobody else will take it, and the next turn may be far off.
        self.core.bank.close_idle();
        idle
    }

    /// Everybody at the end of the program, else those whom a reload removed.
    fn leaving(&self) -> Vec<ServiceId> {
        if !self.core.stopping && self.services.iter().all(|(_, slot)| !slot.draining) {
            return Vec::new();
        }
        let mut leaving = self.running();
        leaving.retain(|id| self.core.stopping || self.services[id.index].draining);
        leaving
    }
}
