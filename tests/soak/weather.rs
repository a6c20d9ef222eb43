//! The plan: what is done to the server and to what it depends on, and when.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::chronicle::Chronicle;
use crate::node::Node;
use crate::trouble::{Trouble, disk_fault};
use crate::upstream::BlackHole;
use crate::world::{STEADY, World};

/// What fails at present, and the dice.
pub(crate) struct Weather {
    rng: Rng,
    world: Arc<World>,
    chronicle: Chronicle,
    /// By number of the host.
    troubles: Vec<Option<(Trouble, Option<BlackHole>)>>,
    disk_fails: bool,
    is_offline: bool,
    /// The process is ended in the first half only: what it does not give back shows in the second.
    last_end: Instant,
    end: Instant,
}

impl Weather {
    pub(crate) fn new(rng: Rng, world: &Arc<World>, chronicle: &Chronicle, end: Instant) -> Self {
        let now = Instant::now();
        Self {
            rng,
            world: Arc::clone(world),
            chronicle: chronicle.clone(),
            troubles: world.hosts.iter().map(|_| None).collect(),
            disk_fails: false,
            is_offline: false,
            last_end: now + (end - now) / 2,
            end,
        }
    }

    /// Does one thing after the other until the end, or until a visitor fails.
    pub(crate) async fn rage(
        &mut self,
        node: &mut Node,
        visitors: &mut JoinSet<()>,
    ) -> Result<(), JoinError> {
        while Instant::now() < self.end {
            let pause = Duration::from_millis(self.rng.u64(50..800));
            tokio::select! {
                Some(Err(failure)) = visitors.join_next() => return Err(failure),
                () = tokio::time::sleep(pause) => {}
            }
            self.change(node).await;
        }
        Ok(())
    }

    async fn change(&mut self, node: &mut Node) {
        match self.rng.u8(..20) {
            0..8 => self.change_upstream().await,
            8..11 => self.change_disk(node),
            11 | 12 => node.damage_files(&mut self.rng),
            13 => {
                let host = &self.world.hosts[self.rng.usize(..self.world.hosts.len())];
                let tag = host.move_tag(&mut self.rng);
                self.chronicle.note(format!("{} moves {tag}", host.name));
            }
            14 => {
                self.is_offline = !self.is_offline;
                node.switch(self.is_offline).await;
            }
            15 => node.purge(&mut self.rng, &self.world).await,
            16 => node.warm(&mut self.rng, &self.world).await,
            17 => node.reload(),
            18 => node.pause(&mut self.rng).await,
            _ if Instant::now() < self.last_end => {
                // It needs its index to start.
                self.disk_fails = false;
                node.fail_disk(&[]);
                node.end_and_start(&mut self.rng).await;
                self.is_offline = false;
            }
            _ => {}
        }
        self.world.hosts.iter().for_each(|host| host.upstream.forget_requests());
    }

    async fn change_upstream(&mut self) {
        let number = self.rng.usize(..self.world.hosts.len());
        let host = &self.world.hosts[number];
        if host.name == STEADY {
            return;
        }
        if let Some((trouble, black_hole)) = self.troubles[number].take() {
            self.chronicle.note(format!("{}: {trouble:?} is over", host.name));
            drop(black_hole);
            trouble.end(&host.upstream).await;
        } else {
            let trouble = Trouble::random(&mut self.rng);
            self.chronicle.note(format!("{}: {trouble:?}", host.name));
            let black_hole = trouble.begin(&host.upstream, &mut self.rng).await;
            self.troubles[number] = Some((trouble, black_hole));
        }
    }

    fn change_disk(&mut self, node: &Node) {
        self.disk_fails = !self.disk_fails;
        let lines = if self.disk_fails { disk_fault(&mut self.rng) } else { Vec::new() };
        node.fail_disk(&lines);
    }

    /// Ends everything that fails.
    pub(crate) async fn clear(&mut self, node: &mut Node) {
        for (host, trouble) in self.world.hosts.iter().zip(&mut self.troubles) {
            if let Some((trouble, black_hole)) = trouble.take() {
                drop(black_hole);
                trouble.end(&host.upstream).await;
            }
        }
        node.fail_disk(&[]);
        if self.is_offline {
            node.switch(false).await;
        }
        self.chronicle.note("nothing fails any more");
    }
}
