//! An operator, who looks at what there is while everything happens, and watches topics. Each order must be reported on
//! once, and what is reported must be what was asked for. Nothing of it may change what peers are told, nor keep a shard
//! from its rest.

use std::collections::BTreeSet;

use crossbeam::channel::{Receiver, Sender};

use super::Random;
use crate::id::{ConnId, ShardId};
use crate::message::Topic;
use crate::session::Protocol;
use crate::shard::orders::{Filter, Order, Outcome, Report, Search, Target, Trace, What};
use crate::shard::{Mail, Postbox};

/// The operator of a world.
pub(super) struct Operator {
    random: Random,
    shards: Postbox,
    reports: (Sender<Report>, Receiver<Report>),
    /// Where lines of traces go: nobody reads them, so that most find no room.
    lines: Postbox,
    number: u64,
    /// What was ordered and not reported on: number, places from which and as many as were wanted.
    open: Vec<(u64, u32, usize)>,
    tracing: Option<u64>,
}

impl Operator {
    pub(super) fn new(seed: u64, shards: Postbox) -> Self {
        Self {
            // Of its own: the world is the same without it.
            random: Random::new(seed ^ 0x0be5),
            shards,
            reports: crossbeam::channel::unbounded(),
            lines: Mail::mesh(1, 16)[0].postbox(),
            number: 0,
            open: Vec::new(),
            tracing: None,
        }
    }

    /// Takes reports, and gives an order now and then.
    pub(super) fn poll(&mut self) -> Result<(), String> {
        self.take_reports()?;
        if self.random.chance(100) {
            let shard = ShardId(u16::try_from(self.random.below(self.shards.shards().into())).unwrap_or(0));
            let (what, from, limit) = self.wish();
            self.number += 1;
            let order = Order { number: self.number, what, reports: self.reports.0.clone() };
            if self.shards.order(shard, Box::new(order)).is_ok() {
                self.open.push((self.number, from, limit));
            }
        }
        Ok(())
    }

    fn wish(&mut self) -> (What, u32, usize) {
        let (from, limit) = (u32::try_from(self.random.below(20)).unwrap_or(0), self.random.within(1, 8));
        let top = self.random.chance(300);
        let what = match self.random.below(5) {
            0 | 1 => {
                let protocol = Protocol::ALL[self.random.below(Protocol::ALL.len())];
                let protocol = self.random.chance(300).then_some(protocol);
                let topic = self.random.chance(300).then(topic);
                What::Connections(Search { filter: Filter { protocol, topic, ..Filter::default() }, from, limit, top })
            }
            2 => What::Topics(Search { filter: "".into(), from, limit, top }),
            3 => What::Connection(ConnId::new(from, u32::try_from(self.random.below(50)).unwrap_or(0))),
            _ => match self.tracing.take() {
                Some(number) => What::Untrace(number),
                None => {
                    self.tracing = Some(self.number);
                    let trace = Trace::new(self.number, Target::Topic(topic()), self.lines.clone(), topic());
                    What::Trace(Box::new(trace))
                }
            },
        };
        (what, from, limit)
    }

    fn take_reports(&mut self) -> Result<(), String> {
        while let Ok(Report { number, what, .. }) = self.reports.1.try_recv() {
            let place = self.open.iter().position(|(open, ..)| *open == number);
            let Some(place) = place else { return Err(format!("order {number} was reported on twice")) };
            let (_, from, limit) = self.open.swap_remove(place);
            check(&what, from, limit).map_err(|fault| format!("order {number}: {fault}: {what:?}"))?;
        }
        Ok(())
    }

    /// At the end nothing is owed.
    pub(super) fn at_rest(&mut self) -> Result<(), String> {
        self.take_reports()?;
        if self.open.is_empty() { Ok(()) } else { Err(format!("orders without a report: {:?}", self.open)) }
    }
}

fn topic() -> Topic {
    Topic::parse(b"t0", Topic::BYTES_MAX).expect("a name")
}

fn check(what: &Outcome, from: u32, limit: usize) -> Result<(), String> {
    match what {
        Outcome::Found(items, next) => {
            let values = items.iter().map(|item| serde_json::from_slice::<serde_json::Value>(&item.json));
            let values = values.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
            let names: BTreeSet<String> =
                values.iter().map(|value| format!("{}{}", value["id"], value["topic"])).collect();
            if items.len() > limit || names.len() != items.len() || next.is_some_and(|next| next <= from) {
                return Err(format!("it is no page of {limit} from {from}"));
            }
        }
        Outcome::One(Some(json)) => {
            serde_json::from_slice::<serde_json::Value>(json).map_err(|error| error.to_string())?;
        }
        _ => {}
    }
    Ok(())
}
