//! The collector is killed and started again, and stands still for a while: nobody is down for that.

use std::time::Instant;

use anyhow::Result;

use super::{PART, Proof, promised};
use crate::table::Table;

pub(super) struct Restart {
    ready_s: f64,
    back_s: f64,
    gone: usize,
}

pub(super) struct Pause {
    seconds: f64,
    gone: usize,
}

impl Proof<'_> {
    pub(super) fn restart(&mut self) -> Result<Restart> {
        self.watch.say("kill -9");
        let before = self.told();
        let began = Instant::now();
        self.rig.kill_and_restart()?;
        let ready_s = began.elapsed().as_secs_f64();
        self.wait_connected()?;
        let back_s = began.elapsed().as_secs_f64();
        // A node that is thought lost is told after half a minute, and two deadlines after a start.
        self.spell("after the start", self.plan.share(6))?;
        Ok(Restart { ready_s, back_s, gone: self.gone_since(before) })
    }

    pub(super) fn pause(&mut self) -> Result<Pause> {
        let before = self.told();
        let takes = self.plan.share(20);
        self.rig.collector.stop()?;
        self.watch.wait("stopped", takes);
        self.rig.collector.cont()?;
        self.wait_connected()?;
        self.spell("after the stop", self.plan.share(4))?;
        Ok(Pause { seconds: takes.as_secs_f64(), gone: self.gone_since(before) })
    }
}

impl Restart {
    pub(super) fn tell(&self, table: &mut Table) {
        table.promise(PART, "kill -9 and a start: ready", self.ready_s, promised::READY_S, "s");
        table.promise(PART, "the same: every agent back", self.back_s, promised::BACK_S, "s");
        table.never(PART, "the same: nodes told as down", self.gone);
    }
}

impl Pause {
    pub(super) fn tell(&self, table: &mut Table) {
        table.never(PART, &format!("stopped for {:.0} s (SIGSTOP): nodes told as down", self.seconds), self.gone);
    }
}
