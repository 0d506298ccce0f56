//! Turns of a real loop: who asks to be called again is, once.

use beacond::reactor::{Cx, Key, LogPipe, Plan, Planned, Reactor, Ready, Service};
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// Asks twice in each call, as somebody does whose sockets have an event in every turn and who never finishes.
struct Greedy {
    calls: Rc<Cell<u32>>,
}

impl Service for Greedy {
    fn name(&self) -> String {
        "greedy".to_owned()
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        cx.again(Key(7));
        cx.arm(Key(0), cx.now.mono.after(Duration::from_secs(10)));
        Ok(())
    }

    fn ready(&mut self, key: Key, _ready: Ready, cx: &mut Cx<'_>) {
        self.calls.set(self.calls.get() + u32::from(key == Key(7)));
        // The other is called once a turn.
        if key == Key(8) && self.calls.get() >= 10 {
            cx.shut_down();
        }
        for key in [Key(7), Key(7), Key(8)] {
            cx.again(key);
        }
    }

    fn timer(&mut self, _key: Key, cx: &mut Cx<'_>) {
        cx.shut_down();
    }

    fn stop(&mut self, _cx: &mut Cx<'_>) {}
}

#[test]
fn who_asks_twice_is_called_once() {
    let calls = Rc::new(Cell::new(0));
    let service = Box::new(Greedy { calls: Rc::clone(&calls) });
    let planned = Planned { service, fingerprint: String::new() };
    let plan = Plan { services: vec![planned], ..Plan::default() };
    let mut reactor = Reactor::new(LogPipe::default(), Box::new(|| Ok(Plan::default()))).unwrap();
    reactor.open(&plan).unwrap();
    reactor.start(plan).unwrap();
    reactor.run().unwrap();
    assert_eq!(calls.get(), 10);
}
